"""The TUN device: made with python-pytun, configured through netlink.

    Tun(name, mtu) ─▶ configure(address) ─▶ configure(another address) … ─▶ close()
    no address, down      up  │                 the old one replaced            gone
                              wanted, found() ─▶ restore(facts that are missing)

Rules: the interface is created exclusively, so that another program's is never taken over; it lives as long as one
descriptor of it is open, the engine's duplicate included; a failure is an OperationalError of one line that says
what to do. This module knows neither packets nor the relay.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import TracebackType
from typing import Self

import pytun

from candy.errors import AddressTaken, InterfaceGone, OperationalError
from candy.host.netlink import RTPROT_KERNEL, Netlink, Refused
from candy.host.reconciler import Fact, Part

NODE = "/dev/net/tun"
SUPER_PACKETS = 128
"""Segments in a super-packet that peers take. The kernel makes none with more, and the engine cuts what it forwards."""
QUEUE_PACKETS = 500
"""Packets that wait in the kernel until the engine reads them: room for the fragments of a few of the longest
datagrams, which a forwarding kernel hands over at once. Not more, because the engine has the queue that manages
delay."""

# From <linux/if_tun.h>.
TUNSETOFFLOAD = 0x400454D0
TUNSETVNETHDRSZ = 0x400454D8
TUNSETVNETLE = 0x400454DC
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO_ECN = 0x08
TUN_F_USO4 = 0x20
TUN_F_USO6 = 0x40

VNET_BYTES = 10
OFFLOADS = (
    # UDP segmentation came with Linux 6.2, which takes it for both address families or not at all.
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6,
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN,
    TUN_F_CSUM | TUN_F_TSO4,
    TUN_F_CSUM,
    0,
)
"""Work that the kernel may leave to the engine, most first."""


class Tun:
    """An interface with IPv4 packets on its descriptor, one a read and one a write.

    With offloads (`vnet`) each has a little-endian virtio header of 10 bytes before it, and may stand for many: up to
    64 KB of one flow.

    Args:
        name: of the interface, at most 15 bytes.
        mtu: bytes.
        offload: ask the kernel for all offloads that it has.

    Raises:
        OperationalError: the interface could not be created.
    """

    def __init__(self, name: str, mtu: int, *, offload: bool = True) -> None:
        self.name = name
        self.vnet = False
        self._mtu = mtu
        self.address: IPv4Interface | None = None
        """Of the last configure()."""
        flags = pytun.IFF_TUN | pytun.IFF_NO_PI | pytun.IFF_TUN_EXCL
        try:
            self._device = pytun.TunTapDevice(name=name, flags=flags | (pytun.IFF_VNET_HDR if offload else 0))
        except pytun.Error as error:
            raise OperationalError(_explain(name, error)) from error
        if offload:
            self._enable_offloads()
        os.set_blocking(self._device.fileno(), False)
        os.set_inheritable(self._device.fileno(), False)
        self._index = socket.if_nametoindex(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor, non-blocking; closed by close()."""
        return int(self._device.fileno())

    def _enable_offloads(self) -> None:
        """Agree with the kernel on the header, and on as many offloads as it has."""
        fcntl.ioctl(self._device.fileno(), TUNSETVNETHDRSZ, struct.pack("i", VNET_BYTES))
        fcntl.ioctl(self._device.fileno(), TUNSETVNETLE, struct.pack("i", 1))
        for offloads in OFFLOADS:
            try:
                fcntl.ioctl(self._device.fileno(), TUNSETOFFLOAD, offloads)
            except OSError:
                continue
            break
        self.vnet = True

    async def configure(self, address: IPv4Interface) -> None:
        """Give the interface this address and prefix instead of the one it had, and bring it up. The same
        address again changes nothing, so that connections over the interface live on.

        Raises:
            AddressTaken: another interface has the address.
            InterfaceGone: another program removed it.
            OperationalError: the kernel refuses.
        """
        if address == self.address:
            return
        with self._netlink(f"cannot set {address}") as netlink:
            self._refuse_taken(netlink, address)
            if self.address is None:
                netlink.set_link(self._index, segments=SUPER_PACKETS)
            for other in netlink.addresses(self._index):
                netlink.delete_address(self._index, other.own)
            self._set(netlink, self._facts(address), address)
        self.address = address

    @property
    def wanted(self) -> frozenset[Fact]:
        """What it shall have; nothing before it has an address."""
        if self.address is None:
            return frozenset()
        network = self.address.network
        # The kernel adds the route to the network with the address, unless there is no other host in it.
        routes = [Fact(Part.ROUTE, network)] if network.prefixlen < network.max_prefixlen else []
        return frozenset((*self._facts(self.address), *routes))

    async def found(self) -> frozenset[Fact]:
        """What the kernel has of it; a route of any program that leads there counts.

        Raises:
            InterfaceGone: another program removed it.
            OperationalError: the kernel does not answer.
        """
        with self._netlink("cannot look at it") as netlink:
            link = netlink.link(self._index)
            return frozenset(
                (
                    Fact(Part.MTU, link.mtu),
                    Fact(Part.QUEUE, link.queue),
                    Fact(Part.STATE, "up" if link.is_up else "down"),
                    *(Fact(Part.ADDRESS, address.own) for address in netlink.addresses(self._index)),
                    *(Fact(Part.ROUTE, route.destination) for route in netlink.routes(self._index)),
                )
            )

    async def restore(self, facts: Iterable[Fact]) -> None:
        """Put right what is wanted and was not found, in this order.

        Raises:
            AddressTaken: another interface has the address now.
            InterfaceGone: another program removed it.
            OperationalError: the kernel refuses.
        """
        own, ours = self.address, [fact for fact in facts if fact in self.wanted]
        if own is None or not ours:
            return
        with self._netlink("cannot put it right") as netlink:
            if Fact(Part.ADDRESS, own) in ours:
                self._refuse_taken(netlink, own)
            self._set(netlink, ours, own)

    def _facts(self, address: IPv4Interface) -> tuple[Fact, ...]:
        """What it is given with an address, in this order."""
        return (
            Fact(Part.MTU, self._mtu),
            Fact(Part.QUEUE, QUEUE_PACKETS),
            Fact(Part.ADDRESS, address),
            Fact(Part.STATE, "up"),
        )

    def _set(self, netlink: Netlink, facts: Iterable[Fact], own: IPv4Interface) -> None:
        index = self._index
        for fact in facts:
            match fact:
                case Fact(Part.MTU, int(mtu)):
                    netlink.set_link(index, mtu=mtu)
                case Fact(Part.QUEUE, int(packets)):
                    netlink.set_link(index, queue=packets)
                case Fact(Part.ADDRESS):
                    with _unless_there():
                        netlink.add_address(index, own)
                case Fact(Part.STATE):
                    netlink.set_link(index, is_up=True)
                case Fact(Part.ROUTE, IPv4Network() as network):
                    # As the kernel adds it with an address.
                    with _unless_there():
                        netlink.add_route(network, index, own.ip, RTPROT_KERNEL)

    def _refuse_taken(self, netlink: Netlink, address: IPv4Interface) -> None:
        for other in netlink.addresses():
            if other.ifindex != self._index and other.own.ip == address.ip:
                raise AddressTaken(taken(address.ip, socket.if_indextoname(other.ifindex)))

    @contextmanager
    def _netlink(self, failure: str) -> Iterator[Netlink]:
        """A netlink socket, whose refusals are an OperationalError that begins with the name and this failure."""
        try:
            if not self._is_there():
                raise InterfaceGone(self.name)
            with Netlink() as netlink:
                yield netlink
        except Refused as error:
            if not self._is_there():
                raise InterfaceGone(self.name) from error
            raise OperationalError(f"{self.name}: {failure}: {error.strerror}") from error
        except OSError as error:
            raise OperationalError(f"{self.name}: {failure}: {error.strerror}") from error

    def _is_there(self) -> bool:
        try:
            return socket.if_nametoindex(self.name) == self._index
        except OSError:
            return False

    def close(self) -> None:
        """Close the descriptor; with its duplicates closed too, the interface is gone. Idempotent."""
        self._device.close()


