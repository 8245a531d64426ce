"""Who comes with a key, and who does not any more, by an operator's commands at a relay as users start it."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kit.peer import PING, PONG
from lab.control import Control
from lab.keyed import KeyedMember, by_password, device
from lab.member import Member
from lab.programs import RelayProgram

from candy.errors import RequestError
from candy.member.login import Credentials
from candy.member.trust import Known
from candy.primitives import verify
from candy.protocol.closing import CloseCode
from candy.protocol.control import Approved, Confirm, NetworkKey, RelayKey, State, Tell
from candy.protocol.hello import Hello
from candy.protocol.keys import fingerprint
from candy.protocol.link import Invitation, Link
from candy.protocol.login import Asked, Tells

LAPTOP = Asked(hello=Hello("linux", "7", "laptop"))


class Asking:
    """A relay with these lines in its file, and its operator."""

    def __init__(self, stack: ExitStack, folder: Path, more: str = "") -> None:
        config = folder / "relay.toml"
        config.write_text(f'dhcp = "192.168.202.0/24"\n{more}\n')
        self.config = config
        self._stack = stack
        self.relay = stack.enter_context(RelayProgram(folder, "-c", str(config)))
        self.relay.wait_for("control socket")
        self.control = stack.enter_context(Control("relay", self.relay.control))

    def connect(self) -> KeyedMember:
        return self._stack.enter_context(KeyedMember.connect(self.relay.address))

    def connect_old(self) -> Member:
        """One that is in."""
        return self._stack.enter_context(Member.connect(self.relay.address, extended=True)).log_in("192.168.202.9")

    def devices(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.control.ask("GET", "/v1/devices")["devices"]
        return found

    def invite(self, **body: Any) -> tuple[str, Link]:
        """The URL, and what is behind its #."""
        url, _, fragment = self.control.ask("POST", "/v1/invitations", body)["link"].partition("#")
        return url, Link.parse(fragment)


@pytest.fixture
def asking(stack: ExitStack, tmp_path: Path) -> Asking:
    return Asking(stack, tmp_path)


def its(link: Link) -> Invitation:
    assert link.invitation is not None
    return link.invitation


def test_an_invitation_lets_one_device_in_and_its_own_credential_from_then_on(asking: Asking) -> None:
    url, link = asking.invite(name="phone", address="192.168.202.33")
    assert url == f"ws://127.0.0.1:{asking.relay.address[1]}"
    key = device()
    known = Known(its(link).number, its(link).relay, its(link).generation, (link.network,))
    credentials = Credentials(invitation=its(link))
    lost = asking.connect()
    first = lost.answered(credentials, key, LAPTOP, known=known)
    assert str(first.told.address) == "192.168.202.33/24"
    # Message 2 might have been lost, so it comes again, and gets the same.
    lost.close()
    asking.relay.wait_for("left before it was logged in")
    again = asking.connect().enter(credentials, key, LAPTOP, known=known)
    assert again.ticket == first.ticket
    # Nobody else, and not even it once it has confirmed that it got this.
    for who in (device(), key):
        refused = asking.connect().answered(credentials, who)
        assert (refused.told.code, refused.ticket) == (CloseCode.INVITATION_ENDED, None)
    asking.connect().enter(Credentials(ticket=first.ticket), key)
    [shown] = asking.devices()
    assert (shown["name"], shown["standing"], shown["invited"], shown["came_by"]) == (
        "phone",
        "admitted",
        True,
        "phone",
    )
    assert (shown["addresses"], shown["address"], shown["connected"]) == ("192.168.202.33/32", "192.168.202.33", True)
    assert shown["fingerprint"] == fingerprint(key.public)


