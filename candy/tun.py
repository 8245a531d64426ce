"""The TUN device: made with python-pytun, configured through netlink with pyroute2.

    Tun(name, mtu) ─▶ configure(address) ─▶ configure(another address) … ─▶ close()
    no address, down      up                    the old one replaced            gone

Rules: the interface is made exclusively, so that nobody else's is ever taken over; it lives as long as one
descriptor of it is open, the engine's duplicate included; whatever fails is an OperationalError of one line
that says what to do. This module knows neither packets nor the relay.
"""

import errno
import os
import socket
from ipaddress import IPv4Interface
from types import TracebackType
from typing import Self

import pytun

from candy.errors import OperationalError

QUEUE_PACKETS = 100
"""Packets that wait in the kernel for us to read them: few, for the queue that manages delay is the engine's."""


class Tun:
    """An interface with IPv4 packets on its descriptor, one a read and one a write, without further header.

    Args:
        name: of the interface, at most 15 bytes.
        mtu: bytes.

    Raises:
        OperationalError: it can't be made.
    """

    def __init__(self, name: str, mtu: int) -> None:
        self.name = name
        self._mtu = mtu
        self.address: IPv4Interface | None = None
        """Of the last configure()."""
        try:
            self._device = pytun.TunTapDevice(name=name, flags=pytun.IFF_TUN | pytun.IFF_NO_PI | pytun.IFF_TUN_EXCL)
        except pytun.Error as error:
            raise OperationalError(_explain(name, error)) from error
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

    async def configure(self, address: IPv4Interface) -> None:
        """Give the interface this address and prefix instead of the one it had, and bring it up. The same
        address again changes nothing, so that connections over the interface live on.

        Raises:
            OperationalError: another interface has the address, or the kernel refuses.
        """
        if address == self.address:
            return
        # Here, for it takes a tenth of a second and 15 MB, and whoever only asks for --help needs neither.
        from pyroute2 import AsyncIPRoute, NetlinkError

        try:
            index = socket.if_nametoindex(self.name)
            async with AsyncIPRoute() as netlink:
                async for other in await netlink.get_addr(family=socket.AF_INET):
                    if other["index"] != index and other.get("IFA_LOCAL") == str(address.ip):
                        raise OperationalError(_taken(address, socket.if_indextoname(other["index"])))
                if self.address is None:
                    await netlink.link("set", index=index, mtu=self._mtu, txqlen=QUEUE_PACKETS)
                else:
                    await netlink.flush_addr(index=index, family=socket.AF_INET)
                await netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
                await netlink.link("set", index=index, state="up")
        except NetlinkError as error:
            raise OperationalError(f"{self.name}: cannot set {address}: {os.strerror(error.code)}") from error
        except OSError as error:
            raise OperationalError(f"interface {self.name} is gone: start candy-client again") from error
        self.address = address

    def close(self) -> None:
        """Close the descriptor; with its duplicates closed too, the interface is gone. Idempotent."""
        self._device.close()


def _taken(address: IPv4Interface, holder: str) -> str:
    return f"{address.ip} is already an address of {holder}: remove it there, or choose another with --tun"


def _explain(name: str, error: OSError) -> str:
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return f"cannot make interface {name}: run as root, or with the capability CAP_NET_ADMIN"
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return "/dev/net/tun is missing: run `modprobe tun`; give a container `--device /dev/net/tun`"
        case errno.EBUSY:
            return f"interface {name} exists already: stop the other candy-client, or choose another --name"
        case _:
            return f"cannot make interface {name}: {error.strerror or error}"
