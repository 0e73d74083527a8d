"""Files, mounts, settings, names and copies."""

from __future__ import annotations

import asyncio
import io
import tarfile

import pytest

from firkin.errors import AgentError
from firkin.vminitd._generated import agent_pb2 as pb
from tests.agent.guest import CONTAINER, Guest, collect

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]
MIB = 1 << 20


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def member(name: str, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(info, key, value)
    return info


async def put(guest: Guest, directory: str, data: bytes, **options: object) -> pb.CopyReply:
    listener = guest.vm.link.listen(guest.vm.link.allocate_port())
    call = guest.vm.agent.submit(
        pb.CopyIn(container=CONTAINER, directory=directory, port=listener.port, **options), timeout=60
    )

    async def feed() -> None:
        async with await listener.accept() as stream:
            await stream.write(data)
            await stream.end()
            await stream.read()

    feeding = asyncio.create_task(feed())
    try:
        reply: pb.CopyReply = await call
    finally:
        listener.close()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
    return reply


async def get(guest: Guest, path: str) -> tarfile.TarFile:
    listener = guest.vm.link.listen(guest.vm.link.allocate_port())
    data = asyncio.create_task(collect(listener))
    try:
        await guest.call(pb.CopyOut(container=CONTAINER, path=path, port=listener.port), 60)
    except BaseException:
        data.cancel()
        listener.close()
        raise
    return tarfile.open(fileobj=io.BytesIO(await data))


async def test_folders_files_and_states(guest: Guest) -> None:
    where = {"container": CONTAINER}
    await guest.call(pb.Mkdir(path="/srv/a/b", mode=0o1775, parents=True, uid=7, gid=8, **where))
    await guest.call(pb.WriteFile(path="/srv/a/b/file", content=b"one ", mode=0o4640, **where))
    await guest.call(pb.WriteFile(path="/srv/a/b/file", content=b"two", append=True, **where))
    assert await guest.shell("cat /srv/a/b/file; stat -c ' %a %u %g' /srv/a/b") == "one two 1775 7 8\n"
    found = await guest.call(pb.Stat(path="/srv/a/b/file", **where))
    assert (found.mode, found.size, found.nlink) == (0o104640, 7, 1)
    await guest.shell("ln -s /srv/a/b/file /srv/link")
    assert (await guest.call(pb.Stat(path="/srv/link", **where))).link_target == "/srv/a/b/file"
    assert (await guest.call(pb.Stat(path="/srv/link", follow=True, **where))).size == 7
    with pytest.raises(AgentError) as caught:
        await guest.call(pb.Stat(path="/nowhere", **where))
    assert (caught.value.stage, caught.value.errno) == ("stat", 2)


async def test_paths_stay_below_the_root(guest: Guest) -> None:
    await guest.shell("ln -s /../../../run /srv/up; mkfifo /srv/fifo")
    await guest.call(pb.WriteFile(path="/srv/up/marker", content=b"x", create_parents=True, container=CONTAINER))
    assert await guest.shell("cat /run/marker") == "x"
    with pytest.raises(AgentError):
        await guest.call(pb.Stat(path="/run/marker"))
    with pytest.raises(AgentError):
        await guest.call(pb.WriteFile(path="/srv/fifo", content=b"x", container=CONTAINER))
    with pytest.raises(AgentError, match="absolute"):
        await guest.call(pb.WriteFile(path="relative", content=b"x", container=CONTAINER))


async def test_what_is_mounted_in_the_container_is_seen(guest: Guest) -> None:
    await guest.call(pb.WriteFile(path="/tmp/inside", content=b"tmpfs", container=CONTAINER))
    assert await guest.shell("cat /tmp/inside; grep -c ' /tmp ' /proc/mounts") == "tmpfs1\n"


async def test_mounts_of_the_agent(guest: Guest) -> None:
    await guest.call(pb.Mount(type="tmpfs", source="t", destination="/mnt/t", options=["size=1m,ro"], mkdir=True))
    with pytest.raises(AgentError, match="Read-only"):
        await guest.call(pb.Mkdir(path="/mnt/t/x"))
    await guest.call(pb.Mount(source="t", destination="/mnt/t", options=["remount", "rw"]))
    await guest.call(pb.Mkdir(path="/mnt/t/x"))
    overlay = ["lowerdir=/mnt/t", "upperdir=/run/o/upper", "workdir=/run/o/work"]
    await guest.call(pb.Mount(type="overlay", source="o", destination="/mnt/o", options=overlay, mkdir=True))
    assert (await guest.call(pb.Stat(path="/mnt/o/x"))).mode & 0o40000
    await guest.call(pb.Mount(source="/mnt/o", destination="/mnt/b", options=["bind", "ro"], mkdir=True))
    with pytest.raises(AgentError, match="Read-only"):
        await guest.call(pb.Mkdir(path="/mnt/b/y"))
    for path in ("/mnt/b", "/mnt/o", "/mnt/t"):
        await guest.call(pb.Umount(path=path))
    with pytest.raises(AgentError):
        await guest.call(pb.Umount(path="/mnt/t"))


async def test_what_is_read_ahead_need_not_be_readable(guest: Guest) -> None:
    await guest.vm.agent.write_file("/plain", b"x" * 100_000, container=CONTAINER)
    await guest.shell("mkfifo /pipe; ln -s /pipe /to-pipe; ln -s ../../../.. /up; mkdir /names; touch /names/a")
    paths = ["/plain", "/pipe", "/to-pipe", "/up", "/names", "/dev/zero", "/missing", "relative", ""]
    await guest.vm.agent.read_ahead(CONTAINER, paths, timeout=30)
    with pytest.raises(AgentError):
        await guest.vm.agent.read_ahead("nobody", ["/"])


async def test_settings(guest: Guest) -> None:
    await guest.call(pb.Sysctl(values={"net.core.somaxconn": "1234", "kernel/panic_on_oops": "0"}))
    assert await guest.shell("cat /proc/sys/net/core/somaxconn") == "1234\n"
    with pytest.raises(AgentError, match="no setting"):
        await guest.call(pb.Sysctl(values={"../etc": "1"}))


async def test_names_lie_beside_a_container_and_within_other_roots(guest: Guest) -> None:
    await guest.call(pb.ConfigureDns(location=f"/run/container/{CONTAINER}/rootfs", nameservers=["192.0.2.1"]))
    found = await guest.call(pb.Stat(path=f"/run/container/{CONTAINER}/resolv.conf"))
    assert found.size == len("nameserver 192.0.2.1\n")
    entries = [pb.HostsEntry(ip="192.0.2.9", hostnames=["db", "db.local"])]
    await guest.call(pb.ConfigureHosts(location="/run/names", entries=entries))
    found = await guest.call(pb.Stat(path="/run/names/etc/hosts"))
    assert found.size == len("192.0.2.9 db db.local\n")


async def test_a_tree_goes_in_and_out(guest: Guest) -> None:
    data = archive(
        (member("tree", type=tarfile.DIRTYPE, mode=0o750, mtime=1_000_000_000), b""),
        (member("tree/file", mode=0o4755, mtime=1_234_567_890.5, uid=11, gid=12), b"content" * 1000),
        (member("tree/" + "n" * 200), b""),
        (member("tree/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
        (member("tree/hard", type=tarfile.LNKTYPE, linkname="tree/file"), b""),
        (member("tree/big"), bytes(3 * MIB) + b"end"),
    )
    reply = await put(guest, "/srv/in/deep", data, create_parents=True, preserve_owner=True)
    assert (reply.entries, reply.bytes) == (6, 7000 + 3 * MIB + 3)
    listing = await guest.shell(
        "cd /srv/in/deep/tree; stat -c '%a %u %g %Y %h' file . ; du -k big | cut -f1; readlink link"
    )
    assert " ".join(listing.split()) == "4755 11 12 1234567890 2 750 0 0 1000000000 2 4 /etc/passwd"
    back = await get(guest, "/srv/in/deep/tree")
    assert sorted(back.getnames()) == sorted(
        ["tree", *(f"tree/{n}" for n in ("file", "n" * 200, "link", "hard", "big"))]
    )
    file = back.getmember("tree/file") if back.getmember("tree/file").isreg() else back.getmember("tree/hard")
    assert (file.mode, file.uid, file.mtime) == (0o4755, 11, 1_234_567_890.5)
    big = back.extractfile("tree/big")
    assert big is not None
    assert big.read() == bytes(3 * MIB) + b"end"


async def test_a_copy_goes_where_the_container_mounts(guest: Guest) -> None:
    await put(guest, "/tmp", archive((member("x"), b"in a tmpfs")), uid=5, gid=6)
    assert await guest.shell("cat /tmp/x; stat -c ' %u %g' /tmp/x") == "in a tmpfs 5 6\n"
    back = (await get(guest, "/tmp/x")).extractfile("x")
    assert back is not None
    assert back.read() == b"in a tmpfs"


@pytest.mark.parametrize(
    ("data", "errno"),
    [
        (archive((member("../out"), b"x")), 22),
        (archive((member("out", type=tarfile.SYMTYPE, linkname="/etc"), b""), (member("out/passwd"), b"x")), 18),
        (archive((member("disk", type=tarfile.BLKTYPE, devmajor=254, devminor=0), b"")), 1),
        (archive((member("half"), bytes(4000)))[:2000], 71),
        (b"this is no archive" * 100, 71),
    ],
    ids=["dotdot", "symlink", "device", "cut off", "garbage"],
)
async def test_bad_archives_are_refused(guest: Guest, data: bytes, errno: int) -> None:
    with pytest.raises(AgentError) as caught:
        await put(guest, "/srv/bad", data, create_parents=True)
    assert (caught.value.stage, caught.value.errno) == ("copy", errno)


async def test_what_is_not_there_is_no_empty_archive(guest: Guest) -> None:
    with pytest.raises(AgentError) as caught:
        await get(guest, "/nowhere")
    assert caught.value.errno == 2
    with pytest.raises(AgentError) as caught:
        await put(guest, "/nowhere", archive())
    assert caught.value.errno == 2


async def test_a_copy_is_cancelled_and_others_go_on(guest: Guest) -> None:
    listener = guest.vm.link.listen(guest.vm.link.allocate_port())
    request = pb.CopyIn(container=CONTAINER, directory="/srv", port=listener.port)
    call = asyncio.ensure_future(guest.call(request))
    stream = await listener.accept()
    await stream.write(archive((member("never"), bytes(MIB)))[: MIB // 2])
    assert (await guest.run("echo", "meanwhile")).stdout == b"meanwhile\n"
    stream.reset()
    with pytest.raises(AgentError) as caught:
        await call
    assert caught.value.errno == 125
    listener.close()
