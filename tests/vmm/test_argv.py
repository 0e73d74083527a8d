"""QEMU's command line, from values alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from firkin.types import VirtiofsTag
from firkin.vmm.argv import DiskFds, Handed, command_line, kernel_arguments, machine_type
from firkin.vmm.config import Disk, Network, Share, VmConfig
from firkin.vmm.host import HostCapabilities
from firkin.vmm.share_ports import PORTS

TCG = HostCapabilities(
    arch="x86_64",
    machine="microvm",
    qemu="/usr/bin/qemu-system-x86_64",
    qemu_version=(7, 2, 22),
    accelerator="tcg",
    accelerator_reason="",
    tsc_khz=2299998,
    sandbox=True,
    virtiofsd="",
    cpus=2,
    memory=8 << 30,
    boot_id="b",
    uid_base=0,
    uid_count=0,
    kvm_group=-1,
    qemu_identity="1 2 3",
    processor="p",
)
KVM = replace(TCG, accelerator="kvm")
ARM = replace(TCG, arch="aarch64", machine="virt", qemu="/usr/bin/qemu-system-aarch64", accelerator="kvm", tsc_khz=0)
BOOT = Handed(agent=5, qmp=6, console=7, kernel=8, initramfs=9)
FORK = Handed(agent=5, qmp=6, console=7, ram=8, state=9)


def value(argv: list[str], option: str) -> str:
    """The one value of an option that is given once."""
    assert argv.count(option) == 1
    return argv[argv.index(option) + 1]


def values(argv: list[str], option: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == option]


def test_a_boot_under_tcg() -> None:
    argv = command_line(VmConfig(cpus=2, memory=256 << 20), TCG, BOOT, name="c1")
    assert argv[0] == "/usr/bin/qemu-system-x86_64"
    assert {"-nodefaults", "-no-user-config", "-nographic", "-no-reboot"} <= set(argv)
    assert value(argv, "-machine") == "microvm,acpi=on,rtc=on,ioapic2=off"
    assert value(argv, "-accel") == "tcg"
    assert value(argv, "-cpu") == "Nehalem-v1,+rdrand,+arat"
    assert value(argv, "-smp") == "2"
    assert value(argv, "-m") == "256M"
    assert value(argv, "-sandbox") == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    assert value(argv, "-kernel") == "/proc/self/fd/8"
    assert value(argv, "-initrd") == "/proc/self/fd/9"
    assert "-incoming" not in argv


def test_the_kernel_learns_the_counters_rate_under_tcg_only() -> None:
    assert "tsc_early_khz=2299998" in kernel_arguments(VmConfig(), TCG).split()
    assert "tsc_early_khz" not in kernel_arguments(VmConfig(), TCG, tsc=False)
    assert "tsc_early_khz" not in kernel_arguments(VmConfig(), KVM)
    assert "mitigations=off" not in kernel_arguments(VmConfig(), KVM)
    assert "console=ttyAMA0" in kernel_arguments(VmConfig(), ARM).split()


def test_what_the_caller_adds_comes_last() -> None:
    assert kernel_arguments(VmConfig(cmdline_extra="quiet=0 foo"), TCG).endswith(" quiet=0 foo")


@pytest.mark.parametrize(
    ("host", "config", "model"),
    [
        (KVM, VmConfig(), "host,-vmx,-svm"),
        (KVM, VmConfig(nested=True), "host"),
        (TCG, VmConfig(cpu_model="max"), "max"),
        (ARM, VmConfig(), "host"),
        (replace(ARM, accelerator="tcg"), VmConfig(), "max"),
    ],
)
def test_cpu_models(host: HostCapabilities, config: VmConfig, model: str) -> None:
    argv = command_line(config, host, BOOT, name="c1")
    assert value(argv, "-cpu") == model
    assert value(argv, "-accel") == host.accelerator


def test_arm_has_its_own_machine() -> None:
    argv = command_line(VmConfig(), ARM, BOOT, name="c1")
    assert value(argv, "-machine") == "virt,gic-version=max"
    assert "isa" not in " ".join(argv)


def test_pic_and_pit_keep_their_defaults() -> None:
    assert not re.search(r"\b(pic|pit)=", " ".join(command_line(VmConfig(), TCG, BOOT, name="c1")))


def test_a_build_shares_its_ram_file_and_a_fork_does_not() -> None:
    build = command_line(VmConfig(), TCG, replace(BOOT, ram=20, ram_shared=True), name="c1")
    assert value(build, "-object") == "memory-backend-file,id=ram,size=512M,mem-path=/proc/self/fd/20,share=on"
    fork = command_line(VmConfig(), TCG, FORK, name="c1")
    assert value(fork, "-object") == "memory-backend-file,id=ram,size=512M,mem-path=/proc/self/fd/8,share=off"
    assert value(fork, "-machine").endswith(",memory-backend=ram")


def test_a_fork_loads_its_state_and_no_kernel() -> None:
    argv = command_line(VmConfig(), TCG, FORK, name="c1")
    assert value(argv, "-incoming") == "fd:9"
    assert "migration.announce-rounds=0" in values(argv, "-global")
    assert not {"-kernel", "-initrd", "-append"} & set(argv)


@pytest.mark.parametrize(("disks", "ioapic2"), [(0, "off"), (6, "off"), (7, "on")])
def test_more_devices_than_one_ioapic_serves_get_a_second(disks: int, ioapic2: str) -> None:
    config = VmConfig(disks=tuple(Disk(Path(f"/{index}")) for index in range(disks)))
    assert machine_type(config, TCG) == f"microvm,acpi=on,rtc=on,ioapic2={ioapic2}"


def test_a_newer_qemu_maps_the_ram_of_a_fork_read_only() -> None:
    argv = command_line(VmConfig(), replace(TCG, qemu_version=(8, 2, 0)), FORK, name="c1")
    assert value(argv, "-object").endswith(",share=off,readonly=on,rom=off")


def test_neither_balloon_nor_page_reporting_ever() -> None:
    assert "balloon" not in " ".join(command_line(VmConfig(), TCG, FORK, name="c1"))


def test_disks_have_their_serial_and_their_own_descriptors() -> None:
    disks = (Disk(Path("/a")), Disk(Path("/b"), read_only=True), Disk(Path("/c"), overlay=False))
    handed = replace(BOOT, disks=(DiskFds(20, 21), DiskFds(22, 23), DiskFds(24, 25, device=True)))
    argv = command_line(VmConfig(disks=disks), TCG, handed, name="c1")
    nodes = [json.loads(node) for node in values(argv, "-blockdev")]
    assert [node["node-name"] for node in nodes] == ["disk0", "disk1", "disk2"]
    assert [node["read-only"] for node in nodes] == [False, True, False]
    assert nodes[0]["backing"]["read-only"] is True
    assert nodes[0]["cache"]["no-flush"] is True
    assert nodes[2]["data-file"]["read-only"] is False
    assert nodes[2]["data-file"]["file"]["driver"] == "host_device"
    assert nodes[2]["cache"]["no-flush"] is False
    assert [device for device in values(argv, "-device") if "virtio-blk" in device] == [
        f"virtio-blk-device,id=disk{i},drive=disk{i},serial=disk{i},num-queues=1,werror=report,rerror=report"
        for i in range(3)
    ]
    sets = values(argv, "-add-fd")
    assert sets[1:] == [f"fd={20 + i},set={2 + i}" for i in range(6)]
    assert handed.all() == [5, 6, 7, 8, 9, *range(20, 26)]


def test_networks_and_shares_are_descriptors() -> None:
    share = Share(VirtiofsTag("a,b"), Path("/data"))
    config = VmConfig(networks=(Network(30, "52:54:00:00:00:01"),), shares=(share,))
    argv = command_line(config, TCG, replace(BOOT, shares=(31,)), name="c1")
    assert value(argv, "-netdev") == "stream,id=net0,server=off,addr.type=fd,addr.str=30"
    assert "virtio-net-device,id=net0,netdev=net0,mac=52:54:00:00:00:01" in values(argv, "-device")
    assert "vhost-user-fs-device,id=share0,chardev=share0,tag=a,,b" in values(argv, "-device")
    assert "socket,id=share0,fd=31" in values(argv, "-chardev")
    assert value(argv, "-object") == "memory-backend-memfd,id=ram,size=512M,share=on"


@pytest.mark.parametrize("handed", [replace(BOOT, ram=20, ram_shared=True), FORK], ids=["build", "fork"])
def test_what_is_saved_and_its_forks_have_ports_for_shares_and_no_share(handed: Handed) -> None:
    config = VmConfig(shares=(Share(VirtiofsTag("data"), Path("/data")),))
    argv = command_line(config, TCG, handed, name="c1")
    assert "pcie=on" in value(argv, "-machine")
    ports = [device for device in values(argv, "-device") if device.startswith("pcie-root-port")]
    assert len(ports) == PORTS
    assert len(set(ports)) == PORTS
    assert "vhost-user" not in " ".join(argv)
    assert "pcie" not in " ".join(command_line(VmConfig(), TCG, handed, name="c1"))


def test_a_boot_listens_for_its_host_and_a_fork_has_it_from_the_beginning() -> None:
    boot, fork = (values(command_line(VmConfig(), TCG, handed, name="c1"), "-chardev") for handed in (BOOT, FORK))
    assert "socket,id=agent,fd=5,server=on,wait=off" in boot
    assert "socket,id=agent,fd=5" in fork


def test_a_forks_list_of_pages_is_inherited() -> None:
    assert replace(FORK, pages=11).all() == [5, 6, 7, 8, 9, 11]


@pytest.mark.parametrize("handed", [BOOT, FORK], ids=["boot", "fork"])
def test_no_path_but_the_programs_own_is_named(handed: Handed) -> None:
    argv = command_line(VmConfig(), TCG, handed, name="c1")
    paths = re.findall(r"(?<![\w/.])/[\w/.]+", " ".join(argv[1:]))
    assert all(path.startswith(("/proc/self/fd/", "/dev/fdset/")) for path in paths)
