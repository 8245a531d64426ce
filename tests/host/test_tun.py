"""The device in a fresh network namespace, and each of its failures in one line.

The namespace belongs to a thread: it is gone, with all that is in it, when the thread ends.
"""

import asyncio
import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
import pytun
from lab.namespaces import in_new_namespace

import candy
from candy.errors import OperationalError
from candy.host.reconciler import Part
from candy.host.tun import Tun

FIRST = IPv4Interface("192.168.202.5/24")
SECOND = IPv4Interface("10.9.0.1/16")

UNKNOWN_OPTION = 9999
"""Of a netlink socket."""


def on_a_machine(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function in a network namespace of its own."""
    in_new_namespace(lambda: asyncio.run(test()))


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def addresses(name: str) -> list[str]:
    from pyroute2 import AsyncIPRoute

    index = socket.if_nametoindex(name)
    async with AsyncIPRoute() as netlink:
        found = [address async for address in await netlink.get_addr(family=socket.AF_INET, index=index)]
    return [f"{address.get('IFA_LOCAL')}/{address['prefixlen']}" for address in found]


async def link(name: str) -> dict[str, Any]:
    from pyroute2 import AsyncIPRoute

    async with AsyncIPRoute() as netlink:
        [message] = [one async for one in await netlink.get_links(socket.if_nametoindex(name))]
    names = {"mtu": "mtu", "txqlen": "txqlen", "segments": "gso_max_segs"}
    return {name: message.get(field) for name, field in names.items()} | {"state": message["state"]}


@pytest.mark.netns
def test_made_configured_moved_and_gone() -> None:
    async def test() -> None:
        with Tun("candy", 1400) as tun:
            assert tun.address is None
            assert not os.get_blocking(tun.fileno())
            assert not os.get_inheritable(tun.fileno())
            assert await addresses("candy") == []
            await tun.configure(FIRST)
            assert tun.address == FIRST
            assert await addresses("candy") == ["192.168.202.5/24"]
            assert await link("candy") == {"mtu": 1400, "txqlen": 500, "segments": 128, "state": "up"}
            await tun.configure(FIRST)
            assert await addresses("candy") == ["192.168.202.5/24"]
            await tun.configure(SECOND)
            assert tun.address == SECOND
            assert await addresses("candy") == ["10.9.0.1/16"]
            await tun.configure(IPv4Interface("10.9.0.1/32"))
            assert await addresses("candy") == ["10.9.0.1/32"]
        with pytest.raises(OSError, match=r"No such device|no interface"):
            socket.if_nametoindex("candy")
        tun.close()

    on_a_machine(test)


@pytest.mark.netns
@pytest.mark.parametrize("offload", [True, False])
def test_packets_pass(offload: bool) -> None:
    async def test() -> None:
        with Tun("candy", 1400, offload=offload) as tun:
            assert tun.vnet == offload
            before = 10 if tun.vnet else 0
            await tun.configure(FIRST)
            loop = asyncio.get_running_loop()
            readable = asyncio.Event()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"hello", ("192.168.202.9", 4000))
            # IPv6 has its own packets on a new interface.
            packet = b""
            while not packet[before:].startswith(b"\x45"):
                readable.clear()
                loop.add_reader(tun.fileno(), readable.set)
                await readable.wait()
                loop.remove_reader(tun.fileno())
                packet = os.read(tun.fileno(), 65535)
            packet = packet[before:]
            assert packet[12:20] == bytes([192, 168, 202, 5, 192, 168, 202, 9])
            assert packet.endswith(b"hello")

    on_a_machine(test)


@pytest.mark.netns
def test_an_interface_of_that_name_is_left_alone() -> None:
    async def test() -> None:
        with Tun("candy-a", 1400) as tun:
            await tun.configure(FIRST)
            with pytest.raises(OperationalError) as caught:
                Tun("candy-a", 1400)
            assert str(caught.value) == (
                "interface candy-a exists already: end the program that has it; "
                "a second candy-client needs a --name of its own"
            )
            assert await addresses("candy-a") == ["192.168.202.5/24"]

    on_a_machine(test)


@pytest.mark.netns
def test_an_address_of_another_interface_is_refused() -> None:
    async def test() -> None:
        with Tun("candy-a", 1400) as holder, Tun("candy-b", 1400) as tun:
            await holder.configure(FIRST)
            with pytest.raises(OperationalError) as caught:
                await tun.configure(IPv4Interface("192.168.202.5/16"))
            assert str(caught.value) == (
                "192.168.202.5 is already an address of candy-a: remove it there, or choose another with --tun"
            )
            assert tun.address is None
            await tun.configure(SECOND)
            with pytest.raises(OperationalError):
                await tun.configure(FIRST)
            assert tun.address == SECOND
            assert await addresses("candy-b") == ["10.9.0.1/16"]

    on_a_machine(test)


@pytest.mark.netns
def test_an_interface_that_was_deleted() -> None:
    async def test() -> None:
        from pyroute2 import AsyncIPRoute

        with Tun("candy", 1400) as tun:
            async with AsyncIPRoute() as netlink:
                await netlink.link("del", index=socket.if_nametoindex("candy"))
            with pytest.raises(OperationalError, match=r"^interface candy was removed from outside: start again$"):
                await tun.configure(FIRST)

    on_a_machine(test)


@pytest.mark.netns
@pytest.mark.parametrize("is_strict", [True, False])
def test_what_there_is_of_it(monkeypatch: pytest.MonkeyPatch, is_strict: bool) -> None:
    """Of a kernel before 4.20, too, which gives all routes for the asking."""
    if not is_strict:
        monkeypatch.setattr("candy.host.netlink.NETLINK_GET_STRICT_CHK", UNKNOWN_OPTION)

    async def test() -> None:
        with Tun("candy", 1400) as tun:
            assert tun.wanted == frozenset()
            assert {str(fact) for fact in await tun.found()} >= {"MTU 1500", "state down"}
            await tun.configure(FIRST)
            shown = {
                "MTU 1400",
                "queue length 500",
                "address 192.168.202.5/24",
                "state up",
                "route to 192.168.202.0/24",
            }
            assert {str(fact) for fact in tun.wanted} == shown
            run("ip", "link", "add", "eth0", "type", "bridge")
            run("ip", "link", "set", "eth0", "up")
            run("ip", "route", "add", "10.5.0.0/16", "dev", "eth0")
            run("ip", "route", "add", "10.6.0.0/16", "dev", "candy", "table", "7")
            run("ip", "route", "add", "default", "dev", "candy")
            others = {"route to 10.6.0.0/16", "route to 0.0.0.0/0"}
            assert {str(fact) for fact in await tun.found()} == shown | others

    on_a_machine(test)


@pytest.mark.netns
def test_put_right() -> None:
    async def test() -> None:
        with Tun("candy", 1400) as tun:
            await tun.configure(FIRST)
            run("ip", "link", "set", "candy", "down", "mtu", "1280", "txqueuelen", "7")
            run("ip", "address", "flush", "dev", "candy")
            missing = tun.wanted - await tun.found()
            assert missing == tun.wanted
            await tun.restore(sorted(missing, key=lambda fact: list(Part).index(fact.part)))
            assert await tun.found() >= tun.wanted
            # What is there already does no harm.
            await tun.restore(tun.wanted)
            assert await addresses("candy") == ["192.168.202.5/24"]
            # It goes with the address.
            run("ip", "route", "del", "192.168.202.0/24")
            await tun.restore(tun.wanted - await tun.found())
            await tun.configure(SECOND)
            assert "192.168.202" not in run("ip", "route")

    on_a_machine(test)


@pytest.mark.netns
def test_a_network_without_other_hosts_has_no_route() -> None:
    async def test() -> None:
        with Tun("candy", 1400) as tun:
            await tun.configure(IPv4Interface("10.9.0.1/32"))
            assert Part.ROUTE not in {fact.part for fact in tun.wanted}
            assert await tun.found() >= tun.wanted

    on_a_machine(test)


@pytest.mark.netns
def test_what_the_kernel_refuses() -> None:
    async def test() -> None:
        with Tun("candy", 70000) as tun:
            with pytest.raises(OperationalError, match=r"^candy: cannot set 192\.168\.202\.5/24: Invalid argument$"):
                await tun.configure(FIRST)
            assert tun.address is None

    on_a_machine(test)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (
            errno.EPERM,
            "cannot make interface candy: the capability CAP_NET_ADMIN is missing: "
            "run as root; give a container `--cap-add NET_ADMIN`",
        ),
        (
            errno.EACCES,
            "{node} is closed to this user: run as root, or `chmod 666 {node}` and run with CAP_NET_ADMIN",
        ),
        (errno.ENOENT, "{node} is missing: run `modprobe tun`; give a container `--device {node}`"),
        (errno.ENODEV, "{node} is missing: run `modprobe tun`; give a container `--device {node}`"),
        (
            errno.EBUSY,
            "interface candy exists already: end the program that has it; "
            "a second candy-client needs a --name of its own",
        ),
        (errno.EMFILE, "cannot make interface candy: Too many open files"),
    ],
)
def test_errors_of_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, text: str) -> None:
    node = tmp_path / "tun"
    node.touch()
    assert refused(monkeypatch, number, node) == text.format(node=node)


def test_a_device_cgroup_says_the_same_as_a_missing_capability(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node = tmp_path / "that does not open"
    assert refused(monkeypatch, errno.EPERM, node) == (
        f"{node} is withheld: give a container `--device {node}`, a systemd unit `DeviceAllow={node} rw`"
    )


def refused(monkeypatch: pytest.MonkeyPatch, number: int, node: Path) -> str:
    """What is said when the kernel refuses with this error, and the device file is that one."""

    def refuse(**_: object) -> None:
        raise pytun.Error(number, os.strerror(number))

    monkeypatch.setattr(pytun, "TunTapDevice", refuse)
    monkeypatch.setattr("candy.host.tun.NODE", str(node))
    with pytest.raises(OperationalError) as caught:
        Tun("candy", 1400)
    return str(caught.value)


SCRIPT = """
from candy.errors import OperationalError
from candy.host.tun import Tun
try:
    Tun("candy", 1400)
except OperationalError as error:
    print(error)
"""


@pytest.mark.netns
def test_a_device_file_that_is_closed_to_the_user(tmp_path: Path) -> None:
    """The kernel's own answer to somebody who has CAP_NET_ADMIN, and no right to the file."""
    node = tmp_path / "tun"
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(10, 200))
    os.chown(node, 65534, 65534)
    inside = f'mount --bind {node} /dev/net/tun && exec setpriv --bounding-set=-dac_override -- "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", inside, sys.executable, SCRIPT],
        env={**os.environ, "PYTHONPATH": str(Path(candy.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("/dev/net/tun is closed to this user: run as root, ")
