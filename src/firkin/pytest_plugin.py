"""A pytest plugin: containers as fixtures. pytest loads it wherever Firkin is installed (entry point `pytest11`).

Settings, in `pyproject.toml` under `[tool.pytest.ini_options]` or another file of pytest's:

* `firkin_image`: the image of `firkin_container` (default: busybox); `--firkin-image IMAGE` wins over it.
* `firkin_scope`: how long one container is used: `function` (default), `class`, `module`, `package` or `session`.

The marker `firkin` gives a test, class or module (`pytestmark`) another image or options of `Container.launch`:
`@pytest.mark.firkin("debian", memory="256m")`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

import pytest

if TYPE_CHECKING:
    import firkin

__all__ = [
    "Launch",
    "firkin_container",
    "firkin_image",
    "firkin_launch",
    "pytest_addoption",
    "pytest_configure",
]

_Scope: TypeAlias = Literal["session", "package", "module", "class", "function"]
_SCOPES = ("function", "class", "module", "package", "session")
_DEFAULT_IMAGE = "busybox"
# Does nothing until it is killed; every image that can run a test has it.
_IDLE = ("sleep", "2147483647")


class Launch(Protocol):
    """What the fixture `firkin_launch` is: `Container.launch`, whose containers end with the fixture."""

    def __call__(self, image: str | None = None, command: Sequence[str] = ..., **options: Any) -> firkin.Container:
        """Start `image` (default: the fixture `firkin_image`) and return its `firkin.Container`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the plugin's options and settings."""
    group = parser.getgroup("firkin", "containers in micro-VMs")
    group.addoption("--firkin-image", metavar="IMAGE", help="image of firkin_container, in place of firkin_image")
    parser.addini("firkin_image", f"image of firkin_container (default: {_DEFAULT_IMAGE})", default=_DEFAULT_IMAGE)
    parser.addini("firkin_scope", f"scope of firkin_container: {', '.join(_SCOPES)}", default="function")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and refuse a scope that there is not."""
    config.addinivalue_line("markers", "firkin(image, **options): image and options of firkin_container")
    if config.getini("firkin_scope") not in _SCOPES:
        raise pytest.UsageError(f"firkin_scope = {config.getini('firkin_scope')}: one of {', '.join(_SCOPES)}")


def _scope(fixture_name: str, config: pytest.Config) -> _Scope:
    return cast("_Scope", config.getini("firkin_scope"))


@pytest.fixture(scope="session")
def firkin_image(pytestconfig: pytest.Config) -> str:
    """The image of `firkin_container` where no marker names one. Override the fixture to build or load one."""
    return str(pytestconfig.getoption("--firkin-image") or pytestconfig.getini("firkin_image"))


@pytest.fixture(scope=_scope)
def firkin_launch(firkin_image: str) -> Iterator[Launch]:
    """Start containers, which end with the fixture: `firkin_launch("debian", ["sleep", "60"], memory="256m")`."""
    import firkin

    with ExitStack() as stack:

        def launch(image: str | None = None, command: Sequence[str] = _IDLE, **options: Any) -> firkin.Container:
            container = firkin.Container.launch(image or firkin_image, command, **options)
            return stack.enter_context(container)

        yield launch


@pytest.fixture(scope=_scope)
def firkin_container(request: pytest.FixtureRequest, firkin_launch: Launch) -> firkin.Container:
    """A running container that does nothing by itself: `firkin_container.run(["cat", "/etc/os-release"])`."""
    marker = request.node.get_closest_marker("firkin")
    return firkin_launch(*marker.args, **marker.kwargs) if marker else firkin_launch()
