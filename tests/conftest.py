"""What all tests share: one home for each worker over common caches, the test images, and the guard against leftovers.

Each worker's `FIRKIN_HOME` has its own `run`; `data` and `cache` are links to folders that all workers of this checkout
share, so that a kernel, a root filesystem or a base VM is made once. A worker's temporary files are below one folder
too. What a test leaves can so be told from what another worker is using just now.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from firkin.oci import Image, ImageStore
from firkin.types.state import StateDirs
from firkin.vmm.folder import live
from tests.leftovers import Found, of_marks, processes, since, snapshot

# How long an example may take says nothing on a machine that others use too.
settings.register_profile("firkin", deadline=None)
settings.load_profile("firkin")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT / ".build" / "test-home"
IMAGES = Path(os.environ.get("FIRKIN_TEST_IMAGES") or ROOT / ".build" / "images")
# What was killed needs a moment until the kernel has taken it away; this bounds the look, it hides nothing that stays.
GONE_WITHIN = 5.0

_home = pytest.StashKey[Path]()
_scratch = pytest.StashKey[Path]()
_lock = pytest.StashKey[int]()


def sweep(folder: Path) -> None:
    """Remove homes below `folder` whose worker is dead: the lock of each is held for as long as its worker lives.

    With each go its scratch folder and the host's control groups of the VMs of both. One whose VM still lives (its
    owner in the background, or its helpers, being killed just now) is left for the next sweep.
    """
    for home in folder.glob("worker-*"):
        with (home / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            scratch = (home / "scratch").resolve()
            states = [home, *(run.parent for run in scratch.rglob("run") if (run / "vm").is_dir())]
            if not any(live(StateDirs.under(state)) for state in states):
                shutil.rmtree(scratch, ignore_errors=True)
                shutil.rmtree(home, ignore_errors=True)


def _heed_signals() -> None:
    """What a shell or nohup has its background jobs ignore, tests send: what they start would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    """Give this process its home before any test module is imported."""
    _heed_signals()
    SHARED.mkdir(parents=True, exist_ok=True)
    with (SHARED / "sweep.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        sweep(SHARED)
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        home = Path(tempfile.mkdtemp(prefix=f"worker-{worker}-", dir=SHARED))
        descriptor = os.open(home / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    for name in ("data", "cache"):
        (SHARED / name).mkdir(exist_ok=True, mode=0o700)
        (home / name).symlink_to(SHARED / name)
    # Short, since the path of a Unix socket below it must fit into 108 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="fkt-"))
    (home / "scratch").symlink_to(scratch)
    config.stash[_home], config.stash[_scratch], config.stash[_lock] = home, scratch, descriptor
    os.environ["FIRKIN_HOME"] = str(home)
    os.environ["TMPDIR"] = str(scratch)
    tempfile.tempdir = None


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take home and scratch away again."""
    for key in (_home, _scratch):
        if folder := config.stash.get(key, None):
            shutil.rmtree(folder, ignore_errors=True)
    if descriptor := config.stash.get(_lock, None):
        os.close(descriptor)


def pytest_sessionstart(session: pytest.Session) -> None:
    """In CI an image that was not built fails the whole run, in one line, before any test."""
    missing = [
        name for name in ("debian", "debian-python", "busybox-arm64") if not (IMAGES / name / "index.json").exists()
    ]
    if missing and os.environ.get("CI") == "true" and "not vm" not in session.config.option.markexpr:
        pytest.exit(f"test images missing: {', '.join(missing)} (run tools/testimages.sh)", returncode=1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`needs_tool(name)`: without that program the test is skipped, by name, and fails in CI."""
    for marker in item.iter_markers("needs_tool"):
        for name in marker.args:
            if shutil.which(name) is None:
                if os.environ.get("CI") == "true":
                    pytest.fail(f"{name} is not installed (run tools/setup.sh tests)", pytrace=False)
                pytest.skip(f"{name} is not installed (run tools/setup.sh tests)")


def _layout(name: str) -> Path:
    layout = IMAGES / name
    if not (layout / "index.json").exists():
        pytest.fail(f"the test image {name} is not built (run tools/testimages.sh)", pytrace=False)
    return layout.resolve()


@pytest.fixture(scope="session")
def debian_layout() -> Path:
    """The folder of an OCI layout with Debian 12 minbase, tagged `latest`. Read only."""
    return _layout("debian")


@pytest.fixture(scope="session")
def debian_python_layout() -> Path:
    """The folder of an OCI layout with Debian 12 minbase and its python3, tagged `latest`. Read only."""
    return _layout("debian-python")


@pytest.fixture(scope="session")
def home(request: pytest.FixtureRequest) -> Path:
    """This worker's `FIRKIN_HOME`: own `run`, shared `data` and `cache`. It is in the environment already."""
    return request.config.stash[_home]


@pytest.fixture(scope="session")
def store(home: Path) -> ImageStore:
    """The image store of `home`, shared by all workers: add to it, but remove and prune only below a `fresh_home`."""
    return ImageStore(StateDirs.under(home))


@pytest.fixture(scope="session")
def busybox_image(store: ImageStore) -> Image:
    """`localhost/busybox`, the embedded default image."""
    return store.ensure_busybox()


@pytest.fixture(scope="session")
def debian_image(store: ImageStore, debian_layout: Path) -> Image:
    """`localhost/debian`: Debian 12 minbase, loaded into the shared store."""
    (image,) = store.load(debian_layout, name="debian")
    return image


@pytest.fixture(scope="session")
def debian_python_image(store: ImageStore, debian_python_layout: Path) -> Image:
    """`localhost/debian-python`: Debian 12 minbase with python3, loaded into the shared store."""
    (image,) = store.load(debian_python_layout, name="debian-python")
    return image


@pytest.fixture(scope="session")
def busybox_arm64_image(store: ImageStore) -> Image:
    """`localhost/busybox-arm64`: `/bin/busybox` of Debian's arm64, loaded into the shared store."""
    (image,) = store.load(_layout("busybox-arm64"), name="busybox-arm64")
    return image


@pytest.fixture
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `FIRKIN_HOME` for this test alone, set in the environment: no image, no cache, no base VM."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("FIRKIN_HOME", str(folder))
    return folder


def _look(config: pytest.Config) -> tuple[frozenset[Found], list[Found]]:
    """All that is on this machine, and what of it is this worker's."""
    home, scratch = config.stash[_home], config.stash[_scratch]
    marks = (str(home), str(scratch))
    files = [path for path in scratch.iterdir() if not path.name.startswith("pytest-of-")]
    found = snapshot([home / "run"], marks) | {Found("temporary file", str(path), str(path)) for path in files}
    return found, of_marks(found, marks)


def _check(config: pytest.Config, before: frozenset[Found], whose: str) -> None:
    """Fail if something of this worker came since `before` and stays for `GONE_WITHIN` seconds."""
    limit = time.monotonic() + GONE_WITHIN
    while left := since(before, _look(config)[1]):
        if time.monotonic() > limit:
            pytest.fail(f"left over by {whose}:\n" + "\n".join(f"  {thing}" for thing in left), pytrace=False)
        time.sleep(0.05)


@pytest.fixture
def check_nothing_is_left(home: Path) -> Callable[[], None]:
    """Fails where a process or VM stays that came to `home` since the test began, not for what a failed one left."""
    dirs, marks = StateDirs.under(home), (str(home),)
    before, vms = of_marks(processes(marks), marks), live(dirs)

    def check() -> None:
        limit = time.monotonic() + GONE_WITHIN
        while left := since(before, of_marks(processes(marks), marks)):
            assert time.monotonic() < limit, left
            time.sleep(0.02)
        assert [vm for vm in live(dirs) if vm not in vms] == []

    return check


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """A command sets the levels of its own process, which here is that of the tests after it too."""
    yield
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "firkin":
            logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def leftover_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that boots VMs and leaves something behind. Fixtures of a wider scope are there before it."""
    if request.node.get_closest_marker("vm") is None:
        yield
        return
    before, _ = _look(request.config)
    yield
    _check(request.config, before, "this test")


@pytest.fixture(scope="session", autouse=True)
def leftover_guard_of_session(request: pytest.FixtureRequest) -> Iterator[None]:
    """The same for the whole session: what fixtures of a wider scope and tests without a VM left."""
    before, _ = _look(request.config)
    yield
    _check(request.config, before, "this worker's session")
