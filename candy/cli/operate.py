"""The subcommands of both commands: they ask the program that runs on this machine.

    candy-server status | members | member | why | capture | leases | reserve | release | kick | limit | networks
    candy-server reload | top
    candy-server invite | devices | approve | revoke | rotate
    candy-client status | members | forget

Rules:
 1. Which program: --control-socket, before or behind the subcommand, else control_socket in the file of -c, else the
    only one that runs here.
 2. --json prints the answer as it came, for programs; the shape is the OpenAPI document's.
 3. What can't be asked or is refused is an OperationalError: exit status 1.
 4. --help shows all of them, so what takes a while to import is imported by who is called.

This module does not know what the answers are made of.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from candy.cli import tables
from candy.control.escape import shown
from candy.control.paths import OVER_LEAST_S, OVER_MOST_S, SNAP_LEAST, SNAP_MOST, VERSION, quoted
from candy.errors import OperationalError, RequestError
from candy.options import Side
from candy.quantities import rate, size

if TYPE_CHECKING:
    from candy.control.client import Asking
    from candy.control.sockets import Side as Program

INTERVAL_S = 1.0
_PROGRAMS: "dict[Side, Program]" = {"server": "relay", "client": "member"}


def commands(side: Side) -> list[click.Command]:
    """Those of one command."""
    return _of_relay() if side == "server" else _of_member()


def _command(
    side: Side, name: str, about: str, *params: click.Parameter, has_json: bool = True
) -> Callable[..., click.Command]:
    """Make a function that is given an Asking, is_json if there is such an answer, and the parameters a subcommand."""

    def made(ask: Callable[..., None]) -> click.Command:
        def run(control_socket: str | None, **given: Any) -> int:
            with _asking(side, control_socket) as asking:
                ask(asking, **given)
            return 0

        where = click.Option(["--control-socket"], metavar="PATH", help="ask the program whose control socket this is")
        form = click.Option(["--json", "is_json"], is_flag=True, help="print the answer as JSON")
        common = [where, form] if has_json else [where]
        settings = {"help_option_names": ["-h", "--help"]}
        return click.Command(name, params=[*params, *common], callback=run, help=about, context_settings=settings)

    return made


@contextmanager
def _asking(side: Side, control_socket: str | None) -> "Iterator[Asking]":
    from candy.control.client import find

    asking = find(_PROGRAMS[side], control_socket or _socket_of_parent(side), os.environ, os.geteuid())
    try:
        yield asking
    except RequestError as error:
        raise OperationalError(str(error)) from None
    finally:
        asking.close()


def _socket_of_parent(side: Side) -> str | None:
    """From what stands before the subcommand."""
    parent = click.get_current_context().parent
    given = {} if parent is None else parent.params
    if path := given.get("control_socket"):
        return str(path)
    if config := given.get("config"):
        from candy.cli.files import read_file

        written = read_file(Path(config), side).given.get("control_socket")
        return None if written is None else str(written.value)
    return None


_NETWORK = click.Option(["--network"], metavar="PATH", help="of this network alone")
_KEYED = click.Argument(["device"], metavar="DEVICE")
_ONE = click.Argument(["member"], metavar="MEMBER")


def _interval(
    default: float, about: str = "time over which rates are taken; 0: no rates, and an answer at once", least: float = 0
) -> click.Option:
    kind = click.FloatRange(least, OVER_MOST_S)
    return click.Option(["--interval"], metavar="SECONDS", type=kind, default=default, show_default=True, help=about)


def _print_json(answer: Any) -> None:
    click.echo(json.dumps(answer, indent=2, ensure_ascii=not sys.stdout.isatty()))


def _of_relay() -> list[click.Command]:
    @_command("server", "status", "Show the relay as a whole.")
    def status(asking: "Asking", is_json: bool) -> None:
        answer = asking.ask("GET", f"{VERSION}/status")
        if is_json:
            _print_json(answer)
            return
        cluster = answer.pop("cluster") or {}
        own = {"relay": cluster["name"], "nats": cluster["nats"], "nats_server": cluster["server"]} if cluster else {}
        tables.show_one((answer | own).items())
        if cluster:
            click.echo()
            missing = cluster["missing"]
            tables.show(tables.RELAYS, [each | {"known": each["relay"] not in missing} for each in cluster["others"]])

    @_command("server", "members", "List the members that are logged in.", _NETWORK, _interval(INTERVAL_S))
    def members(asking: "Asking", is_json: bool, network: str | None, interval: float) -> None:
        answer = asking.ask("GET", f"{VERSION}/members", network=network, round_trip=True, over=interval)
        if is_json:
            _print_json(answer)
            return
        are_several = any(each["relay"] for each in answer["members"])
        tables.show([*tables.MEMBERS, tables.RELAY] if are_several else tables.MEMBERS, answer["members"])
        if answer["unreached"]:
            relays = ", ".join(map(shown, answer["unreached"]))
            click.echo(f"without the members of {relays}: not reached", err=True)

    @_command(
        "server", "member", "Show one member, by its name, address or VMAC.", _ONE, _NETWORK, _interval(INTERVAL_S)
    )
    def member(asking: "Asking", is_json: bool, member: str, network: str | None, interval: float) -> None:
        answer = asking.ask("GET", f"{VERSION}/members/{quoted(member)}", network=network, over=interval)
        _print_json(answer) if is_json else tables.show_one(answer.items())

    @_command(
        "server",
        "why",
        "Say why packets from one address, or name, to another arrive or do not.",
        click.Argument(["source"], metavar="FROM"),
        click.Argument(["destination"], metavar="TO"),
        _NETWORK,
        _interval(INTERVAL_S, "time over which the relay looks for what is dropped; 0: an answer at once"),
    )
    def why(
        asking: "Asking", is_json: bool, source: str, destination: str, network: str | None, interval: float
    ) -> None:
        path = f"{VERSION}/why/{quoted(source)}/{quoted(destination)}"
        answer = asking.ask("GET", path, network=network, over=interval)
        if is_json:
            _print_json(answer)
            return
        click.echo(answer["answer"])
        for hint in answer["hints"]:
            click.echo(f"since the log-in: {hint}")
        click.echo()
        tables.show(tables.ENDS, tables.ends(answer))

    @_command(
        "server",
        "capture",
        "Write the packets that a member sends and gets to stdout, as pcapng: | wireshark -k -i -",
        _ONE,
        _NETWORK,
        click.Option(["--drops"], is_flag=True, help="only those that are dropped, each with why as its comment"),
        click.Option(
            ["--snaplen"],
            metavar="BYTES",
            type=click.IntRange(SNAP_LEAST, SNAP_MOST),
            default=SNAP_MOST,
            show_default=True,
            help="keep so many of each packet",
        ),
        has_json=False,
    )
    def capture(asking: "Asking", member: str, network: str | None, drops: bool, snaplen: int) -> None:
        from candy.cli.capture import run

        path = f"{VERSION}/members/{quoted(member)}/capture"
        run(asking, path, network=network, drops=drops, snaplen=snaplen)

    @_command("server", "leases", "List who has which address, connected or not, and what is reserved.", _NETWORK)
    def leases(asking: "Asking", is_json: bool, network: str | None) -> None:
        answer = asking.ask("GET", f"{VERSION}/leases", network=network)
        if is_json:
            _print_json(answer)
            return
        tables.show(tables.LEASES, answer["leases"])
        if answer["reservations"]:
            click.echo()
            tables.show(tables.RESERVATIONS, answer["reservations"])

    @_command(
        "server",
        "reserve",
        "Reserve an address for a device: its name, key:FINGERPRINT, or vmac:VMAC.",
        click.Argument(["address"]),
        click.Argument(["device"]),
        _NETWORK,
    )
    def reserve(asking: "Asking", is_json: bool, address: str, device: str, network: str | None) -> None:
        body = {"address": address, "device": device, "network": network or "/"}
        answer = asking.ask("POST", f"{VERSION}/reservations", body)
        _print_json(answer) if is_json else click.echo(f"{answer['address']} is reserved for {shown(answer['device'])}")

    @_command(
        "server",
        "release",
        "End the reservation of an address, and the lease of its device.",
        click.Argument(["device"], metavar="DEVICE|ADDRESS"),
        _NETWORK,
    )
    def release(asking: "Asking", is_json: bool, device: str, network: str | None) -> None:
        answer = asking.ask("DELETE", f"{VERSION}/leases/{quoted(device)}", network=network)
        _print_json(answer) if is_json else click.echo(f"{answer['address']} is released")

    @_command("server", "kick", "End a member's connection; it may come back.", _ONE, _NETWORK)
    def kick(asking: "Asking", is_json: bool, member: str, network: str | None) -> None:
        answer = asking.ask("POST", f"{VERSION}/members/{quoted(member)}/kick", network=network)
        _print_json(answer) if is_json else click.echo(f"{answer['address']} was kicked")

    @_command(
        "server",
        "limit",
        "Say what a device may carry, from now on and as long as it has its lease; 0 for no limit.",
        click.Argument(["device"], metavar="DEVICE|ADDRESS"),
        click.Option(["--down"], metavar="BITS/S", callback=_quantity(rate), help="send it no more, like 10M"),
        click.Option(["--up"], metavar="BITS/S", callback=_quantity(rate), help="take no more from it"),
        click.Option(["--quota"], metavar="BYTES", callback=_quantity(size), help="what it may carry in a month"),
        click.Option(["--as-network"], is_flag=True, help="forget what was set for it before"),
        click.Option(["--forgive"], is_flag=True, help="begin this month's quota anew"),
        _NETWORK,
    )
    def limit(
        asking: "Asking",
        is_json: bool,
        device: str,
        down: int | None,
        up: int | None,
        quota: int | None,
        as_network: bool,
        forgive: bool,
        network: str | None,
    ) -> None:
        body = {"down": down, "up": up, "quota": quota, "as_network": as_network, "forgive": forgive}
        where = {"network": network or "/"}
        answer = asking.ask("POST", f"{VERSION}/leases/{quoted(device)}/limits", body | where)
        _print_json(answer) if is_json else tables.show(tables.DEVICE_LIMITS, [answer])

    @_command("server", "networks", "List the relay's networks.")
    def networks(asking: "Asking", is_json: bool) -> None:
        answer = asking.ask("GET", f"{VERSION}/networks")
        _print_json(answer) if is_json else tables.show(tables.NETWORKS, answer["networks"])

    @_command("server", "reload", "Have the relay read its settings again, as on SIGHUP.")
    def reload(asking: "Asking", is_json: bool) -> None:
        answer = asking.ask("POST", f"{VERSION}/reload")
        if is_json:
            _print_json(answer)
        else:
            click.echo(f"applied: {', '.join(answer['applied']) or 'nothing'}")
            if answer["needs_restart"]:
                click.echo(f"changed, which needs a restart: {', '.join(answer['needs_restart'])}")
        if answer["failed"]:
            raise OperationalError("; ".join(answer["failed"]))

    @_command(
        "server",
        "top",
        "Show the members again and again. Keys: < > choose the column to sort by, r turns it round, q ends.",
        _NETWORK,
        click.Option(["--sort"], metavar="COLUMN", help="sort by this column", default="OUT/S", show_default=True),
        click.Option(["--count"], metavar="COUNT", type=click.IntRange(1), help="end after so many pictures"),
        _interval(INTERVAL_S, "time of one picture", least=OVER_LEAST_S),
    )
    def top(
        asking: "Asking", is_json: bool, network: str | None, sort: str, count: int | None, interval: float
    ) -> None:
        from candy.cli.top import Order, run

        order = Order(sort)
        if not is_json:
            run(asking, order, network, interval, count)
            return
        done = 0
        while count is None or done < count:
            answer = asking.ask("GET", f"{VERSION}/members", network=network, round_trip=True, over=interval)
            click.echo(json.dumps({"members": order.sorted(answer["members"])}))
            done += 1

    of_all = [status, members, member, why, capture, leases, reserve, release, kick, limit, networks, reload, top]
    return [*of_all, *_of_devices()]


def _of_devices() -> list[click.Command]:
    """The relay's, about who logs in with a key."""

    @_command(
        "server",
        "invite",
        "Print a link that lets a new device in, without a password: candy-client join LINK.",
        click.Option(["--name"], metavar="NAME", default="", help="call the device so"),
        click.Option(["--address"], metavar="CIDR", help="bind it to this address, or network"),
        click.Option(
            ["--uses"],
            metavar="COUNT",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="devices",
        ),
        click.Option(
            ["--expires"],
            metavar="TIME",
            callback=_seconds,
            default="1h",
            show_default=True,
            help="like 30m, 12h or 7d",
        ),
        _NETWORK,
    )
    def invite(
        asking: "Asking", is_json: bool, name: str, address: str | None, uses: int, expires: float, network: str | None
    ) -> None:
        body = {"name": name, "address": address, "uses": uses, "expires_s": expires, "network": network or "/"}
        answer = asking.ask("POST", f"{VERSION}/invitations", body)
        _print_json(answer) if is_json else click.echo(answer["link"])

    @_command("server", "devices", "List the devices that log in with keys.", _NETWORK)
    def devices(asking: "Asking", is_json: bool, network: str | None) -> None:
        answer = asking.ask("GET", f"{VERSION}/devices", network=network)
        _print_json(answer) if is_json else tables.show(tables.DEVICES, answer["devices"])

    @_command("server", "approve", "Let a device in that waits; compare its fingerprint first.", _KEYED, _NETWORK)
    def approve(asking: "Asking", is_json: bool, device: str, network: str | None) -> None:
        answer = asking.ask("POST", f"{VERSION}/devices/{quoted(device)}/approve", network=network)
        _print_json(answer) if is_json else click.echo(f"{_named(answer)} is let in")

    @_command("server", "revoke", "Shut a device out, at once and from now on.", _KEYED, _NETWORK)
    def revoke(asking: "Asking", is_json: bool, device: str, network: str | None) -> None:
        answer = asking.ask("POST", f"{VERSION}/devices/{quoted(device)}/revoke", network=network)
        if is_json:
            _print_json(answer)
            return
        click.echo(f"{_named(answer['device'])} is revoked")
        if answer["unreached"]:
            relays = ", ".join(map(shown, answer["unreached"]))
            click.echo(f"not reached: {relays}; until they hear of it they keep it", err=True)
        if answer["password_admits"]:
            click.echo('who knows a password comes back as another device: replace it, or write admit = "invite"')

    @_command(
        "server",
        "rotate",
        "Make a new key of the relay's, and tell members.",
        _NETWORK,
        click.Option(["--network-key"], is_flag=True, help="and a new one of the network's, signed by the old"),
    )
    def rotate(asking: "Asking", is_json: bool, network: str | None, network_key: bool) -> None:
        answer = asking.ask("POST", f"{VERSION}/rotate", network=network, network_key=network_key or None)
        if is_json:
            _print_json(answer)
            return
        for key in answer["keys"]:
            told = f"{key['network']}: log-ins are by a new key from now on"
            click.echo(f"{told}; new members need {key['url']}" if network_key else told)

    return [invite, devices, approve, revoke, rotate]


