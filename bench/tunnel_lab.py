"""Three namespaces and what is measured between them: left ── hub ── right.

    left 10.0.1.2 ── veth ── 10.0.1.1 hub 10.0.2.1 ── veth ── 10.0.2.2 right

The hub forwards by itself ("kernel"), has a proxy ("proxy"), and for each mode a relay, to which a client on the left
and one on the right are connected. With wireguard-go it has one of those, with a spoke on each side. All are there at
once and take turns.

Rules: congestion control is pinned on the routes, so that the relays', clients' and proxy's own connections have it as
well as iperf3's. Nothing is left behind, however it ends.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from machine import CONGESTION

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import trustme
import wireguard
from _endpoints import process_cpu_ns
from lab.namespaces import Namespace
from lab.programs import Program, RelayProgram, client, control_of, environment

IPERF_PORT = 5201
PROXY_PORT = 5300
RELAY_PORT = 26816


@dataclass(frozen=True)
class Mode:
    """How candy is run."""

    name: str
    title: str
    left: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    scheme: str = "ws"
    candy: Path | None = None
    """A folder with another build of candy, for its clients; None: this one."""


IN_THE_CLEAR = ("--seal", "off")
BY_RELAY = ("--no-direct",)
PLAIN = Mode("ext", "candy", IN_THE_CLEAR, IN_THE_CLEAR)
SEALED = Mode("sealed", "candy,\nsealed", BY_RELAY, BY_RELAY)
MODES = (
    PLAIN,
    Mode("one", "right without\ncandy.2", right=("--no-extension",)),
    Mode("none", "both without\ncandy.2", left=("--no-extension",), right=("--no-extension",)),
    Mode("wss", "candy,\nwss://", IN_THE_CLEAR, IN_THE_CLEAR, scheme="wss"),
    SEALED,
)


@dataclass
class Way:
    """One way from left to right.

    `to` and `back` are the addresses that right has for left, and left for right; `interface` is where what has arrived
    on the right is counted.
    """

    name: str
    title: str
    to: str
    back: str
    interface: str
    relay: Program | None = None
    clients: list[Program] = field(default_factory=list)
    controls: list[Path] = field(default_factory=list)
    restart: Callable[[], None] | None = None
    """Has other clients in the place of candy's, that are connected and have nothing yet to do with each other."""

    @property
    def udp(self) -> bool:
        return self.name != "proxy"

    def relay_cpu_ns(self) -> int:
        return 0 if self.relay is None else process_cpu_ns(self.relay.pid)

    def clients_cpu_ns(self) -> int:
        return sum(process_cpu_ns(one.pid) for one in self.clients)

    def reconnects(self) -> int:
        """How often a client had to connect again so far."""
        return sum(sum(" connected as " in line for line in one.lines) - 1 for one in self.clients)