def test_what_was_given_outlives_the_relay(stack: ExitStack, tmp_path: Path) -> None:
    key = device()
    with ExitStack() as first:
        asking = Asking(first, tmp_path)
        _, link = asking.invite(uses=2)
        outcome = asking.connect().enter(Credentials(invitation=its(link)), key)
        # At once, and not with the next turn of the store.
        asking.relay.signal(9)
        asking.relay.wait()
    asking = Asking(stack, tmp_path)
    again = asking.connect().enter(Credentials(ticket=outcome.ticket), key, known=outcome.known)
    assert again.told.address == outcome.told.address
    assert asking.connect().answered(Credentials(invitation=its(link)), device()).is_in
    assert (
        asking.connect().answered(Credentials(invitation=its(link)), device()).told.code == CloseCode.INVITATION_ENDED
    )


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"address": "10.0.0.1"}, "10.0.0.1/32 is not within the pool 192.168.202.0/24"),
        ({"address": "here"}, "neither address nor network"),
        ({"uses": 0}, "for 1 to 1000 devices"),
        ({"expires_s": 1e9}, "for a year at most"),
        ({"name": "a\nb"}, "all can be printed"),
        ({"network": "/home"}, "there is no network '/home'"),
    ],
)
def test_invitations_that_make_no_sense(asking: Asking, body: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        asking.control.ask("POST", "/v1/invitations", body)


def test_a_password_admits_nobody_new_where_they_are_invited(stack: ExitStack, tmp_path: Path) -> None:
    asking = Asking(stack, tmp_path, 'admit = "invite"')
    member = asking.connect()
    assert member.answered(by_password(), device()).told.code == CloseCode.INVITED_ONLY
    assert member.end() == CloseCode.INVITED_ONLY
    key = device()
    _, link = asking.invite()
    outcome = asking.connect().enter(Credentials(invitation=its(link)), key)
    asking.connect().enter(Credentials(ticket=outcome.ticket), key)
    # Old clients have nothing else.
    with Member.connect(asking.relay.address) as old:
        old.log_in("192.168.202.9")


def test_a_device_waits_until_it_is_approved(stack: ExitStack, tmp_path: Path) -> None:
    asking = Asking(stack, tmp_path, 'admit = "approval"')
    key, member = device(), asking.connect()
    outcome = member.answered(by_password(), key, LAPTOP)
    assert outcome.waits
    assert outcome.ticket is not None
    member.tell(Confirm())
    member.send(b"still there", PING)
    assert member.receive() == (PONG, b"still there")
    [shown] = asking.devices()
    assert (shown["name"], shown["standing"], shown["address"]) == ("laptop", "waiting", None)
    approved = asking.control.ask("POST", f"/v1/devices/{shown['fingerprint'].replace(' ', '')}/approve")
    assert approved["standing"] == "admitted"
    told = member.heard()
    assert isinstance(told, Approved)
    member.ip = told.address.ip
    member.settle()
    assert asking.devices()[0]["address"] == str(told.address.ip)
    with pytest.raises(RequestError, match="'laptop' does not wait"):
        asking.control.ask("POST", "/v1/devices/laptop/approve")


def test_who_is_revoked_is_out_within_a_second_and_all_are_told(asking: Asking) -> None:
    key, thief, peer = device(), asking.connect(), asking.connect()
    ticket = thief.enter(by_password(), key, LAPTOP).ticket
    peer.enter(by_password(), device())
    began = time.monotonic()
    revoked = asking.control.ask("POST", "/v1/devices/laptop/revoke")
    assert thief.closing() == (CloseCode.DEVICE_REVOKED, "this device was revoked")
    told = peer.heard()
    assert time.monotonic() - began < 1
    assert isinstance(told, Tell)
    assert [(entry.state, entry.key) for entry in told.peers] == [(State.REVOKED, key.public)]
    assert (revoked["device"]["standing"], revoked["password_admits"]) == ("revoked", True)
    assert thief.ip is not None
    [shown] = peer.asked(str(thief.ip))
    assert shown.state is State.REVOKED
    for credentials in (Credentials(ticket=ticket), by_password()):
        assert asking.connect().answered(credentials, key).told.code == CloseCode.DEVICE_REVOKED
    with pytest.raises(RequestError, match="'laptop' was revoked"):
        asking.control.ask("POST", "/v1/devices/laptop/approve")


def test_a_new_relay_key(asking: Asking) -> None:
    member, under_way, key = asking.connect(), asking.connect(), device()
    outcome = member.enter(by_password(), key)
    before = member.shown.key
    [rotated] = asking.control.ask("POST", "/v1/rotate")["keys"]
    told = member.heard()
    assert isinstance(told, RelayKey)
    known = outcome.known.renewed(told.key, verify)
    assert told.key.generation == rotated["generation"] > before.generation
    # Who was shown the old one logs in by it, and nobody else: a member that has seen the new one believes no other.
    under_way.enter(by_password(), device(), known=outcome.known)
    newer = asking.connect()
    assert newer.shown.key == told.key
    newer.enter(Credentials(ticket=outcome.ticket), key, known=known)


def test_a_new_network_key(asking: Asking) -> None:
    member, key = asking.connect(), device()
    outcome = member.enter(by_password(), key)
    [rotated] = asking.control.ask("POST", "/v1/rotate", network_key=True)["keys"]
    succession, renewal = member.heard(), member.heard()
    assert isinstance(succession, NetworkKey)
    assert isinstance(renewal, RelayKey)
    known = outcome.known.succeeded(succession.succession, verify).renewed(renewal.key, verify)
    assert Link.parse(rotated["url"].partition("#")[2]).network == known.network != outcome.known.network
    # Who was there knows it, who was away finds it, and who is new takes it.
    for credentials, who, kept in (
        (Credentials(ticket=outcome.ticket), key, known),
        (Credentials(ticket=outcome.ticket), key, outcome.known),
        (by_password(), device(), None),
    ):
        assert asking.connect().enter(credentials, who, known=kept).known.network == known.network


def test_a_network_key_that_is_kept_elsewhere(asking: Asking, tmp_path: Path) -> None:
    (tmp_path / "keys" / "%2F" / "network.key").unlink()
    with pytest.raises(RequestError, match=r"network\.key is not there"):
        asking.control.ask("POST", "/v1/rotate")
    asking.connect().enter(by_password(), device())


def test_settings_that_are_read_again(asking: Asking) -> None:
    old = asking.connect_old()
    asking.config.write_text('dhcp = "192.168.202.0/24"\nadmit = "invite"\nlegacy = false\n')
    answer = asking.control.ask("POST", "/v1/reload")
    assert (answer["applied"], answer["needs_restart"]) == (["admit", "legacy"], [])
    assert old.end() == CloseCode.POLICY_VIOLATION
    assert asking.connect().answered(by_password(), device()).told.code == CloseCode.INVITED_ONLY


def test_both_kinds_log_in_by_one_password(stack: ExitStack, tmp_path: Path) -> None:
    asking = Asking(stack, tmp_path, 'log_format = "json"')
    line = json.loads(asking.relay.wait_for(".*old clients and members with keys log in by the same password.*")[0])
    assert line["level"] == "warning"
    told = asking.connect().answered(by_password(), device()).told
    assert told.flags & Tells.SHARES_PASSWORD
