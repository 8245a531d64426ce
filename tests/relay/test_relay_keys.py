"""Log-ins with keys at a relay as users start it: each credential, each refusal, and what is told within CONTROL.

What each part decides is in test_keyed.py, test_enrolment.py and test_login.py.
"""

from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from kit.peer import PING
from lab.keyed import KeyedMember, by_password, device
from lab.member import Ended, Member, everything, upgrade_request
from lab.programs import RelayProgram, connect
from lab.relay import Count

from candy.member.login import Credentials, Ticket
from candy.protocol import control
from candy.protocol.closing import CloseCode
from candy.protocol.control import Ask, Confirm, Peer, State
from candy.protocol.hello import Hello
from candy.protocol.keys import KEY_HEADER, NONCE_HEADER
from candy.protocol.login import Asked, Asks

pytestmark = pytest.mark.carriers


def fixed(last: int, **more: object) -> Asked:
    return replace(Asked(address=IPv4Interface(f"192.168.202.{last}/24"), flags=Asks.IS_FIXED), **more)  # type: ignore[arg-type]


class TestUpgrade:
    def test_keys_are_shown_to_who_offers_candy_3(self, relay: RelayProgram) -> None:
        with KeyedMember.connect(relay.address) as one, KeyedMember.connect(relay.address) as other:
            assert one.headers["Sec-WebSocket-Protocol"] == "candy.3"
            assert one.headers[KEY_HEADER] == other.headers[KEY_HEADER]
            assert one.headers[NONCE_HEADER] != other.headers[NONCE_HEADER]
        with Member.connect(relay.address, extended=True) as old:
            assert "candy.3" not in old.head
            assert KEY_HEADER not in old.head

    def test_they_are_the_same_after_a_restart(self, tmp_path: Path) -> None:
        shown = []
        for _ in range(2):
            with RelayProgram(tmp_path) as relay, KeyedMember.connect(relay.address) as member:
                shown.append(member.shown.key)
        assert shown[0] == shown[1]

    def test_without_a_folder_to_keep_them_old_clients_join_all_the_same(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("no folder")
        with RelayProgram(tmp_path / "state") as relay:
            relay.wait_for("no log-ins with keys: cannot (read|write) .*/keys/.*CANDY_STATE_DIR")
            with Member.connect(relay.address, extended=True) as member:
                member.log_in("192.168.202.9")


class TestLogIn:
    def test_by_password_and_then_by_its_own_credential(self, relay: RelayProgram) -> None:
        key = device()
        with KeyedMember.connect(relay.address) as member:
            first = member.enter(by_password(), key, Asked(hello=Hello("linux", "7", "laptop")))
            assert first.ticket is not None
        with KeyedMember.connect(relay.address) as member:
            again = member.enter(Credentials(ticket=first.ticket), key, known=first.known)
            assert again.ticket is None
        assert (again.told.address, again.told.lease) == (first.told.address, first.told.lease)

    def test_what_proves_nothing_ends_without_a_word(self, relay: RelayProgram) -> None:
        for credentials in (by_password("another"), Credentials(ticket=Ticket(bytes([7]) * 16, bytes(32)))):
            with KeyedMember.connect(relay.address) as member:
                member.begin(credentials, device())
                assert member.end() is None

    @pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 19, 20, 51, 52, 99, 100, -1])
    def test_any_changed_bit_ends_it_without_a_word(self, relay: RelayProgram, at: int) -> None:
        def change(message: bytes) -> bytes:
            changed = bytearray(message)
            changed[at] ^= 1
            return bytes(changed)

        with KeyedMember.connect(relay.address) as member:
            member.begin(by_password(), device(), change=change)
            assert member.end() is None

    def test_a_recorded_message_1_opens_on_no_other_connection(self, relay: RelayProgram) -> None:
        recorded = []
        with KeyedMember.connect(relay.address) as member:
            member.begin(by_password(), device(), change=lambda message: recorded.append(message) or message)  # type: ignore[func-returns-value]
            member.receive_message()
        with KeyedMember.connect(relay.address) as thief:
            thief.send(recorded[0])
            assert thief.end() is None

    def test_another_devices_credential(self, relay: RelayProgram) -> None:
        with KeyedMember.connect(relay.address) as member:
            ticket = member.enter(by_password(), device()).ticket
        with KeyedMember.connect(relay.address) as thief:
            thief.begin(Credentials(ticket=ticket), device())
            assert thief.end() is None

    def test_one_try_a_connection(self, relay: RelayProgram) -> None:
        with KeyedMember.connect(relay.address) as member:
            member.answered(by_password(), device())
            member.begin(by_password(), device())
            assert member.end() is None

    def test_an_address_of_its_own_and_one_that_is_none(self, relay: RelayProgram) -> None:
        with KeyedMember.connect(relay.address) as member:
            assert member.enter(by_password(), device(), fixed(77)).told.address == fixed(77).address
            with KeyedMember.connect(relay.address) as other:
                log_in = other.begin(by_password(), device(), fixed(77))
                # Which it answers.
                assert member.receive()[0] == PING
                outcome = log_in.read(other.receive_message())
                assert (outcome.told.code, outcome.ticket) == (CloseCode.ADDRESS_HELD, None)
                assert other.end() == CloseCode.ADDRESS_HELD

    def test_before_it_has_confirmed_it_sends_nothing(self, relay: RelayProgram, counted: Count) -> None:
        with KeyedMember.connect(relay.address) as member:
            outcome = member.answered(by_password(), device())
            member.ip = outcome.told.address.ip
            member.tell(Ask((member.ip,)))
            member.tell(Confirm())
            member.settle()
            assert counted("not_authenticated") == 1

    def test_it_replaces_its_older_connection_once_it_has_confirmed(self, relay: RelayProgram) -> None:
        key = device()
        with KeyedMember.connect(relay.address) as older, KeyedMember.connect(relay.address) as newer:
            ticket = older.enter(by_password(), key).ticket
            newer.answered(Credentials(ticket=ticket), key)
            older.settle()
            newer.tell(Confirm())
            assert older.closing()[0] == CloseCode.REPLACED


