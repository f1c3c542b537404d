"""A peer by libtorrent: libtorrent_peer.py TORRENT DIR ADDR PORT [pex] [lsd]

What is in DIR is checked, the rest is downloaded there; serves until it is killed. TCP in the clear only, and no
way to find peers but the torrent's trackers, those that dial it, and what is named at the end.
"""

import sys
import time

import libtorrent as lt

torrent, directory, address, port, *finders = sys.argv[1:]
host = f"[{address}]" if ":" in address else address
IN_THE_CLEAR = 2
session = lt.session({
    "listen_interfaces": f"{host}:{port}",
    "outgoing_interfaces": address,
    "enable_dht": False,
    "enable_lsd": "lsd" in finders,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "in_enc_policy": IN_THE_CLEAR,
    "out_enc_policy": IN_THE_CLEAR,
    "allow_multiple_connections_per_ip": True,
    "alert_mask": lt.alert.category_t.error_notification
    | lt.alert.category_t.status_notification
    | lt.alert.category_t.tracker_notification
    | lt.alert.category_t.connect_notification,
})
params = lt.add_torrent_params()
params.ti = lt.torrent_info(torrent)
params.save_path = directory
params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
if "pex" not in finders:
    params.flags |= lt.torrent_flags.disable_pex
handle = session.add_torrent(params)

start = time.monotonic()
while True:
    session.wait_for_alert(200)
    for alert in session.pop_alerts():
        print(f"{time.monotonic() - start:.3f} {alert.message()}", flush=True)
