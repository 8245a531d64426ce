"""The member at a relay with candy.3, with the real engine: who it believes, what it keeps, and whose word it takes.

What the conversation decides is in test_keyed.py. Nothing here needs root.
"""

import asyncio
import errno
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from kit.login import NETWORK, SEED, WALL, Talk, psk_of, relay_key
from kit.primitives import pair
from kit.recorded import GRANTED, PASSWORD
from lab.keyedrelay import KeyedRelay, KeyedVisitor
from lab.setting import Journal, Setting, Visitor, log_in, packets_pass

from candy.errors import OperationalError
from candy.host import files
from candy.member.keyring import Keyring
from candy.member.keys import MemberKeys
from candy.member.login import Ticket
from candy.primitives import sign, signing_public
from candy.protocol import control, keys, wire
from candy.protocol.closing import CloseCode
from candy.protocol.control import Approved, Closing
from candy.protocol.login import Credential
from candy.relay.enrolment import Admit
from candy.relay.login import RelayKeyPair
from candy.relay.passwords import Password

CONNECTED = "connected as 192.168.202.7/24 (the relay answers)"
OTHER_SEED = bytes([0x31]) * 32


@pytest.fixture
def relay(setting: Setting) -> KeyedRelay:
    return KeyedRelay(setting)


def another_network() -> RelayKeyPair:
    its = pair(bytes([0x32]) * 32)
    return RelayKeyPair(its, keys.RelayKey.make(sign, OTHER_SEED, signing_public(OTHER_SEED), its.public, 0, WALL))


async def test_a_first_contact(setting: Setting, relay: KeyedRelay, journal: Journal) -> None:
    setting.start()
    visitor = await relay.visitor()
    assert await visitor.read() is not None
    assert visitor.login.credential is Credential.PASSWORD
    # Nobody gets a key kept who has not got the credential.
    kept = MemberKeys(setting.folder)
    assert (kept.known(), kept.ticket()) == (None, None)
    await visitor.answer(told := visitor.told())
    assert await visitor.hear() == control.Confirm()
    assert kept.ticket() == Ticket(told.selector, told.secret)
    assert (known := kept.known()) is not None
    assert (known.passed, known.relay, known.generation) == ((NETWORK,), relay.talk.keys.key.relay, WALL)
    await journal.said(CONNECTED)
    assert setting.device.addresses == [GRANTED]
    assert setting.kept("address") == str(GRANTED)
    await packets_pass(setting, visitor.visitor)
    assert journal.warnings == []


async def test_from_then_on_its_credential_alone(setting: Setting, relay: KeyedRelay, journal: Journal) -> None:
    """field: a password that every machine has for ever."""
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    visitor.visitor.hang_up()
    visitor = await relay.visitor()
    await visitor.let_in()
    assert visitor.login.credential is Credential.DEVICE
    await setting.stop()
    # After a restart, without the password.
    relay.has(setting, password=None)
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    assert visitor.login.credential is Credential.DEVICE
    await journal.said(CONNECTED)


async def test_routes_come_sealed(setting: Setting, relay: KeyedRelay) -> None:
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    count = setting.kernel.reviews
    entry = wire.RouteEntry(GRANTED.network, GRANTED.ip + 1)
    await visitor.tell(wire.Route((entry,), 3).encode())
    await setting.kernel.reviewed(count + 1)
    assert setting.member.routes == (entry,)


async def test_another_network_is_refused(setting: Setting, relay: KeyedRelay, journal: Journal) -> None:
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    relay.talk.keys = another_network()
    visitor.visitor.hang_up()
    visitor = await relay.visitor()
    assert await visitor.end() == CloseCode.POLICY_VIOLATION
    line = await journal.said("the relay is of another network")
    assert "candy-client accept" in line
    assert (known := MemberKeys(setting.folder).known()) is not None
    assert known.network == NETWORK


async def test_a_line_names_its_network(setting: Setting, relay: KeyedRelay, journal: Journal) -> None:
    relay.has(setting, network=signing_public(OTHER_SEED))
    setting.start()
    assert await (await relay.visitor()).end() == CloseCode.POLICY_VIOLATION
    await journal.said("the relay is of another network")
    await setting.stop()
    relay.has(setting, network=NETWORK)
    setting.start()
    await (await relay.visitor()).let_in()


@pytest.mark.parametrize("protocols", [(), ("candy.2",)])
@pytest.mark.parametrize("by_line", [False, True])
async def test_no_downgrade(
    setting: Setting, relay: KeyedRelay, journal: Journal, protocols: tuple[str, ...], by_line: bool
) -> None:
    """Neither of one that kept the network's key, nor of one whose line has it; nothing is said to such a relay."""
    if by_line:
        relay.has(setting, network=NETWORK)
    else:
        setting.start()
        await (await relay.visitor()).let_in()
        await setting.stop()
    setting.relay.protocols, setting.relay.headers = protocols, dict
    setting.start()
    await says_nothing(await setting.relay.member())
    await journal.said("the relay does not speak candy.3, but this member knows the network's key")


