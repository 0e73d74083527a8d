"""A notebook whose every cell can be gone back to: `python examples/notebook.py`.

The cells run in one Python process inside a container. After a cell the whole machine can be saved: variables, files,
open connections. Going back is a restore, not a rerun; a saved moment can be gone on from as often as one likes.
"""

from __future__ import annotations

from firkin import Container, Stdio

# The process that keeps the variables: it takes a cell's source on a socket and answers with what it printed.
KERNEL = """
import contextlib, io, socket, traceback
names = {}
with socket.socket(socket.AF_UNIX) as server:
    server.bind("/tmp/kernel")
    server.listen()
    print("ready", flush=True)
    while True:
        client, _ = server.accept()
        with client, client.makefile("rw") as cell, contextlib.redirect_stdout(cell):
            try:
                exec(cell.read(), names)
            except Exception:
                traceback.print_exc(0, cell)
"""
CLIENT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as kernel:
    kernel.connect("/tmp/kernel")
    kernel.sendall(sys.stdin.buffer.read())
    kernel.shutdown(socket.SHUT_WR)
    while data := kernel.recv(65536):
        sys.stdout.buffer.write(data)
"""


def run(box: Container, cell: str) -> str:
    """What `cell` prints, in the state that the cells before it left."""
    return box.run(["python3", "-c", CLIENT], input=cell, text=True, check=True, timeout=60).stdout


def main() -> None:
    """Three cells, a mistake, back to before it, and two ways to go on."""
    with Container.launch("python:3-slim", ["python3", "-c", KERNEL], stdout=Stdio.PIPED, network="none") as box:
        box.process.stdout.read()  # ready
        run(box, "measured = [3, 1, 2]")
        run(box, "import random; seed = random.random()")
        box.snapshot("measured")
        print("a mistake:", run(box, "measured = None; print(measured)"), end="")
    with Container.restore("measured") as box:
        print("as it was:", run(box, "print(sorted(measured))"), end="")
        one, other = box.fork(2)
        with one, other:
            print("one way:  ", run(one, "measured.append(9); print(max(measured))"), end="")
            print("another:  ", run(other, "measured.append(-1); print(min(measured))"), end="")
            same = run(one, "print(seed)") == run(other, "print(seed)")
            print("what was drawn before is the same in both:", same)


if __name__ == "__main__":
    main()
