"""Two libtorrent sessions that can find each other through one tracker alone.

Arguments: tracker URL, empty directory. Prints "done" once the second has what the first had.
"""

import os
import sys
import time

import libtorrent as lt

LIMIT = 60


def session():
    return lt.session({
        "listen_interfaces": "127.0.0.1:0",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "allow_multiple_connections_per_ip": True,
        "alert_mask": lt.alert.category_t.tracker_notification | lt.alert.category_t.error_notification,
    })


def main(url, top):
    seed_dir, leech_dir = os.path.join(top, "seed"), os.path.join(top, "leech")
    os.makedirs(seed_dir)
    os.makedirs(leech_dir)
    with open(os.path.join(seed_dir, "data"), "wb") as data:
        data.write(os.urandom(300_000))
    files = lt.file_storage()
    lt.add_files(files, os.path.join(seed_dir, "data"))
    torrent = lt.create_torrent(files, 16384, lt.create_torrent.v1_only)
    torrent.add_tracker(url)
    lt.set_piece_hashes(torrent, seed_dir)
    info = lt.torrent_info(lt.bdecode(lt.bencode(torrent.generate())))
    sessions = [session(), session()]
    handles = [
        each.add_torrent({"ti": info, "save_path": where})
        for each, where in zip(sessions, [seed_dir, leech_dir])
    ]
    end = time.monotonic() + LIMIT
    while not all(handle.status().is_seeding for handle in handles):
        if time.monotonic() > end:
            for each in sessions:
                for alert in each.pop_alerts():
                    print(alert.message(), file=sys.stderr)
            sys.exit("the sessions did not find each other")
        if handles[0].status().is_seeding:
            handles[1].force_reannounce()
        sessions[1].wait_for_alert(200)
    print("done")


main(*sys.argv[1:])
