"""A member's half of a conversation, in memory, as far as tests of it begin alike.

Rules: it is WALL by every clock unless a test says otherwise; what the relay says is right.
"""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from kit.recorded import GRANTED, PASSWORD, STEPS, VMAC, WALL

from candy.member.conversation import CONFIRM_S, Action, Conversation, Identity
from candy.member.routeset import RouteSet
from candy.protocol import auth, wire
from candy.protocol.actions import Ping, Send
from candy.protocol.wire import Route, RouteEntry

CONNECTION = 3
OWN, OTHER, FAR = (IPv4Address(f"192.168.202.{last}") for last in (7, 9, 2))
LAN_A, LAN_B = (RouteEntry(IPv4Network(text), FAR) for text in ("10.1.0.0/16", "10.2.0.0/16"))


def conversation(
    *,
    address: IPv4Interface | None = None,
    last: IPv4Interface | None = None,
    confusion: int = 0,
    routes: RouteSet | None = None,
    extended: bool = False,
    connection: int = CONNECTION,
) -> Conversation:
    """One at time WALL. `confusion` is the number of bytes behind each hashed message."""
    identity = Identity(
        password=PASSWORD,
        vmac=VMAC,
        address=address,
        hello=bytes.fromhex(STEPS[4]["hex"]),
        randbytes=lambda n: bytes([confusion]) * n,
    )
    return Conversation(identity, connection, WALL, last, routes or RouteSet(), extended=extended)


def answer(address: str = str(GRANTED), *, timestamp: int = WALL, password: bytes = PASSWORD) -> bytes:
    return wire.Expttun(timestamp, IPv4Interface(address), auth.expttun_digest(password, timestamp)).encode()


def sent(actions: list[Action]) -> list[str]:
    """What goes out, in hex."""
    return [action.payload.hex() for action in actions if isinstance(action, Send | Ping)]


def joined(routes: RouteSet | None = None, *, at: float = 0.0, extended: bool = False) -> Conversation:
    """One that has logged in with an address of its own."""
    talk = conversation(address=GRANTED, routes=routes, extended=extended)
    talk.opened(at)
    talk.ponged(at)
    talk.expired(at + CONFIRM_S)
    return talk


def route(*entries: RouteEntry, flags: int = 0) -> bytes:
    return Route(entries, flags).encode()
