"""`httpx`, imported without its command line.

Where click, rich and pygments are installed, as they are beside Firkin, `import httpx` imports all of them for the
sake of `httpx.main`: more than half of its time. Here that waits until somebody calls it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

__all__ = ["httpx"]

_COMMAND_LINE = "httpx._main"


def _main(*arguments: Any, **options: Any) -> Any:
    from httpx._main import main

    return main(*arguments, **options)


if "httpx" in sys.modules:
    import httpx
else:
    _stub = ModuleType(_COMMAND_LINE)
    _stub.main = _main  # type: ignore[attr-defined]
    sys.modules[_COMMAND_LINE] = _stub
    import httpx

    del sys.modules[_COMMAND_LINE]
