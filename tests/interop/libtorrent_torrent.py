"""Torrents by libtorrent: libtorrent_torrent.py show TORRENT | create DATA TORRENT TRACKER"""

import os
import sys

import libtorrent as lt

V1_ONLY = lt.create_torrent.v1_only

command, path = sys.argv[1:3]
if command == "show":
    info = lt.torrent_info(path)
    print(info.info_hashes().v1)
    for index in range(info.num_files()):
        print(info.files().file_size(index), info.files().file_path(index))
else:
    files = lt.file_storage()
    lt.add_files(files, path)
    torrent = lt.create_torrent(files, flags=V1_ONLY)
    torrent.add_tracker(sys.argv[4])
    lt.set_piece_hashes(torrent, os.path.dirname(path))
    with open(sys.argv[3], "wb") as out:
        out.write(lt.bencode(torrent.generate()))