async def test_without_a_key_an_old_relay_is_joined_as_ever(setting: Setting, journal: Journal) -> None:
    setting.start()
    visitor = await setting.relay.member()
    await log_in(visitor)
    visitor.pong_as_the_original()
    await journal.said(CONNECTED)
    assert not (setting.folder / "device").exists()


async def test_an_old_relay_and_no_password(setting: Setting, relay: KeyedRelay, journal: Journal) -> None:
    """No hash of nothing goes out."""
    relay.has(setting, password=None)
    setting.relay.protocols, setting.relay.headers = (), dict
    setting.start()
    await says_nothing(await setting.relay.member())
    await journal.said("without that this member needs the network's password")


async def test_an_answer_that_was_lost(setting: Setting, relay: KeyedRelay, journal: Journal) -> None:
    """It logs in as before, and gets the credential that it already has."""
    setting.start()
    visitor = await relay.visitor()
    assert await visitor.read() is not None
    lost = visitor.told()
    visitor.visitor.hang_up()
    visitor = await relay.visitor()
    await visitor.let_in()
    assert visitor.login.credential is Credential.PASSWORD
    assert MemberKeys(setting.folder).ticket() == Ticket(lost.selector, lost.secret)
    assert len(list(relay.talk.enrolment)) == 1
    await journal.said(CONNECTED)


async def test_it_waits_for_approval(setting: Setting, journal: Journal) -> None:
    relay = KeyedRelay(setting, Talk(Admit.APPROVAL, (Password(PASSWORD),)))
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    await journal.said("show the operator this device's fingerprint")
    assert setting.member.progress.state == "logging in"
    assert setting.device.addresses == []
    await visitor.tell(Approved(GRANTED, bytes([7]) * 8).encode())
    await journal.said(CONNECTED)
    await packets_pass(setting, visitor.visitor)


async def test_a_control_message_that_was_changed(setting: Setting, relay: KeyedRelay, journal: Journal) -> None:
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    await journal.said(CONNECTED)
    sealed = visitor.channel.seal(wire.Route(()).encode())
    await visitor.visitor.socket.send_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    assert await visitor.end() == CloseCode.BROKEN_CONTROL
    visitor.visitor.hang_up()
    await journal.said("was changed, left out or repeated on the way")
    await (await relay.visitor()).let_in()
    assert setting.delays == [1.0]


@pytest.mark.parametrize("code", [CloseCode.DEVICE_REVOKED, CloseCode.REPLACED, CloseCode.INVITATION_ENDED])
async def test_a_close_frame_alone_is_not_believed(
    setting: Setting, relay: KeyedRelay, journal: Journal, code: CloseCode
) -> None:
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    await journal.said(CONNECTED)
    await visitor.close(code, "forged")
    await (await relay.visitor()).let_in()
    assert journal.warnings == ["the connection was lost; trying again in 1.0 s"]
    assert setting.delays == [1.0]


@pytest.mark.parametrize("code", [CloseCode.DEVICE_REVOKED, CloseCode.INVITATION_ENDED, CloseCode.INVITED_ONLY])
async def test_what_only_its_user_can_mend_ends_it(setting: Setting, relay: KeyedRelay, code: CloseCode) -> None:
    setting.start()
    visitor = await relay.visitor()
    assert await visitor.read() is not None
    await visitor.answer(replace(visitor.told(), code=code, text="because"))
    await visitor.close(code)
    with pytest.raises(OperationalError, match=r"^refused by the relay: because: .*operator"):
        await setting.staying


async def test_a_revocation_ends_it(setting: Setting, relay: KeyedRelay, journal: Journal) -> None:
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    await journal.said(CONNECTED)
    await visitor.tell(Closing(CloseCode.DEVICE_REVOKED, "this device was revoked").encode())
    await visitor.close(CloseCode.DEVICE_REVOKED)
    with pytest.raises(OperationalError, match="this device was revoked"):
        await setting.staying


async def test_a_double_of_its_key_never_has_it_make_another(
    setting: Setting, relay: KeyedRelay, journal: Journal
) -> None:
    """field: three replacements, and a member makes itself a new VMAC."""
    setting.start()
    device = b""
    for turn in range(4):
        visitor = await relay.visitor()
        await visitor.let_in()
        assert visitor.claim is not None
        assert visitor.claim.key == (device := device or visitor.claim.key)
        await visitor.tell(Closing(CloseCode.REPLACED, "twice").encode())
        await visitor.close(CloseCode.REPLACED)
        await journal.said("is there a copy of this machine", turn + 1)
    await journal.said("trying again in 64.0 s")
    assert not any("VMAC" in line for line in journal.lines)