def _quantity(read: Callable[[str], int]) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """A callback that reads it as people write it."""

    def parse(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
        try:
            return None if text is None else read(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r} {error}", context, option) from None

    return parse


def _seconds(context: click.Context, option: click.Parameter, text: str) -> float:
    """Of a time as people write it."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if not found:
        raise click.BadParameter(f"{text!r} is not a time: write it like 30m, 12h or 7d", context, option)
    return int(found[1]) * _SECONDS[found[2]]


_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _named(device: dict[str, Any]) -> str:
    return f"{shown(device['name'] or device['number'])} ({device['fingerprint']})"


def _of_member() -> list[click.Command]:
    @_command("client", "status", "Show this member, its connection and its routes.", _interval(0.0))
    def status(asking: "Asking", is_json: bool, interval: float) -> None:
        answer = asking.ask("GET", f"{VERSION}/status", over=interval)
        if is_json:
            _print_json(answer)
            return
        routes, links, last_end = answer.pop("routes"), tables.links(answer.pop("links")), answer.pop("last_end")
        ended = {} if last_end is None else {"last_end": last_end["reason"], "last_end_at": last_end["at"]}
        tables.show_one((answer | ended).items())
        for columns, rows in ((tables.ROUTES, routes), (tables.LINKS, links)):
            if rows:
                click.echo()
                tables.show(columns, rows)

    @_command("client", "members", "List the other members that this one knows of.")
    def members(asking: "Asking", is_json: bool) -> None:
        answer = asking.ask("GET", f"{VERSION}/members")
        _print_json(answer) if is_json else tables.show(tables.PEERS, tables.links(answer["members"]))

    @_command(
        "client",
        "forget",
        "Believe what was refused of a member: that its key is another one, or that it does not seal any more.",
        click.Argument(["address"]),
    )
    def forget(asking: "Asking", is_json: bool, address: str) -> None:
        answer = asking.ask("POST", f"{VERSION}/members/{quoted(address)}/forget")
        _print_json(answer) if is_json else click.echo(f"{answer['address']} is believed")

    return [status, members, forget]
