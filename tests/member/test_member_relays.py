"""The member and several relays, with the real engine: where it goes when one is lost, silent, or does not let it in.

Which one is next is in test_rounds.py, and what a relay may tell in test_relays.py. Nothing here needs root.
"""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from kit.login import NETWORK
from kit.recorded import GRANTED
from lab.keyedrelay import KeyedRelay, KeyedVisitor
from lab.setting import Journal, Setting, StagedRelay, Visitor, log_in, packets_pass, serving

from candy.errors import OperationalError
from candy.member import silence
from candy.member.state import MemberState
from candy.protocol import control, wire
from candy.protocol.closing import CloseCode
from candy.protocol.control import Closing
from candy.protocol.login import Credential, Told

CONNECTED = "connected as 192.168.202.7/24 (the relay answers)"


@pytest.fixture
async def other(setting: Setting) -> AsyncIterator[StagedRelay]:
    """A second one, which the member is given behind the first."""
    made = StagedRelay()
    runner = await serving(made)
    setting.others = [made]
    yield made
    await setting.stop()
    made.end()
    await runner.cleanup()


def url(relay: StagedRelay) -> str:
    return f"ws://127.0.0.1:{relay.port}/"


async def let_in(setting: Setting, journal: Journal, relay: StagedRelay, times: int = 1) -> Visitor:
    """As old clients come in; until it holds."""
    visitor = await relay.member()
    await log_in(visitor)
    visitor.pong_as_the_original()
    await journal.said(CONNECTED, times)
    return visitor


async def test_it_goes_on_at_the_next_one_and_keeps_to_that(
    setting: Setting, other: StagedRelay, journal: Journal
) -> None:
    setting.start()
    first = await let_in(setting, journal, setting.relay)
    assert (setting.member.relay, setting.member.relays.others) == (url(setting.relay), [url(other)])
    first.hang_up()
    second = await let_in(setting, journal, other, 2)
    await packets_pass(setting, second)
    assert (setting.member.relay, setting.member.relays.others) == (url(other), [url(setting.relay)])
    # It asks for the address that it has, and its interface has never had another one.
    assert setting.device.addresses == [GRANTED]
    await journal.said(f"; trying {url(other)} in 0.0 s")
    second.hang_up()
    await let_in(setting, journal, setting.relay, 3)
    assert setting.delays == [0.0, 0.0]


async def test_the_pause_grows_once_all_were_tried(setting: Setting, other: StagedRelay, journal: Journal) -> None:
    setting.start()
    for _ in range(3):
        for relay in (setting.relay, other):
            visitor = await relay.member()
            await visitor.messages(2)
            visitor.hang_up()
    await journal.said("closed right after the handshake", 2)
    visitor = await setting.relay.member()
    assert setting.delays == [0.0, 1.0, 0.0, 2.0, 0.0, 4.0]
    # Each reason is said once for each of them.
    assert len(journal.warnings) == 2
    visitor.hang_up()


