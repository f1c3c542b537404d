"""What leaves this host: watch_packets.py INTERFACE

Prints each way that an IP packet goes out there, once: protocol, address and port, such as "udp 10.9.0.7 53". What the
kernel says by itself (ARP, ICMPv6) is left out.
"""

import ipaddress
import socket
import struct
import sys

ETH_P_ALL = 3
NAMES = {6: "tcp", 17: "udp"}
KERNELS_OWN = (0, 58)  # hop by hop options, as of multicast reports, and ICMPv6


def way(packet):
    version = packet[0] >> 4
    if version == 4:
        protocol, to, rest = packet[9], packet[16:20], packet[(packet[0] & 15) * 4:]
    elif version == 6:
        protocol, to, rest = packet[6], packet[24:40], packet[40:]
    else:
        return None
    if protocol in KERNELS_OWN:
        return None
    port = struct.unpack(">H", rest[2:4])[0] if protocol in NAMES else 0
    return f"{NAMES.get(protocol, protocol)} {ipaddress.ip_address(to)} {port}"


# Without the link's header: the first byte is that of the packet.
watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
watch.bind((sys.argv[1], ETH_P_ALL))
print("watching", flush=True)
seen = set()
while True:
    packet, (_, _, kind, _, _) = watch.recvfrom(65535)
    told = way(packet) if kind == socket.PACKET_OUTGOING else None
    if told and told not in seen:
        seen.add(told)
        print(told, flush=True)