@contextmanager
def _unless_there() -> Iterator[None]:
    """What the kernel has already is as good."""
    try:
        yield
    except Refused as error:
        if error.errno != errno.EEXIST:
            raise


def taken(address: IPv4Address, holder: str) -> str:
    """What to do about an address that another interface has."""
    return f"{address} is already an address of {holder}: remove it there, or choose another with --tun"


def _explain(name: str, error: OSError) -> str:
    match error.errno:
        case errno.EACCES:
            # The file's mode: the kernel did not get to the capability.
            return f"{NODE} is closed to this user: run as root, or `chmod 666 {NODE}` and run with CAP_NET_ADMIN"
        case errno.EPERM if not _opens():
            # A device cgroup.
            return f"{NODE} is withheld: give a container `--device {NODE}`, a systemd unit `DeviceAllow={NODE} rw`"
        case errno.EPERM:
            return (
                f"cannot make interface {name}: the capability CAP_NET_ADMIN is missing: "
                "run as root; give a container `--cap-add NET_ADMIN`"
            )
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return f"{NODE} is missing: run `modprobe tun`; give a container `--device {NODE}`"
        case errno.EBUSY:
            return (
                f"interface {name} exists already: end the program that has it; "
                "a second candy-client needs a --name of its own"
            )
        case _:
            return f"cannot make interface {name}: {error.strerror or error}"


def _opens() -> bool:
    """Whether this process may open the device: python-pytun raises one error for that and the step behind it."""
    try:
        os.close(os.open(NODE, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True