class TunnelLab:
    """Made and let go by an ExitStack.

    Args:
        folder: for state and certificates; empty, the caller's.
        modes: candy's.
        limits: the kernel and the proxy too.
        has_wireguard: wireguard-go too, through its hub or point to point.
    """

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        modes: Sequence[Mode],
        *,
        limits: bool = True,
        has_wireguard: bool = False,
        is_point_to_point: bool = False,
    ) -> None:
        self._stack = stack
        self._folder = folder
        self.hub, self.left, self.right = (self._namespace(name) for name in ("hub", "left", "right"))
        for number, host in ((1, self.left), (2, self.right)):
            self._cable(number, host)
        self.hub.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.ways = []
        if limits:
            kernel = Way("kernel", "kernel,\nno VPN", "10.0.2.2", "10.0.1.2", "eth0")
            proxy = Way("proxy", "TCP proxy,\nno VPN", "10.0.1.1", "10.0.2.1", "eth0", self._proxy())
            self.ways += [kernel, proxy]
        self.ways += [self._tunnel(n, mode) for n, mode in enumerate(modes, 1)]
        if has_wireguard and is_point_to_point:
            spokes, interface = wireguard.point_to_point(stack, self.left, self.right)
            title = "wireguard-go,\ndirect"
            self.ways.append(Way("wireguard", title, wireguard.RIGHT, wireguard.LEFT, interface, None, spokes))
        elif has_wireguard:
            hub, spokes, interface = wireguard.connect(stack, self.hub, self.left, self.right)
            title = "wireguard-go,\nits hub"
            self.ways.append(Way("wireguard", title, wireguard.RIGHT, wireguard.LEFT, interface, hub, spokes))

    def _namespace(self, name: str) -> Namespace:
        namespace = Namespace(name)
        self._stack.callback(namespace.close)
        return namespace

    def _cable(self, number: int, host: Namespace) -> None:
        net, port = f"10.0.{number}", f"port{number}"
        self.hub.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.path)
        for place, device, address in ((self.hub, port, f"{net}.1"), (host, "eth0", f"{net}.2")):
            place.run("ip", "address", "add", f"{address}/24", "dev", device)
            place.run("ip", "link", "set", device, "mtu", "1500", "up")
            pinned = ["src", address, "congctl", CONGESTION.decode()]
            place.run("ip", "route", "replace", f"{net}.0/24", "dev", device, *pinned)
        host.run("ip", "route", "add", "default", "via", f"{net}.1", "congctl", CONGESTION.decode())

    def _proxy(self) -> Program:
        """One on each side of the hub, for both directions begin on the left."""
        argv = [sys.executable, str(Path(__file__).parent / "tcp_proxy.py")]
        argv += ["10.0.1.1", str(PROXY_PORT), "10.0.2.2", str(IPERF_PORT)]
        with self.hub:
            proxy = Program("proxy", argv, environment(self._folder / "proxy"))
        self._stack.enter_context(proxy)
        proxy.wait_for("listening")
        return proxy

    def _tunnel(self, number: int, mode: Mode) -> Way:
        flags, trust = [], []
        if mode.scheme == "wss":
            authority = trustme.CA()
            certificate = authority.issue_cert("10.0.1.1", "10.0.2.1")
            chain, key, ca = (self._folder / name for name in ("chain.pem", "key.pem", "ca.pem"))
            certificate.cert_chain_pems[0].write_to_path(chain)
            certificate.private_key_pem.write_to_path(key)
            authority.cert_pem.write_to_path(ca)
            flags, trust = ["--tls-certificate", str(chain), "--tls-key", str(key)], ["--ca-file", str(ca)]
        pool, port = f"10.20.{number}.0/24", RELAY_PORT + number
        with self.hub:
            relay = RelayProgram(
                self._folder / f"relay{number}", "-d", pool, *flags, host="0.0.0.0", port=port, scheme=mode.scheme
            )
        self._stack.enter_context(relay)
        clients: list[Program] = []

        def start() -> None:
            for one in clients:
                one.close()
            clients[:] = [self._client(number, side, mode, trust) for side in (1, 2)]
            for one in clients:
                one.wait_for(" connected as ")

        start()
        to, back = (f"10.20.{number}.{side}" for side in (2, 1))
        controls = [control_of(self._folder / f"client{number}{side}") for side in (1, 2)]
        return Way(mode.name, mode.title, to, back, f"candy-{mode.name}", relay, clients, controls, start)

    def _client(self, number: int, side: int, mode: Mode, trust: list[str]) -> Program:
        host, extra = (self.left, mode.left) if side == 1 else (self.right, mode.right)
        url = f"{mode.scheme}://10.0.{side}.1:{RELAY_PORT + number}"
        argv = ["-w", url, "-t", f"10.20.{number}.{side}/24", "-n", mode.name]
        with host:
            state = environment(self._folder / f"client{number}{side}")
            if mode.candy is not None:
                # Without the current folder, where this build may be found first.
                state |= {"PYTHONPATH": str(mode.candy), "PYTHONSAFEPATH": "1"}
            one = Program(f"client {mode.name} {side}", client(*argv, *extra, *trust), state)
        return self._stack.enter_context(one)
