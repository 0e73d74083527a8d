"""Finding the HELLO, and its answer, among whatever else is on the wire (docs/protocol.md, section 1)."""

from __future__ import annotations

from firkin.vminitd.wire import HELLO_SIZE, Answer, Hello

__all__ = ["AnswerSearch", "HelloSearch"]

_KEEP = HELLO_SIZE - 1
# A tail that matches this much of the sentinel may be its beginning. A shorter match is likely chance, and holding it
# back could hold back the end of a frame that nothing follows.
_WORTH_WAITING = 8


class AnswerSearch:
    """The host's side: looks for the 64 bytes that begin with `nonce` and have a right crc; drops all before them."""

    def __init__(self, nonce: bytes) -> None:
        self._nonce = nonce
        self._tail = b""

    def feed(self, data: bytes) -> tuple[Answer, bytes] | None:
        """Look in `data`, which follows what was fed before; the answer and the bytes after it, or None so far."""
        data = self._tail + data
        start = data.find(self._nonce)
        while 0 <= start <= len(data) - HELLO_SIZE:
            answer = Answer.decode(data[start : start + HELLO_SIZE])
            if answer is not None:
                return answer, data[start + HELLO_SIZE :]
            start = data.find(self._nonce, start + 1)
        self._tail = data[-_KEEP:]
        return None


class HelloSearch:
    """The guest's side: looks for the current sentinel at every byte offset, in every state."""

    def __init__(self, sentinel: bytes) -> None:
        self.sentinel = sentinel
        # Bytes at the end of what was fed that begin with the sentinel, so that they may yet become a HELLO.
        self.pending = 0
        self._tail = b""

    def feed(self, data: bytes) -> tuple[Hello, int, int] | None:
        """Look in `data`, which follows what was fed before.

        Returns None, or the first valid HELLO with the offsets in `data` where it begins (negative: in earlier data)
        and ends; the search then goes on behind it with the next sentinel, with what the caller feeds next.
        """
        before = len(self._tail)
        joined = self._tail + data
        start = joined.find(self.sentinel)
        while 0 <= start <= len(joined) - HELLO_SIZE:
            hello = Hello.decode(joined[start : start + HELLO_SIZE])
            if hello is not None:
                self._tail = b""
                self.pending = 0
                self.sentinel = hello.next_sentinel
                return hello, start - before, start - before + HELLO_SIZE
            start = joined.find(self.sentinel, start + 1)
        self.pending = len(joined) - start if start >= 0 else self._begun(joined)
        self._tail = joined[-_KEEP:]
        return None

    def _begun(self, data: bytes) -> int:
        lengths = range(len(self.sentinel) - 1, _WORTH_WAITING - 1, -1)
        return next((length for length in lengths if data.endswith(self.sentinel[:length])), 0)
