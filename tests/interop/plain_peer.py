"""A peer that speaks BEP 3 and no extension: plain_peer.py TORRENT DIR ADDR PORT

It dials nobody. What is in DIR is served; the rest is downloaded from whoever calls and written there when all of
it is here. As a seed it chokes now and then, and forgets what it was asked until then, as BEP 3 has it.
"""

import hashlib
import os
import socket
import struct
import sys
import threading
import time

BLOCK = 16384
DEPTH = 8
TURN = 60
CHOKE, UNCHOKE, INTERESTED, HAVE, BITFIELD, REQUEST, PIECE = 0, 1, 2, 4, 5, 6, 7


def decode(data, at=0):
    """The value at this place, and the place after it."""
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in b"ld":
        items, at = [], at + 1
        while data[at : at + 1] != b"e":
            item, at = decode(data, at)
            items.append(item)
        return items if kind == b"l" else dict(zip(items[::2], items[1::2])), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1 : end], end


def raw_info(data):
    at = 1
    while True:
        key, at = decode(data, at)
        _, end = decode(data, at)
        if key == b"info":
            return data[at:end]
        at = end


class Torrent:
    def __init__(self, path, directory):
        with open(path, "rb") as file:
            raw = raw_info(file.read())
        info, _ = decode(raw)
        self.hash = hashlib.sha1(raw).digest()
        self.piece_len = info[b"piece length"]
        hashes = info[b"pieces"]
        self.hashes = [hashes[n : n + 20] for n in range(0, len(hashes), 20)]
        top = os.path.join(os.fsencode(directory), info[b"name"])
        if b"files" in info:
            self.files = [(os.path.join(top, *f[b"path"]), f[b"length"]) for f in info[b"files"]]
        else:
            self.files = [(top, info[b"length"])]
        self.total = sum(length for _, length in self.files)
        self.bytes = bytearray(self.total)
        self.lock = threading.Lock()
        self.got = set()
        self.load()
        self.have = {n for n in range(len(self.hashes)) if self.is_right(n)}

    def load(self):
        at = 0
        for path, length in self.files:
            if os.path.exists(path):
                with open(path, "rb") as file:
                    part = file.read(length)
                self.bytes[at : at + len(part)] = part
            at += length

    def save(self):
        at = 0
        for path, length in self.files:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(self.bytes[at : at + length])
            at += length

    def span(self, piece):
        start = piece * self.piece_len
        return start, min(start + self.piece_len, self.total)

    def is_right(self, piece):
        start, end = self.span(piece)
        return hashlib.sha1(self.bytes[start:end]).digest() == self.hashes[piece]

    def blocks(self):
        for piece in range(len(self.hashes)):
            start, end = self.span(piece)
            for begin in range(0, end - start, BLOCK):
                yield piece, begin, min(BLOCK, end - start - begin)

    def bitfield(self):
        bits = bytearray((len(self.hashes) + 7) // 8)
        for piece in self.have:
            bits[piece // 8] |= 0x80 >> piece % 8
        return bytes(bits)


class Connection:
    def __init__(self, torrent, stream):
        self.torrent = torrent
        self.stream = stream
        self.theirs = set()
        self.asked = set()
        self.served = 0
        self.choking_until = 0
        self.am_interested = False
        self.peer_choking = True

    def say(self, kind, payload=b""):
        self.stream.sendall(struct.pack(">IB", 1 + len(payload), kind) + payload)

    def read(self, length):
        data = b""
        while len(data) < length:
            more = self.stream.recv(length - len(data))
            if not more:
                raise ConnectionError("closed")
            data += more
        return data

    def run(self):
        hello = self.read(68)
        if hello[28:48] != self.torrent.hash:
            return
        name = b"-PL0001-" + os.urandom(12)
        self.stream.sendall(b"\x13BitTorrent protocol" + bytes(8) + self.torrent.hash + name)
        if self.torrent.have:
            self.say(BITFIELD, self.torrent.bitfield())
        while True:
            (length,) = struct.unpack(">I", self.read(4))
            if length == 0:
                continue
            message = self.read(length)
            if message[0] > 9:
                raise ConnectionError(f"message {message[0]} is none of BEP 3's")
            self.hear(message[0], message[1:])
            self.ask()

    def hear(self, kind, payload):
        if kind == CHOKE:
            self.peer_choking = True
            self.asked.clear()
        elif kind == UNCHOKE:
            self.peer_choking = False
        elif kind == INTERESTED:
            self.say(UNCHOKE)
        elif kind == HAVE:
            self.theirs.update(struct.unpack(">I", payload))
        elif kind == BITFIELD:
            bits = "".join(f"{byte:08b}" for byte in payload)
            self.theirs = {n for n, bit in enumerate(bits) if bit == "1"}
        elif kind == REQUEST:
            self.serve(*struct.unpack(">III", payload))
        elif kind == PIECE:
            self.take(*struct.unpack(">II", payload[:8]), payload[8:])

    def serve(self, piece, begin, length):
        if time.monotonic() < self.choking_until:
            return
        start = piece * self.torrent.piece_len + begin
        block = bytes(self.torrent.bytes[start : start + length])
        self.say(PIECE, struct.pack(">II", piece, begin) + block)
        self.served += 1
        if self.served % TURN == 0:
            self.choking_until = time.monotonic() + 0.1
            self.say(CHOKE)
            threading.Timer(0.15, self.say, (UNCHOKE,)).start()

    def take(self, piece, begin, block):
        torrent = self.torrent
        self.asked.discard((piece, begin, len(block)))
        start = piece * torrent.piece_len + begin
        with torrent.lock:
            torrent.got.add((piece, begin, len(block)))
            torrent.bytes[start : start + len(block)] = block
            if piece in torrent.have or not torrent.is_right(piece):
                return
            torrent.have.add(piece)
            self.say(HAVE, struct.pack(">I", piece))
            if len(torrent.have) == len(torrent.hashes):
                torrent.save()
                print("complete", flush=True)

    def ask(self):
        torrent = self.torrent
        wanted = self.theirs - torrent.have
        if wanted and not self.am_interested:
            self.am_interested = True
            self.say(INTERESTED)
        if self.peer_choking or len(self.asked) > DEPTH // 2:
            return
        for block in torrent.blocks():
            if len(self.asked) >= DEPTH:
                return
            if block[0] in wanted and block not in self.asked | torrent.got:
                self.asked.add(block)
                self.say(REQUEST, struct.pack(">III", *block))


def talk(torrent, stream):
    try:
        Connection(torrent, stream).run()
    except OSError as error:
        print(error, flush=True)
    finally:
        stream.close()


def main():
    path, directory, address, port = sys.argv[1:5]
    torrent = Torrent(path, directory)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, int(port)), family=family)
    print(f"{len(torrent.have)} of {len(torrent.hashes)} pieces are here", flush=True)
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=talk, args=(torrent, stream), daemon=True).start()


main()