async def test_another_key_of_the_relay_is_kept(setting: Setting, relay: KeyedRelay, journal: Journal) -> None:
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    relay.talk.keys = relay_key(0x44, WALL + 5)
    await visitor.tell(control.RelayKey(relay.talk.keys.key).encode())
    await settled(setting, visitor)
    assert (known := MemberKeys(setting.folder).known()) is not None
    assert (known.relay, known.generation) == (relay.talk.keys.key.relay, WALL + 5)
    visitor.visitor.hang_up()
    await (await relay.visitor()).let_in()
    # The one before is refused from then on.
    relay.talk.keys = relay_key()
    await setting.stop()
    setting.start()
    assert await (await relay.visitor()).end() == CloseCode.POLICY_VIOLATION
    await journal.said("the relay shows a key that was replaced")


async def test_what_a_connection_was_told_is_not_lost_to_one_that_was_shown_less(
    setting: Setting, relay: KeyedRelay, journal: Journal
) -> None:
    """The relay's key is rotated between the 101 of a successor and its log-in."""
    setting.start()
    old = await relay.visitor()
    await old.let_in()
    await journal.said(CONNECTED)
    setting.member.changed("the way to the relay has changed")
    new = await relay.visitor()
    await old.tell(control.RelayKey(relay_key(0x44, WALL + 5).key).encode())
    await journal.said("the relay has another key")
    await new.let_in()
    assert (known := MemberKeys(setting.folder).known()) is not None
    assert known.generation == WALL + 5


async def test_another_key_of_the_network_is_kept(setting: Setting, relay: KeyedRelay, journal: Journal) -> None:
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    entry = keys.Succession.make(sign, SEED, NETWORK, signing_public(OTHER_SEED), 1)
    forged = replace(entry, signature=bytes(64))
    await visitor.tell(control.NetworkKey(forged).encode())
    await journal.said("not believed: a new network key")
    await visitor.tell(control.NetworkKey(entry).encode())
    await settled(setting, visitor)
    assert (known := MemberKeys(setting.folder).known()) is not None
    assert known.passed == (NETWORK, signing_public(OTHER_SEED))
    relay.talk.keys = another_network()
    visitor.visitor.hang_up()
    visitor = await relay.visitor()
    await visitor.read()
    assert visitor.login.credential is Credential.DEVICE


async def test_what_can_not_be_kept_is_in_memory(
    setting: Setting, relay: KeyedRelay, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """field: a full disk kept a member out. It is one device as long as it runs, and for good once there is room."""
    write = files._write_beside
    is_full = True

    def write_beside(folder: Path, path: Path, content: bytes) -> str:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, path, content)

    monkeypatch.setattr(files, "_write_beside", write_beside)
    setting.start()
    devices = set()
    for credential in (Credential.PASSWORD, Credential.DEVICE, Credential.DEVICE):
        visitor = await relay.visitor()
        await visitor.let_in()
        assert visitor.login.credential is credential
        assert visitor.claim is not None
        devices.add(visitor.claim.key)
        is_full = credential is Credential.PASSWORD
        visitor.visitor.hang_up()
    await setting.stop()
    assert len(devices) == 1
    said = "this device's keys are in memory until the state folder takes them"
    assert len([line for line in journal.warnings if said in line]) == 1
    keys = MemberKeys(setting.folder)
    assert {keys.device(bytes).public} == devices
    assert (known := keys.known()) is not None
    assert known.network == NETWORK
    [device] = relay.talk.enrolment
    assert keys.ticket() == Ticket(device.selector, device.secret)


async def test_a_file_that_is_damaged_while_it_runs(setting: Setting, relay: KeyedRelay, journal: Journal) -> None:
    setting.start()
    visitor = await relay.visitor()
    await visitor.let_in()
    (setting.folder / "device" / "__noname__").write_text("AAAA\n")
    visitor.visitor.hang_up()
    await relay.visitor()
    await journal.said("device/__noname__ is damaged, it holds no device's key")
    assert (setting.folder / "device" / "__noname__").read_text() == "AAAA\n"


async def test_scrypt_is_off_the_event_loop(setting: Setting, relay: KeyedRelay) -> None:
    ran: list[bool] = []

    def stretch(password: bytes, network: bytes) -> bytes:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        ran.append(True)
        return psk_of(password)

    setting.keyring = lambda: Keyring(MemberKeys(setting.folder), password=PASSWORD, randbytes=bytes, stretch=stretch)
    setting.start()
    for _ in range(2):
        visitor = await relay.visitor()
        assert await visitor.read() is not None
        visitor.visitor.hang_up()
    # Once for both.
    assert ran == [True]


async def says_nothing(visitor: Visitor) -> None:
    """The member ends this connection, and has sent no message."""
    kind, _ = await visitor.receive()
    assert kind is not aiohttp.WSMsgType.BINARY


async def settled(setting: Setting, visitor: KeyedVisitor) -> None:
    """Return once the member has acted on all that it was told."""
    count = setting.kernel.reviews
    await visitor.tell(wire.Route((), 3).encode())
    await setting.kernel.reviewed(count + 1)