class TestControl:
    @pytest.mark.parametrize("how", ["changed", "repeated", "left out", "in the clear", "not one"])
    def test_what_is_not_the_next_ends_the_connection(self, relay: RelayProgram, how: str) -> None:
        with KeyedMember.connect(relay.address) as member:
            member.enter(by_password(), device())
            assert member.ip is not None
            ask = Ask((member.ip,)).encode()
            sealed = member.sealed(ask)
            match how:
                case "changed":
                    member.send(sealed[:-1] + bytes([sealed[-1] ^ 1]))
                case "repeated":
                    member.send(sealed)
                    member.heard()
                    member.send(sealed)
                case "left out":
                    member.send(member.sealed(ask))
                case "in the clear":
                    member.send(ask)
                case "not one":
                    member.send(sealed[:12])
            assert member.closing()[0] == CloseCode.BROKEN_CONTROL

    def test_kinds_that_are_not_its_to_send(self, relay: RelayProgram, counted: Count) -> None:
        with KeyedMember.connect(relay.address) as member:
            member.enter(by_password(), device())
            for message in (Confirm().encode(), control.Closing(4009, "").encode(), bytes([99]), b"\x20"):
                member.send(member.sealed(message))
            member.settle()
            assert counted("unexpected_kind") == 2
            assert counted("unknown_kind") == 1
            assert counted("too_short") == 1

    def test_the_relay_says_that_it_ends(self, tmp_path: Path) -> None:
        with RelayProgram(tmp_path) as relay, KeyedMember.connect(relay.address) as member:
            member.enter(by_password(), device())
            relay.signal(15)
            assert member.closing() == (CloseCode.GOING_AWAY, "the relay ends")


