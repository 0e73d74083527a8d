"""`--cidfile`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from firkin.errors import InvalidInputError

__all__ = ["id_file"]


@contextmanager
def id_file(name: str | None) -> Iterator[Callable[[str], None]]:
    """What writes a container's id to the file `name`, which must not be there; it goes where nothing was written."""
    if name is None:
        yield lambda id: None
        return
    path = Path(name)
    try:
        path.touch(exist_ok=False)
    except OSError as error:
        raise InvalidInputError(
            f"can't write the id to {name}: {error.strerror}", value=name, hint="name a file that is not there"
        ) from error

    def write(id: str) -> None:
        path.write_text(id)

    try:
        yield write
    finally:
        if not path.stat().st_size:
            path.unlink()
