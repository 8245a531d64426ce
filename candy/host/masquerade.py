"""Forwarding between the candy network and this machine's other networks, with NAT: a gateway in one option.

    __enter__:  table ip candy-masquerade  ─▶  net.ipv4.ip_forward = 1
    reconcile:  both once more, where another program took them away
    __exit__:   the table deleted          ─▶  net.ipv4.ip_forward = 0, if it was and no other member here needs it

Packets between the two sides get this machine's address on the other side, so that neither side needs a route
back. The MSS of TCP connections is brought down to what the smaller MTU of both sides takes, because a host of the LAN
may not let in the ICMP that would say so. Rules:
 1. All is done by `nft`, one transaction each, in tables of our own names; no table or rule of another program is
    touched. Tables that a crash left behind are replaced at the next start, or deleted at its end.
 2. That ip_forward was off is remembered by the table NOTE. It lives exactly as long as the setting itself: until the
    network namespace ends.
 3. Forwarding ends with the last of several members on one machine.
 4. A packet that another program's chain drops is lost whatever ours says. So one that drops all that it has no rule
    for is worth a warning, with the rule.

This module does not know the routes.
"""

import logging
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from candy.errors import OperationalError
from candy.host.notifications import Kind
from candy.host.reconciler import Fact, Judge, Part

IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
NOTE = "candy-ip-forward-was-off"
_TABLE = re.compile(r"^table (ip|inet) (\S+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_CLOSED = r"^\tchain (\S+) \{{\n(?:\t\t.*\n)*?\t\ttype filter hook {} [^;]*; policy drop;"
"""A chain that drops what it has no rule for, at a hook."""
CHAINS = """
    chain clamp {{
        type filter hook forward priority -150;
        iifname "{name}" tcp flags syn tcp option maxseg size set rt mtu
        oifname "{name}" tcp flags syn tcp option maxseg size set rt mtu
    }}
    chain postrouting {{
        type nat hook postrouting priority 100;
        iifname "{name}" oifname != "{name}" masquerade
        oifname "{name}" iifname != "{name}" masquerade
    }}
"""
"""Of the table that makes a gateway."""
_OURS = re.compile(r"^table ip (candy(?:-[A-Za-z0-9._-]+)?)-masquerade$", re.MULTILINE)

_log = logging.getLogger(__name__)


class Masquerade:
    """While this is entered, the machine is a gateway.

    Args:
        interface: of the candy network; it need not exist yet.

    Raises:
        OperationalError: the program nft is missing.
    """

    kinds = (Kind.RULESET, Kind.FORWARDING)
    """What others can change of it."""

    def __init__(self, interface: str) -> None:
        self.name = interface
        self._table = f"{interface}-masquerade"
        self._listed: dict[str, str] = {}
        """Each of our tables, as nft lists it."""
        # Debian installs nft into a folder that only root's PATH has.
        nft = shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        if nft is None:
            raise OperationalError("--masquerade needs the program nft: apt install nftables")
        self._nft = nft
        self._was_off = False

    def __enter__(self) -> Self:
        """
        Raises:
            OperationalError: the kernel refused; nothing is left behind.
        """
        if doubt := about_forwarding(self.ruleset(), self.name):
            _log.warning("%s", doubt)
        self._set(self._table)
        try:
            if is_forwarding():
                # Another member's doing, or that of one that crashed, is as good as our own.
                if note := self._list(NOTE):
                    self._listed[NOTE], self._was_off = note, True
                return self
            # The note first, so that the setting is put back also after a crash in between.
            self._set(NOTE)
            _forward("1")
            self._was_off = True
        except OperationalError:
            self._run(_absent(self._table) + _absent(NOTE))
            raise
        _log.info("this machine forwards between %s and its other networks now", self.name)
        return self

    async def reconcile(self, judge: Judge) -> None:
        """Compare it with what the kernel has, and put right what judge chooses of what is missing.

        Raises:
            OperationalError: nft or the kernel refused.
        """
        # The loop waits for nft, a hundredth of a second: so nothing can be set behind the end's back.
        forwarding = Fact(Part.FORWARDING, 1)
        wanted = {Fact(Part.TABLE, table) for table in self._listed} | ({forwarding} if self._was_off else set())
        found = {Fact(Part.TABLE, table) for table, text in self._listed.items() if self._list(table) == text}
        for part, value in judge(wanted, found | ({forwarding} if is_forwarding() else set())):
            if part is Part.TABLE:
                self._set(str(value))
            else:
                _forward(str(value))

    def ruleset(self) -> str:
        """This machine's, of all families, as nft lists it.

        Raises:
            OperationalError: nft can't be run, or this user may not ask.
        """
        return self._run("list ruleset")

    def missing(self) -> list[Fact]:
        """What a gateway that runs shall have, and this machine has not. Raises OperationalError."""
        table = [] if self._list(self._table) else [Fact(Part.TABLE, self._table)]
        return table if is_forwarding() else [*table, Fact(Part.FORWARDING, 1)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(_absent(self._table))
            tables = self._run("list tables ip")
            was_off = self._was_off or f"table ip {NOTE}\n" in tables
            if was_off and not any(map(_is_interface, _OURS.findall(tables))):
                _forward("0")
                self._run(_absent(NOTE))
        except OperationalError as failure:
            _log.warning("%s", failure)

    def _set(self, table: str) -> None:
        """Have the kernel have this table of ours, as it is to be."""
        chains = "" if table == NOTE else CHAINS.format(name=self.name)
        self._run(f"{_absent(table)}table ip {table} {{ {chains} }}")
        self._listed[table] = self._list(table)

    def _list(self, table: str) -> str:
        """What is in a table; empty if there is none."""
        try:
            return self._run(f"list table ip {table}")
        except OperationalError:
            return ""

    def _run(self, script: str) -> str:
        """Carry out commands, all or none, and return what they print."""
        # In a session of its own: the terminal's ^C must end candy alone, which then runs nft once more.
        try:
            done = subprocess.run(
                [self._nft, "-f", "-"],
                input=script,
                capture_output=True,
                text=True,
                # A comment of somebody's may be in any encoding.
                errors="replace",
                check=False,
                start_new_session=True,
            )
        except OSError as error:
            raise OperationalError(f"--masquerade: cannot run {self._nft}: {error.strerror}") from error
        if done.returncode != 0:
            first = done.stderr.strip().partition("\n")[0]
            raise OperationalError(f"--masquerade: nft: {first}: it takes CAP_NET_ADMIN, and a kernel with nf_tables")
        return done.stdout


def about_forwarding(ruleset: str, interface: str) -> str:
    """What to do about a firewall that drops what a gateway forwards; "" if there is none."""
    commands = missing_rules(ruleset, interface)
    told = f"this machine's firewall drops what is forwarded: let packets of {interface} pass"
    return f"{told}: {commands}" if commands else ""


def about_input(ruleset: str, interface: str) -> str:
    """What to do about a firewall that drops what members send to this machine itself; "" if there is none."""
    commands = missing_rules(ruleset, interface, "input")
    told = f"this machine's firewall drops what comes in: members reach nothing on it until that of {interface} may"
    return f"{told}: {commands}" if commands else ""


def missing_rules(ruleset: str, interface: str, hook: Literal["forward", "input"] = "forward") -> str:
    """The commands that let an interface's packets pass where a chain's policy drops all that is forwarded, or comes
    in, and no rule of its table accepts those; "" if there is no such chain.

    Args:
        ruleset: of all families, as nft lists it.
    """
    commands = []
    ways = "io" if hook == "forward" else "i"
    for family, table, chains in _TABLE.findall(ruleset):
        if re.search(rf'"{re.escape(interface)}".* accept$', chains, re.MULTILINE):
            continue
        for chain in re.findall(_CLOSED.format(hook), chains, re.MULTILINE):
            if (family, table, chain) == ("ip", "filter", hook.upper()):
                commands += [f"iptables -I {chain} -{way} {interface} -j ACCEPT" for way in ways]
            else:
                insert = f"insert rule {family} {table} {chain}"
                commands += [f"nft '{insert} {way}ifname \"{interface}\" accept'" for way in ways]
    return " && ".join(commands)


def _absent(table: str) -> str:
    """Delete a table, whether or not it exists."""
    return f"table ip {table}\ndelete table ip {table}\n"


def _is_interface(name: str) -> bool:
    # A table without its interface was left by a crash.
    return name in (other for _, other in socket.if_nameindex())


def is_forwarding() -> bool:
    """Whether this machine passes packets from one interface to another."""
    return IP_FORWARD.read_text().strip() != "0"


def _forward(value: str) -> None:
    try:
        IP_FORWARD.write_text(value)
    except OSError as error:
        raise OperationalError(
            f"--masquerade: cannot set net.ipv4.ip_forward to {value}: {error.strerror}: set it yourself, with sysctl"
        ) from error
