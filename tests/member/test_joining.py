"""An invitation is redeemed by one log-in, against the relay's half: what it leaves behind, and how it can fail."""

import asyncio
import errno
import os
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from kit.login import NETWORK, WALL, Talk, psk_of
from kit.recorded import GRANTED
from lab.keyedrelay import KeyedRelay
from lab.setting import Setting

from candy._fastpath import Engine
from candy.errors import OperationalError
from candy.host import files
from candy.member.conversation import Identity
from candy.member.dial import Dialer
from candy.member.joining import _Joining
from candy.member.keyring import Keyring
from candy.member.keys import MemberKeys
from candy.member.login import Ticket
from candy.member.trust import Known
from candy.protocol.closing import CloseCode
from candy.protocol.link import Invitation
from candy.protocol.login import Credential, Told


@pytest.fixture
def relay(setting: Setting) -> KeyedRelay:
    return KeyedRelay(setting)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(max_connections=4, max_guests=4)
    engine.add_network()
    yield engine
    engine.stop()


def invited(talk: Talk) -> Invitation:
    """By the relay, to join once."""
    key = talk.keys.key
    its = talk.enrolment.invite("", None, 1, WALL + 3600, WALL)
    return Invitation(key.relay, key.number, key.generation, its.selector, its.secret, WALL + 3600)


def joining(setting: Setting, invitation: Invitation, engine: Engine) -> "asyncio.Task[IPv4Interface]":
    keys = MemberKeys(setting.folder)
    keyring = Keyring(
        keys,
        password=None,
        network=NETWORK,
        invitation=invitation,
        randbytes=os.urandom,
        stretch=lambda password, network: psk_of(password),
    )
    identity = Identity(password=b"", vmac=b"0" * 16, address=None, hello=b"", randbytes=os.urandom)
    dialer = Dialer(f"ws://127.0.0.1:{setting.relay.port}")
    return asyncio.create_task(_Joining(dialer, keyring, identity, engine).run())


async def test_it_is_redeemed(setting: Setting, relay: KeyedRelay, engine: Engine) -> None:
    task = joining(setting, invited(relay.talk), engine)
    visitor = await relay.visitor()
    await visitor.let_in()
    assert visitor.login.credential is Credential.INVITATION
    assert await visitor.end() == CloseCode.GOING_AWAY
    assert await task == GRANTED
    keys = MemberKeys(setting.folder)
    [device] = relay.talk.enrolment
    assert keys.ticket() == Ticket(device.selector, device.secret)
    # The member starts by that, without a password.
    relay.has(setting, password=None, network=NETWORK)
    setting.start()
    await (await relay.visitor()).let_in()


async def test_an_answer_that_was_lost_costs_nothing(setting: Setting, relay: KeyedRelay, engine: Engine) -> None:
    invitation = invited(relay.talk)
    task = joining(setting, invitation, engine)
    visitor = await relay.visitor()
    assert await visitor.read() is not None
    lost = visitor.told()
    visitor.visitor.hang_up()
    with pytest.raises(OperationalError, match=r"^the relay closed without a word: it does not know the invitation"):
        await task
    task = joining(setting, invitation, engine)
    visitor = await relay.visitor()
    await visitor.let_in()
    await visitor.close(CloseCode.NORMAL)
    await task
    assert MemberKeys(setting.folder).ticket() == Ticket(lost.selector, lost.secret)


async def test_it_replaces_a_credential_that_is_there(setting: Setting, relay: KeyedRelay, engine: Engine) -> None:
    """By its user's hand: a relay that has lost its devices refuses that one."""
    keys = MemberKeys(setting.folder)
    keys.keep_ticket(Ticket(bytes(16), bytes(32)))
    task = joining(setting, invited(relay.talk), engine)
    visitor = await relay.visitor()
    await visitor.let_in()
    await visitor.close(CloseCode.NORMAL)
    await task
    assert keys.ticket() != Ticket(bytes(16), bytes(32))


async def test_the_relay_of_the_invitation_counts_as_seen(setting: Setting, relay: KeyedRelay, engine: Engine) -> None:
    invitation = invited(relay.talk)
    keys = MemberKeys(setting.folder)
    for newer, why in (
        (invitation.generation + 1, "shows a key that was replaced"),
        (invitation.generation, "another key of the same time"),
    ):
        other = Invitation(bytes(32), 0, newer, invitation.selector, invitation.secret, invitation.until)
        task = joining(setting, other, engine)
        assert await (await relay.visitor()).end() == CloseCode.POLICY_VIOLATION
        with pytest.raises(OperationalError, match=why):
            await task
    # What is kept and newer counts instead, and is not written over.
    keys.keep_known(Known(0, bytes([9]) * 32, WALL + 9, (NETWORK,)))
    task = joining(setting, invitation, engine)
    assert await (await relay.visitor()).end() == CloseCode.POLICY_VIOLATION
    with pytest.raises(OperationalError, match="shows a key that was replaced"):
        await task
    assert keys.ticket() is None


@pytest.mark.parametrize("code", [CloseCode.INVITATION_ENDED, CloseCode.POOL_FULL])
async def test_a_refusal(setting: Setting, relay: KeyedRelay, engine: Engine, code: CloseCode) -> None:
    task = joining(setting, invited(relay.talk), engine)
    visitor = await relay.visitor()
    assert await visitor.read() is not None
    await visitor.answer(Told(code=code, text="because"))
    await visitor.close(code)
    with pytest.raises(OperationalError, match=r"^refused by the relay: because"):
        await task
    assert MemberKeys(setting.folder).ticket() is None


async def test_a_relay_that_is_too_old(setting: Setting, engine: Engine) -> None:
    relay = KeyedRelay(setting)
    setting.relay.protocols, setting.relay.headers = ("candy.2",), dict
    task = joining(setting, invited(relay.talk), engine)
    await setting.relay.member()
    with pytest.raises(OperationalError, match=r"the relay does not speak candy\.3"):
        await task


@pytest.mark.parametrize("kind", ["device", "network", "credential"])
async def test_what_can_not_be_written_is_not_redeemed(
    setting: Setting, relay: KeyedRelay, engine: Engine, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    write = files._write_beside

    def write_beside(folder: Path, path: Path, content: bytes) -> str:
        if path.parent.name == kind:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, path, content)

    monkeypatch.setattr(files, "_write_beside", write_beside)
    task = joining(setting, invited(relay.talk), engine)
    if kind != "device":
        visitor = await relay.visitor()
        assert await visitor.read() is not None
        await visitor.answer(visitor.told())
    with pytest.raises(OperationalError, match=f"{kind}/__noname__: No space left on device: make room there"):
        await task
