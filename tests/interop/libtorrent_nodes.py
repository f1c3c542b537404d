"""Nodes of the DHT by libtorrent: libtorrent_nodes.py ENTRY PORT ADDR...

One at each address, without torrents; they enter by the node at ENTRY and run until they are killed.
"""

import sys
import time

import libtorrent as lt

import libtorrent_dht

entry, port, *addresses = sys.argv[1:]
sessions = [
    lt.session({
        "listen_interfaces": f"{address}:{port}",
        "outgoing_interfaces": address,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        **libtorrent_dht.entering_by(entry),
    })
    for address in addresses
]
print(f"{len(sessions)} nodes", flush=True)
while True:
    time.sleep(60)
