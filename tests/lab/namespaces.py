"""Hosts on one Ethernet, each a network namespace of this process's own.

    hub:  bridge0 10.0.0.1/24 ──┬── veth ── eth0 10.0.0.2/24, host
                                └── veth ── eth0 10.0.0.3/24, host …

Rules: a namespace has no name, it lives as long as a descriptor of it or a process in it does. So nothing is left
behind, however the tests end, and any number of them may run at once. Sockets and programs made inside of `with host:`
are that host's for good. No packet leaves for the machine's own interfaces.
"""

import ctypes
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Self

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def in_new_namespace(body: Callable[[], None]) -> None:
    """Run a function on a thread of its own, in a network namespace that is gone, with all in it, when it ends."""

    def thread() -> None:
        _check(_libc.unshare(_CLONE_NEWNET))
        body()

    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(thread).result()


class Namespace:
    """A network namespace. `with` it, this thread is inside."""

    def __init__(self, name: str) -> None:
        self.name = name
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.unshare(_CLONE_NEWNET))
            try:
                self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                _check(_libc.setns(outside, _CLONE_NEWNET))
        finally:
            os.close(outside)
        self._outside: list[int] = []
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        self.run("ip", "link", "set", "lo", "up")

    def __enter__(self) -> Self:
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(self._fd, _CLONE_NEWNET))
        except OSError:
            os.close(outside)
            raise
        self._outside.append(outside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outside = self._outside.pop()
        try:
            _check(_libc.setns(outside, _CLONE_NEWNET))
        finally:
            os.close(outside)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside; its output, stdout and stderr together."""
        with self:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {' '.join(command)}: exit status {done.returncode}\n{done.stdout}")
        return done.stdout

    def close(self) -> None:
        """Let it go; with no process in it, its interfaces are gone."""
        os.close(self._fd)


class Ethernet:
    """A bridge in a host of its own, `hub`, and hosts that are plugged in."""

    ADDRESS = "10.0.0.1"
    """The hub's."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._hosts = 0
        self.hub = self._namespace("hub")
        # With a hardware address of its own. It would take the lowest of its ports, and so change with a later host, of
        # which those before would not know for up to a minute.
        self.hub.run("ip", "link", "add", "bridge0", "address", "02:00:00:00:00:01", "type", "bridge")
        self.hub.run("ip", "address", "add", f"{self.ADDRESS}/24", "dev", "bridge0")
        self.hub.run("ip", "link", "set", "bridge0", "up")

    def host(self) -> "Host":
        """Plug in another host."""
        self._hosts += 1
        address = f"10.0.0.{self._hosts + 1}"
        host = Host(f"host {self._hosts}", address, f"port{self._hosts}")
        self._stack.callback(host.close)
        peer = ["peer", "name", "eth0", "netns", host.path]
        self.hub.run("ip", "link", "add", host.port, "mtu", "1500", "type", "veth", *peer)
        self.hub.run("ip", "link", "set", host.port, "master", "bridge0", "up")
        host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "mtu", "1500", "up")
        return host

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(name)
        self._stack.callback(namespace.close)
        return namespace


class Host(Namespace):
    """A host with one interface, eth0.

    Args:
        address: eth0's.
        port: the name of the hub's end of its cable.
    """

    def __init__(self, name: str, address: str, port: str) -> None:
        super().__init__(name)
        self.address = address
        self.port = port