async def test_one_that_says_nothing_is_left_for_another(
    setting: Setting, other: StagedRelay, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is open, and stays so; before, that took 40 s."""
    for name, seconds in (("ASK_S", 0.05), ("DOUBT_S", 0.1), ("SPREAD_S", 0.0)):
        monkeypatch.setattr(silence, name, seconds)
    setting.start()
    silent = await let_in(setting, journal, setting.relay)
    assert (await silent.receive())[0] is aiohttp.WSMsgType.PING
    second = await other.member()
    await log_in(second)
    await packets_pass(setting, second)
    assert setting.member.relay == url(other)
    assert setting.delays == []
    await journal.said("the relay says nothing: asking whether the connection holds")


async def test_one_that_answers_after_all_is_kept(
    setting: Setting, other: StagedRelay, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("ASK_S", 0.05), ("DOUBT_S", 0.1), ("SPREAD_S", 0.0)):
        monkeypatch.setattr(silence, name, seconds)
    setting.start()
    slow = await let_in(setting, journal, setting.relay)
    second = await other.member()
    payload = b""
    while not payload.startswith(b"candy-probe:"):
        kind, payload = await slow.receive()
        assert kind is aiohttp.WSMsgType.PING
    # From now on it is as quick as others.
    monkeypatch.setattr(silence, "DOUBT_S", 1e6)
    await slow.socket.pong(payload)
    await journal.said("the connection holds")
    while (await second.receive())[0] is not aiohttp.WSMsgType.CLOSE:
        pass
    await packets_pass_among_pings(setting, slow)
    assert setting.member.relay == url(setting.relay)
    # What is lost later leads to the other one, as ever.
    slow.hang_up()
    await let_in(setting, journal, other, 2)


async def packets_pass_among_pings(setting: Setting, visitor: Visitor) -> None:
    receive = visitor.receive

    async def other_than_pings() -> tuple[aiohttp.WSMsgType, object]:
        while (received := await receive())[0] is aiohttp.WSMsgType.PING:
            pass
        return received

    visitor.receive = other_than_pings  # type: ignore[method-assign]
    await packets_pass(setting, visitor)


class TestWithKeys:
    @pytest.fixture
    def relay(self, setting: Setting) -> KeyedRelay:
        return KeyedRelay(setting)

    async def entered(self, relay: KeyedRelay, journal: Journal, times: int = 1) -> KeyedVisitor:
        visitor = await relay.visitor()
        await visitor.let_in()
        await journal.said(CONNECTED, times)
        return visitor

    async def test_what_one_gave_counts_at_the_other(
        self, setting: Setting, relay: KeyedRelay, other: StagedRelay, journal: Journal
    ) -> None:
        setting.start()
        first = await self.entered(relay, journal)
        # A relay of the same network, which has the same devices.
        second = KeyedRelay(setting, relay.talk, other)
        first.visitor.hang_up()
        visitor = await self.entered(second, journal, 2)
        assert visitor.login.credential is Credential.DEVICE
        assert visitor.claim is not None
        assert first.claim is not None
        assert visitor.claim.key == first.claim.key
        assert visitor.claim.asked.instance == first.claim.asked.instance

    async def test_a_refusal_for_now_leads_to_the_next_one(
        self, setting: Setting, relay: KeyedRelay, other: StagedRelay, journal: Journal
    ) -> None:
        second = KeyedRelay(setting, relay.talk, other)
        setting.start()
        refused = await relay.visitor()
        assert await refused.read() is not None
        await refused.answer(Told(code=CloseCode.TRY_AGAIN_LATER, text="try again later"))
        refused.visitor.hang_up()
        await self.entered(second, journal)

    async def test_a_refusal_that_is_final_is_so_everywhere(
        self, setting: Setting, relay: KeyedRelay, other: StagedRelay, journal: Journal
    ) -> None:
        setting.start()
        visitor = await self.entered(relay, journal)
        await visitor.tell(Closing(CloseCode.DEVICE_REVOKED, "this device was revoked").encode())
        await visitor.close(CloseCode.DEVICE_REVOKED)
        with pytest.raises(OperationalError, match="this device was revoked"):
            await setting.staying

    async def test_what_a_relay_tells_is_remembered(
        self, setting: Setting, relay: KeyedRelay, journal: Journal
    ) -> None:
        setting.start()
        visitor = await self.entered(relay, journal)
        told = ["ws://a.test/", "http://b.test/", url(setting.relay)]
        for message in control.relays_messages(told):
            await visitor.tell(message)
        await journal.said("not gone to: the relay tells of another one, whose URL 'http://b.test/' is not a WebSocket")
        assert setting.member.relays.others == ["ws://a.test/"]
        assert MemberState(setting.folder).relays(NETWORK) == ("ws://a.test/", url(setting.relay))
        await setting.stop()
        setting.start()
        assert setting.member.relays.others == ["ws://a.test/"]
        # Of another network's relays nothing is known.
        await setting.stop()
        relay.has(setting, network=bytes(32))
        (setting.folder / "network" / "__noname__").unlink()
        setting.start()
        assert setting.member.relays.others == []

    async def test_one_that_was_told_and_is_none_of_the_network(
        self, setting: Setting, relay: KeyedRelay, journal: Journal
    ) -> None:
        """A relay that lies names one that has not got the network's key: there nobody logs in."""
        stranger = StagedRelay()
        runner = await serving(stranger)
        setting.start()
        visitor = await self.entered(relay, journal)
        [message] = control.relays_messages([url(stranger)])
        await visitor.tell(message)
        await settled(setting, visitor)
        assert setting.member.relays.others == [url(stranger)]
        visitor.visitor.hang_up()
        # It speaks as old relays do, and hears neither a password's hash nor anything else.
        assert await (await stranger.member()).receive() == (aiohttp.WSMsgType.CLOSED, None)
        await journal.said("the relay does not speak candy.3, but this member knows the network's key")
        await self.entered(relay, journal, 2)
        await setting.stop()
        stranger.end()
        await runner.cleanup()

    async def test_nobody_goes_to_one_that_was_told_without_a_key(
        self, setting: Setting, relay: KeyedRelay, journal: Journal
    ) -> None:
        """The user removes what the member knows of its network, so a first contact there would believe anybody."""
        setting.start()
        visitor = await self.entered(relay, journal)
        [message] = control.relays_messages(["ws://a.test/"])
        await visitor.tell(message)
        await settled(setting, visitor)
        (setting.folder / "network" / "__noname__").unlink()
        visitor.visitor.hang_up()
        await journal.said("ws://a.test/: a relay told of this one, and this member knows no network's key any more")
        await self.entered(relay, journal, 2)


async def settled(setting: Setting, visitor: KeyedVisitor) -> None:
    """Return once the member has acted on all that it was told."""
    count = setting.kernel.reviews
    await visitor.tell(wire.Route((), 3).encode())
    await setting.kernel.reviewed(count + 1)