class TestKeysOfOthers:
    def test_they_are_told_to_who_asks_and_changes_too(self, relay: RelayProgram) -> None:
        one_key, other_key = device(), device()
        with KeyedMember.connect(relay.address) as one:
            one.enter(by_password(), one_key, fixed(101, flags=Asks.IS_FIXED | Asks.HAS_AES, commit_bytes=9000))
            [nobody] = one.asked("192.168.202.102")
            assert nobody.state is State.NOBODY
            with KeyedMember.connect(relay.address) as other:
                other.enter(by_password(), other_key, fixed(102))
                [came] = _told(one)
                assert (came.state, came.key, any(came.lease), came.device != 0) == (
                    State.SEALS,
                    other_key.public,
                    True,
                    True,
                )
                assert any(came.lease)
                assert came.device != 0
                [asked] = other.asked("192.168.202.101")
                assert (asked.state, asked.commit_bytes, asked.key) == (State.SEALS, 9000, one_key.public)
                assert Asks(asked.flags) == Asks.IS_FIXED | Asks.HAS_AES
            [gone] = _told(one)
            assert (gone.state, gone.key) == (State.AWAY, other_key.public)

    def test_who_is_asked_about_hears_of_the_asker_once(self, relay: RelayProgram) -> None:
        with KeyedMember.connect(relay.address) as one, KeyedMember.connect(relay.address) as other:
            one.enter(by_password(), device(), fixed(103))
            other_key = device()
            other.enter(by_password(), other_key, fixed(104))
            other.asked("192.168.202.103")
            other.asked("192.168.202.103")
            [heard] = _told(one)
            assert (heard.key, heard.flags & Peer.UNASKED) == (other_key.public, Peer.UNASKED)
            one.settle()

    def test_old_clients_and_who_says_off_do_not_seal(self, relay: RelayProgram) -> None:
        with KeyedMember.connect(relay.address) as one, KeyedMember.connect(relay.address) as off:
            one.enter(by_password(), device(), fixed(105))
            off.enter(by_password(), device(), fixed(106, flags=Asks.IS_FIXED | Asks.SEALS_NOTHING))
            with Member.connect(relay.address) as old:
                old.log_in("192.168.202.107")
                by_off, by_old = one.asked("192.168.202.106", "192.168.202.107")
                assert (by_off.state, by_old.state, by_old.key) == (State.CLEAR, State.CLEAR, bytes(32))
                assert any(by_old.lease)

    def test_too_many_questions_are_counted(self, relay: RelayProgram, counted: Count) -> None:
        with KeyedMember.connect(relay.address) as member:
            member.enter(by_password(), device())
            many = tuple(IPv4Interface(f"10.0.0.{last}").ip for last in range(64))
            for _ in range(20):
                member.tell(Ask(many))
            for _ in range(16 * 3):
                assert isinstance(member.heard(), control.Tell)
        assert counted("ask_limit") >= 1


class TestOldClients:
    def test_a_password_of_their_own(self, tmp_path: Path) -> None:
        config = tmp_path / "relay.toml"
        config.write_text(
            'dhcp = "192.168.202.0/24"\npasswords = [\n { name = "new", password = "a third" },\n'
            ' { name = "old", password = "another", legacy = true, addresses = "192.168.202.64/28" },\n]\n'
        )
        config.chmod(0o600)
        with RelayProgram(tmp_path / "state", "-c", str(config)) as relay:
            with Member.connect(relay.address, extended=True) as old:
                old.send(old.auth("192.168.202.65"))
                assert old.end() is None
            with Member.connect(relay.address, password="another") as old:
                old.log_in("192.168.202.65")
            with Member.connect(relay.address, password="another") as old, pytest.raises(Ended):
                old.log_in("192.168.202.9")
            with KeyedMember.connect(relay.address) as member:
                member.begin(by_password("another"), device())
                assert member.end() is None
            with KeyedMember.connect(relay.address) as member:
                member.enter(by_password(), device())

    def test_where_none_are_admitted(self, tmp_path: Path) -> None:
        with RelayProgram(tmp_path, "--no-legacy") as relay:
            with connect(relay.address) as opened:
                opened.sendall(upgrade_request(extended=True))
                answer = everything(opened)
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert b"candy.3 alone: update candy" in answer
            with KeyedMember.connect(relay.address) as member:
                member.enter(by_password(), device())


def _told(member: KeyedMember) -> tuple[Peer, ...]:
    message = member.heard()
    assert isinstance(message, control.Tell), message
    return message.peers
