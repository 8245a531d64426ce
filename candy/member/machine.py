"""What a member needs of this machine, looked at for its user: address, routes, state folder, forwarding, firewall.

    settings ─▶ Machine ─▶ address(), routes(), state(), gateway() ─▶ Finding, each with its time and its cure
    Running, if a client does: what it has by its own word is compared with what the kernel has

Rule: nothing is changed. Without a client the interface is made once and is gone at once, because nothing else tells
whether it can be.

This module does not know the way to the relay, nor how findings are shown.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from candy.errors import OperationalError
from candy.host import files
from candy.host.masquerade import Masquerade, about_forwarding, about_input, is_forwarding
from candy.host.tun import Tun, taken
from candy.host.underlay import Underlay, Way, holding
from candy.member.findings import NOT_REACHED, Finding, State
from candy.member.settings import MemberSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A client that runs with these settings, by its own word."""

    state: str
    """As MemberStatus has it."""
    address: IPv4Interface | None
    installed: frozenset[IPv4Network] = frozenset()
    """Destinations in the kernel's table."""
    refused: Mapping[str, str]
    """Others, each with the reason."""
    last_end: str | None = None
    """Why its last connection, or attempt, ended."""

    @property
    def is_connected(self) -> bool:
        return self.state == "connected"


class Machine:
    """See above.

    Args:
        settings: the member's.
        client: one that runs with these.
        underlay: this machine beside the tunnel.
    """

    def __init__(self, settings: MemberSettings, client: Running | None, underlay: Underlay) -> None:
        self._settings = settings
        self._client = client
        self._underlay = underlay

    async def address(self, address: IPv4Interface | None) -> Finding:
        """Whether this machine has it, or can have it."""
        with _timed() as took:
            text = await self._about_address(address)
        if text is not None:
            return Finding("address", State.FAILED, took(), text)
        if address is None:
            return Finding("address", State.SKIPPED, None, NOT_REACHED)
        has_it = self._client is not None or self._settings.tun is not None
        return Finding("address", State.OK, took(), str(address) if has_it else f"{address} would be given")

    async def _about_address(self, address: IPv4Interface | None) -> str | None:
        """What is wrong with it."""
        name = self._settings.interface
        if self._client is None:
            try:
                Tun(name, self._settings.mtu, offload=self._settings.offload).close()
            except OperationalError as error:
                return str(error)
        if address is None:
            return None
        has = await holding(name, address.ip)
        if has.holder not in (None, name):
            return taken(address.ip, str(has.holder))
        if self._client is not None and self._client.is_connected:
            if has.is_up is None:
                return f"there is no interface {name}: start the client again"
            if not has.is_up or has.holder is None:
                lacks = "is down" if not has.is_up else f"has not {address.ip}"
                return f"{name} {lacks}: another program changes it, find out which, or tell it to leave {name} alone"
        overlaps = await self._underlay.overlaps(address, (), {})
        return "; ".join(overlaps.networks) or None

    async def routes(self, address: IPv4Interface | None, ways: Mapping[IPv4Address, Way]) -> Finding:
        """Whether they are there, and in nobody's way."""
        client = self._client
        with _timed() as took:
            if address is None:
                return Finding("routes", State.SKIPPED, None, NOT_REACHED)
            installed = frozenset[IPv4Network]() if client is None else client.installed
            overlaps = await self._underlay.overlaps(address, installed, ways)
            has = await holding(self._settings.interface, address.ip)
        lines = list(overlaps.inside)
        state = State.FAILED if overlaps.harms else State.WARNING if lines else State.OK
        if lost := installed - has.routes:
            named = ", ".join(map(str, sorted(lost)))
            lines.append(f"{named} not in the kernel's table any more: find out which program takes routes away")
            state = State.FAILED
        if client is not None and client.refused:
            lines += [f"{there} not reached through the network: {why}" for there, why in client.refused.items()]
            state = State.WARNING if state is State.OK else state
        if not lines:
            told = (
                "the relay tells them once the client runs" if client is None else f"{len(installed)} through members"
            )
            lines.append(f"none in the way of another; {told}")
        return Finding("routes", state, took(), "; ".join(lines))

    def state(self) -> Finding:
        """Whether the member can keep what it has to."""
        with _timed() as took:
            try:
                files.probe(self._settings.state_dir)
            except OperationalError as error:
                return Finding("state", State.WARNING, took(), str(error))
        return Finding("state", State.OK, took(), str(self._settings.state_dir))

    def gateway(self) -> Iterator[Finding]:
        """Forwarding and firewall."""
        name, runs = self._settings.interface, self._client is not None
        with _timed() as took:
            try:
                gateway = Masquerade(name)
                lost = [str(fact) for fact in gateway.missing()] if runs and self._settings.masquerade else []
                ruleset: str | None = gateway.ruleset()
                failure = None
            except OperationalError as error:
                lost, ruleset, failure = [], None, str(error).removeprefix("--masquerade: ")
        forwards = f"net.ipv4.ip_forward {int(is_forwarding())}"
        if not self._settings.masquerade:
            yield Finding("forwarding", State.SKIPPED, None, f"no gateway (--masquerade); {forwards}")
            doubt = about_input(ruleset, name) if ruleset is not None else failure or ""
            seen = State.SKIPPED if ruleset is None else State.WARNING if doubt else State.OK
            yield Finding("firewall", seen, took(), doubt or "what comes in from members may pass")
            return
        if failure is not None:
            yield Finding("forwarding", State.FAILED, took(), failure)
        elif lost:
            told = f"{name} was changed from outside, {', '.join(lost)} is missing: find out which program does that"
            yield Finding("forwarding", State.FAILED, took(), told)
        else:
            told = forwards if runs else "the client switches it on when it starts"
            yield Finding("forwarding", State.OK, took(), told)
        doubt = about_forwarding(ruleset or "", name)
        seen = State.FAILED if doubt else State.SKIPPED if ruleset is None else State.OK
        told = NOT_REACHED if ruleset is None else "what is forwarded may pass"
        yield Finding("firewall", seen, took(), doubt or told)


@contextmanager
def _timed() -> Iterator[Callable[[], float]]:
    """A function for how long the block has taken, which stands still behind it."""
    began = time.monotonic()
    ended: list[float] = []
    try:
        yield lambda: (ended[0] if ended else time.monotonic()) - began
    finally:
        ended.append(time.monotonic())
