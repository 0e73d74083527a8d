"""The world outside, in a network namespace of its own: run as `unshare --net python outside.py`.

Every address of `ADDRESSES` is served by the same programs: HTTP on port 80, echo on 7, discard on 9, chargen on 19
(TCP; echo over UDP too), DNS on 53. Commands are JSON lines on standard input, each answered by a line: `{"zone": …}`
replaces the names, `{"seen": null}` tells which names were asked for.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading

ADDRESSES = (
    "1.2.3.4", "1.2.3.5", "1.2.3.6", "9.9.9.9", "8.8.8.8", "169.254.169.254", "192.168.1.10", "10.1.2.3", "100.64.0.9",
    "172.16.0.9", "198.18.0.9", "192.0.2.9", "2600:9::1", "2600:9::2", "fd00:ec2::254", "fec0::9",
    "64:ff9b::a01:203", "64:ff9b::102:304", "2002:a01:203::1", "2001:0:102:304::1", "::ffff:0:a01:203",
)  # fmt: skip
zone: dict[str, list[list[object]]] = {}
seen: list[str] = []


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def discard(sock: socket.socket) -> None:
    """Takes everything, then says how much it was."""
    total = 0
    while data := sock.recv(1 << 20):
        total += len(data)
    sock.sendall(b"%d\n" % total)
    sock.shutdown(socket.SHUT_WR)


def chargen(sock: socket.socket) -> None:
    block = bytes(range(256)) * 1024
    while True:
        sock.sendall(block)


def http(sock: socket.socket) -> None:
    sock.recv(65536)
    body = f"outside {sock.getsockname()[0]}\n".encode()
    sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def answer(query: bytes, stream: bool) -> bytes:
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    kind = struct.unpack_from("!H", query, at + 1)[0]
    question = query[12 : at + 5]
    name = ".".join(labels).lower()
    seen.append(name)
    records = []
    for owner, rtype, ttl, value in zone.get(name, []):
        numbers = {"A": 1, "CNAME": 5, "TXT": 16, "AAAA": 28}
        if rtype != "CNAME" and numbers[str(rtype)] != kind:
            continue
        data = {
            "A": lambda v: socket.inet_pton(socket.AF_INET, v),
            "AAAA": lambda v: socket.inet_pton(socket.AF_INET6, v),
            "TXT": lambda v: b"".join(
                bytes((len(v[i : i + 200]),)) + v[i : i + 200].encode() for i in range(0, len(v), 200)
            ),
            "CNAME": spell,
        }[str(rtype)](str(value))
        records.append(spell(str(owner)) + struct.pack("!HHIH", numbers[str(rtype)], 1, ttl, len(data)) + data)
    code = 0 if name in zone else 3
    body = b"".join(records)
    flags, count = 0x8180 | code, len(records)
    if len(body) > 1000 and not stream:
        flags, count, body = flags | 0x200, 0, b""
    return query[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0) + question + body


def spell(name: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"


def dns(sock: socket.socket) -> None:
    while size := sock.recv(2, socket.MSG_WAITALL):
        text = answer(sock.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL), True)
        sock.sendall(len(text).to_bytes(2, "big") + text)


def serve(port: int, work: object) -> None:
    listening = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)

    def one(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            work(sock)  # type: ignore[operator]

    def loop() -> None:
        while True:
            sock, _ = listening.accept()
            threading.Thread(target=one, args=(sock,), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()


def serve_udp(address: str, port: int, work: object) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((address, port))

    def loop() -> None:
        while True:
            data, peer = sock.recvfrom(65536)
            sock.sendto(work(data), peer)  # type: ignore[operator]

    threading.Thread(target=loop, daemon=True).start()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    for address in ADDRESSES:
        family, prefix = ("-6", 128) if ":" in address else ("-4", 32)
        subprocess.run(["ip", family, "addr", "add", f"{address}/{prefix}", "dev", "lo"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for port, work in ((7, echo), (9, discard), (19, chargen), (53, dns), (80, http), (8080, http)):
        serve(port, work)
    for address in ADDRESSES:
        serve_udp(address, 7, lambda data: data)
        serve_udp(address, 53, lambda data: answer(data, False))
    say("ready")
    for line in sys.stdin:
        command = json.loads(line)
        if "zone" in command:
            zone.clear()
            zone.update(command["zone"])
        names = list(seen)
        seen.clear()
        say(json.dumps(names))


if __name__ == "__main__":
    main()
