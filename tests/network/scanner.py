"""What runs inside the guest: tries what it is told by JSON lines, and answers with what came of it. Stands alone."""

import errno
import json
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def outcome(work):
    try:
        return work()
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def tcp(address, port, data="GET / HTTP/1.0\r\n\r\n", timeout=10):
    def work():
        with socket.create_connection((address, port), timeout) as sock:
            sock.sendall(data.encode())
            sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode("latin-1")

    return outcome(work)


def udp(address, port, data="hello", timeout=1.5):
    def work():
        with socket.socket(family(address), socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            sock.connect((address, port))
            sock.send(data.encode())
            return sock.recv(65536).decode("latin-1")

    return outcome(work)


def name(text):
    try:
        return sorted({found[4][0] for found in socket.getaddrinfo(text, 80, proto=socket.IPPROTO_TCP)})
    except socket.gaierror as error:
        return str(error)


def dns(server, text, kind=1, stream=False, port=53):
    """The answer's code, TC flag, and addresses of a raw query."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in text.split("."))
    query = struct.pack("!HHHHHH", 77, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)

    def work():
        with socket.socket(family(server), socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect((server, port))
            if stream:
                sock.sendall(len(query).to_bytes(2, "big") + query)
                size = int.from_bytes(sock.recv(2, socket.MSG_WAITALL), "big")
                answer = sock.recv(size, socket.MSG_WAITALL)
            else:
                sock.send(query)
                answer = sock.recv(65536)
        return {
            "code": answer[3] & 15,
            "cut": bool(answer[2] & 2),
            "answers": answer[7] | answer[6] << 8,
            "size": len(answer),
        }

    return outcome(work)


def raw(frame, timeout=0.5):
    """Send a frame as it is; how many came back within the time that are not ours."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock:
        sock.bind(("eth0", 0))
        sock.settimeout(timeout)
        sock.send(bytes.fromhex(frame))
        came = []
        try:
            while True:
                data, where = sock.recvfrom(65536)
                if where[2] != socket.PACKET_OUTGOING:
                    came.append(data.hex())
        except TimeoutError:
            return came


def mac():
    return Path("/sys/class/net/eth0/address").read_text().strip()


def pull(address, port, size):
    """Read so much, then hold the connection; its number."""
    sock = socket.create_connection((address, port), 10)
    got = 0
    while got < size:
        got += len(sock.recv(65536))
    held.append(sock)
    return len(held) - 1


def more(number):
    """What the held connection gives now: its end, an error, or that it goes on."""
    held[number].settimeout(5)

    def work():
        limit = 64 << 20
        while limit > 0:
            data = held[number].recv(1 << 20)
            if not data:
                return "end"
            limit -= len(data)
        return "goes on"

    return outcome(work)


def push(address, port, size):
    """Send so many bytes to a discard server; what it says."""
    with socket.create_connection((address, port), 10) as sock:
        block = bytes(1 << 16)
        for _ in range(size >> 16):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        return int(sock.makefile().readline())


def timed(server, text, rounds):
    """How many milliseconds each of so many queries takes, after a first."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        assert dns(server, text)["answers"] == 1
        times.append((time.perf_counter() - began) * 1e3)
    return times[1:]


def echo(port):
    """Serve connections and datagrams from now on, each by giving back what comes first."""
    listening = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.bind(("::", port))

    def answer():
        while True:
            data, peer = datagrams.recvfrom(65536)
            datagrams.sendto(data, peer)

    def serve():
        while True:
            sock, _ = listening.accept()
            with sock:
                sock.sendall(sock.recv(65536))

    for work in (serve, answer):
        threading.Thread(target=work, daemon=True).start()


def received():
    """How many frames the card has received."""
    return int(Path("/sys/class/net/eth0/statistics/rx_packets").read_text())


held = []
commands = {f.__name__: f for f in (tcp, udp, name, dns, raw, mac, pull, more, push, timed, echo, received)}
if __name__ == "__main__":
    for line in sys.stdin:
        given = json.loads(line)
        sys.stdout.write(json.dumps(commands[given.pop("do")](**given)) + "\n")
        sys.stdout.flush()
    os._exit(0)
