"""The TUN device: made with python-pytun, configured through netlink with pyroute2.

    Tun(name, mtu) ─▶ configure(address) ─▶ configure(another address) … ─▶ close()
    no address, down      up                    the old one replaced            gone

Rules: the interface is created exclusively, so that another program's is never taken over; it lives as long as one
descriptor of it is open, the engine's duplicate included; a failure is an OperationalError of one line that says
what to do. This module knows neither packets nor the relay.
"""

import errno
import fcntl
import os
import socket
import struct
from ipaddress import IPv4Interface
from types import TracebackType
from typing import Self

import pytun

from candy.errors import AddressTaken, OperationalError

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
            OperationalError: the kernel refuses.
        """
        if address == self.address:
            return
        # Imported here: it takes a tenth of a second and 15 MB, and --help needs neither.
        from pyroute2 import AsyncIPRoute, NetlinkError

        try:
            index = socket.if_nametoindex(self.name)
            async with AsyncIPRoute() as netlink:
                async for other in await netlink.get_addr(family=socket.AF_INET):
                    if other["index"] != index and other.get("IFA_LOCAL") == str(address.ip):
                        raise AddressTaken(_taken(address, socket.if_indextoname(other["index"])))
                if self.address is None:
                    await netlink.link(
                        "set", index=index, mtu=self._mtu, txqlen=QUEUE_PACKETS, gso_max_segs=SUPER_PACKETS
                    )
                else:
                    await netlink.flush_addr(index=index, family=socket.AF_INET)
                await netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
                await netlink.link("set", index=index, state="up")
        except NetlinkError as error:
            raise OperationalError(f"{self.name}: cannot set {address}: {os.strerror(error.code)}") from error
        except OSError as error:
            raise OperationalError(f"interface {self.name} is gone: start again") from error
        self.address = address

    def close(self) -> None:
        """Close the descriptor; with its duplicates closed too, the interface is gone. Idempotent."""
        self._device.close()


def _taken(address: IPv4Interface, holder: str) -> str:
    return f"{address.ip} is already an address of {holder}: remove it there, or choose another with --tun"


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
