"""A peer by libtorrent: libtorrent_peer.py TORRENT|MAGNET DIR ADDR PORT [WORD…]

Words: pex, lsd, dht=ENTRY, plaintext, rc4, utp, slow.

What is in DIR is checked, the rest is downloaded there, slowly at 16 kB/s; serves until it is killed. TCP only, or uTP
only; encrypted only, if a method is named, else in the clear only; and no way to find peers but the torrent's trackers,
those that dial it, and what is named at the end.
"""

import sys
import time

import libtorrent as lt

import libtorrent_dht

torrent, directory, address, port, *words = sys.argv[1:]
host = f"[{address}]" if ":" in address else address
ENCRYPTED, IN_THE_CLEAR = 0, 2
methods = ("plaintext" in words) + 2 * ("rc4" in words)
encryption = ENCRYPTED if methods else IN_THE_CLEAR
utp = "utp" in words
entries = [word.removeprefix("dht=") for word in words if word.startswith("dht=")]
dht = libtorrent_dht.entering_by(entries[0]) if entries else {"enable_dht": False}
session = lt.session({
    "listen_interfaces": f"{host}:{port}",
    "outgoing_interfaces": address,
    "enable_lsd": "lsd" in words,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": utp,
    "enable_outgoing_utp": utp,
    "enable_incoming_tcp": not utp,
    "enable_outgoing_tcp": not utp,
    "in_enc_policy": encryption,
    "out_enc_policy": encryption,
    "allowed_enc_level": methods or 3,
    "allow_multiple_connections_per_ip": True,
    **dht,
    "alert_mask": lt.alert.category_t.error_notification
    | lt.alert.category_t.status_notification
    | lt.alert.category_t.tracker_notification
    | lt.alert.category_t.connect_notification,
})
if torrent.startswith("magnet:"):
    params = lt.parse_magnet_uri(torrent)
else:
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
params.save_path = directory
params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
if "pex" not in words:
    params.flags |= lt.torrent_flags.disable_pex
params.download_limit = 16_000 * ("slow" in words)
handle = session.add_torrent(params)

start = time.monotonic()
while True:
    session.wait_for_alert(200)
    for alert in session.pop_alerts():
        print(f"{time.monotonic() - start:.3f} {alert.message()}", flush=True)
