"""What carries sealed sessions out: members whose engines are recorded, and a relay by hand between them."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest
from kit.primitives import PRIMITIVES, pair
from kit.sealing_engine import TUN, Recorded

from candy._fastpath import EVENT_CLEAR, EVENT_CONFIRMED, EVENT_GROUPED, EVENT_NOTED, EVENT_PONG, EVENT_WANTED
from candy.member.conversation import Admitted, NetworkChanged, Shake, Tell
from candy.member.sealing import Sealing
from candy.member.state import MemberState
from candy.protocol import control
from candy.protocol.actions import Drop, Log, Send
from candy.protocol.control import Peer, State
from candy.protocol.handshake import HANDSHAKE
from candy.protocol.keys import fingerprint
from candy.protocol.login import Asks
from candy.protocol.noise import KeyPair
from candy.protocol.secret import Secret
from candy.sealing.sealer import Said
from candy.sealing.seals import Seal, Way

A, B = (IPv4Address(f"10.0.0.{last}") for last in (1, 2))
KEYS = {A: pair(bytes([1]) * 32), B: pair(bytes([2]) * 32)}
NETWORK, OTHER_NETWORK = bytes([0x21]) * 32, bytes([0x22]) * 32
RELAY = 9


class Node:
    """One member."""

    def __init__(self, folder: Path, address: IPv4Address, seal: Seal = Seal.PREFER, secret: Secret | None = None):
        self.address = address
        self.folder = folder
        self.engine = Recorded()
        self.said: list[Said] = []
        self.now = 1000.0
        self.state = MemberState(folder)
        self.sealing = Sealing(
            Asks(0),
            seal,
            secret,
            self.state,
            self.engine,  # type: ignore[arg-type]
            TUN,
            self.said.append,
            now=lambda: self.now,
            wall=lambda: 1_800_000_000 * 10**9,
        )

    async def join(self, connection: int = RELAY, device: KeyPair | None = None) -> None:
        device = device or KEYS[self.address]
        lease = self.address.packed * 2
        await self.sealing.perform(
            Admitted(
                connection=connection,
                device=device,
                address=self.address,
                lease=lease,
                network=NETWORK,
                checks_source=True,
                allows_links=True,
            )
        )

    async def tell(self, address: IPv4Address, key: bytes | None = None, state: State = State.SEALS) -> None:
        key = KEYS[address].public if key is None else key
        peer = Peer(address, state, 0, address.packed * 2, 65535, key, 1)
        await self.sealing.perform(Tell(control.Tell((peer,))))

    def sent(self, kind: int) -> list[bytes]:
        """What it has had sent of this kind since the last call of this."""
        found = [said for said in self.said if isinstance(said, Send) and said.payload[0] == kind]
        self.said[:] = [said for said in self.said if said not in found]
        return [send.payload for send in found]

    def happens(self, kind: int, detail: bytes) -> bool:
        return self.sealing.on_event(TUN, kind, detail)


@pytest.fixture
def one(tmp_path: Path) -> Node:
    return Node(tmp_path / "one", A)


@pytest.fixture
def other(tmp_path: Path) -> Node:
    return Node(tmp_path / "other", B)


async def agree(one: Node, other: Node) -> tuple[int, int]:
    """A session from the first packet on; the number that each has."""
    await one.join()
    await other.join()
    assert one.happens(EVENT_WANTED, B.packed)
    [ask] = one.sent(control.Kind.ASK)
    assert control.decode(ask) == control.Ask((B,))
    await one.tell(B)
    [first] = one.sent(HANDSHAKE)
    await other.sealing.perform(Shake(first))
    await other.tell(A)
    other.now += 0.1
    other.sealing.go_on()
    [second] = other.sent(HANDSHAKE)
    await one.sealing.perform(Shake(second))
    [ours], [theirs] = one.engine.all("install"), other.engine.all("install")
    return ours["local"], theirs["local"]


async def test_a_session_is_installed_at_both_ends(one: Node, other: Node) -> None:
    assert one.sealing.delay == float("inf")
    local, remote = await agree(one, other)
    [ours], [theirs] = one.engine.all("install"), other.engine.all("install")
    assert (ours["remote"], theirs["remote"]) == (remote, local)
    assert (ours["peer"], theirs["peer"]) == (int(B), int(A))
    assert (ours["sends"], ours["receives"]) == (theirs["receives"], theirs["sends"])
    assert (ours["confirmed"], theirs["confirmed"]) == (True, False)
    assert ours["sends_until"] < ours["opens_until"]
    assert one.engine.done[0] == ("set_sealing", {"sealing": 1, "own": int(A), "checks_source": True})
    assert (one.engine.all("set_peer")[-1]["way"], one.engine.all("set_peer")[-1]["session"]) == (Way.SEAL, local)
    # What waited goes first, an empty packet behind it.
    assert one.engine.done[-1] == ("send_sealed", {"local": local, "body": b""})
    assert [(address, way, who and who.key) for address, way, who in one.sealing.members()] == [
        (B, Way.SEAL, KEYS[B].public)
    ]
    assert [way for _, way, _ in other.sealing.members()] == [Way.WAIT]
    assert other.happens(EVENT_CONFIRMED, remote.to_bytes(4, "big"))
    assert [way for _, way, _ in other.sealing.members()] == [Way.SEAL]


async def test_its_time_is_written_before_the_message_that_has_it(
    one: Node, other: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    said_before: list[int] = []
    keep = one.state.keep_stamp

    def note(content: bytes) -> None:
        said_before.append(sum(isinstance(said, Send) for said in one.said))
        keep(content)

    monkeypatch.setattr(one.state, "keep_stamp", note)
    await agree(one, other)
    # Nothing but the ASK, which is read by then.
    assert said_before == [0]
    # The next start goes on from there.
    assert not MemberState(one.folder).stamps().is_damaged
    assert (one.folder / "handshake" / "__noname__").stat().st_mode & 0o777 == 0o600


async def test_pins_are_kept_and_another_key_is_refused_until_it_is_forgotten(one: Node, other: Node) -> None:
    await agree(one, other)
    one.sealing.end()
    assert (one.folder / "pins" / "__noname__").stat().st_mode & 0o777 == 0o600
    again = Node(one.folder, A)
    await again.join()
    assert again.happens(EVENT_WANTED, B.packed)
    await again.tell(B, pair(bytes([3]) * 32).public)
    assert again.engine.all("set_peer")[-1]["way"] == Way.KEY_REFUSED
    [line] = [said.text for said in again.said if isinstance(said, Log)]
    assert fingerprint(KEYS[B].public) in line
    assert f"candy-client forget {B}" in line
    assert again.sealing.forget(B)
    assert again.engine.all("set_peer")[-1]["way"] == Way.WAIT
    assert not again.sealing.forget(B)


async def test_a_damaged_file_is_said_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for kind in ("pins", "handshake"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "__noname__").write_text("nonsense\n")
    await Node(tmp_path, A).join()
    assert [record.message.partition("__noname__")[2] for record in caplog.records] == [
        ": 1 lines hold no lease and its key: not used",
        " holds no time: not used",
    ]


async def test_what_is_no_event_about_sealing_is_left_to_others(one: Node) -> None:
    await one.join()
    assert not one.happens(EVENT_PONG, b"x")
    assert not one.sealing.on_event(TUN + 1, EVENT_WANTED, B.packed)


async def test_who_speaks_in_the_clear_is_asked_about(one: Node) -> None:
    await one.join()
    assert one.happens(EVENT_CLEAR, B.packed)
    assert [control.decode(ask) for ask in one.sent(control.Kind.ASK)] == [control.Ask((B,))]


async def test_a_note_is_given_to_the_session_that_brought_it(one: Node, other: Node) -> None:
    local, _ = await agree(one, other)
    assert one.happens(EVENT_NOTED, local.to_bytes(4, "big") + b"\x80\x01short")
    assert one.said[-1].__class__.__name__ == "Drop"


async def test_a_connection_that_does_not_lead_may_end(one: Node, other: Node) -> None:
    await agree(one, other)
    await one.join(RELAY + 1)
    one.said.clear()
    one.sealing.lost(RELAY)
    assert one.happens(EVENT_CLEAR, bytes([10, 0, 0, 9]))
    assert [said.connection for said in one.said if isinstance(said, Send)] == [RELAY + 1]
    # Without one there is nobody to ask.
    one.sealing.lost(RELAY + 1)
    one.said.clear()
    assert one.happens(EVENT_CLEAR, bytes([10, 0, 0, 8]))
    assert one.said == []


async def test_another_device_has_no_sessions_of_the_one_before(one: Node, other: Node) -> None:
    local, _ = await agree(one, other)
    await one.join(RELAY + 1, pair(bytes([4]) * 32))
    assert one.engine.all("remove_session") == [{"local": local}]
    assert list(one.sealing.members()) == []


async def test_time_brings_what_is_due(one: Node, other: Node) -> None:
    local, _ = await agree(one, other)
    count = len(one.engine.done)
    one.sealing.go_on()
    assert len(one.engine.done) == count
    one.now += 200
    one.engine.carried = [(local, 100, one.now - 100, 0.0, one.now - 100, 0.0)]
    assert one.sealing.delay == 0
    one.sealing.go_on()
    assert one.engine.all("remove_session") == [{"local": local}]


async def test_a_secret_that_is_a_text_is_one_under_each_key_of_the_network(tmp_path: Path) -> None:
    secret = Secret(None, b"a text")
    one, other = (Node(tmp_path / str(at), at, Seal.REQUIRE, secret) for at in (A, B))
    await agree(one, other)
    assert one.engine.done[0][1]["sealing"] == 2
    await one.sealing.perform(NetworkChanged(OTHER_NETWORK))
    one.now += 200
    one.sealing.go_on()
    assert one.happens(EVENT_WANTED, B.packed)
    await one.tell(B)
    *_, first = one.sent(HANDSHAKE)
    # The other has not heard of it.
    other.now += 200
    other.sealing.go_on()
    other.said.clear()
    await other.sealing.perform(Shake(first))
    other.now += 1
    other.sealing.go_on()
    assert other.sent(HANDSHAKE) == []


async def test_under_a_secret_groups_are_sealed_and_opened(tmp_path: Path) -> None:
    """What one member's engine seals by, another's opens by, once its own Python has seen that it opens."""
    secret = Secret(bytes([7]) * 32, b"")
    one, other = (Node(tmp_path / str(at), at, Seal.REQUIRE, secret) for at in (A, B))
    await agree(one, other)
    [ours] = one.engine.all("seal_groups")
    clear = b"\x13\0\0\0" + A.packed + IPv4Address("224.0.0.1").packed + ours["epoch"] + bytes(8)
    message = clear + PRIMITIVES.seal(ours["key"], bytes(12), clear, b"a packet")
    changed = message[:-1] + bytes([message[-1] ^ 1])
    assert other.happens(EVENT_GROUPED, changed)
    assert other.said[-1] == Drop(RELAY, "bad_seal")
    assert other.engine.all("open_group") == []
    assert other.happens(EVENT_GROUPED, message)
    opened = {"source": int(A), "epoch": ours["epoch"], "key": ours["key"]}
    assert other.engine.all("open_group") == [{**opened, "message": message}]
    # It ends with the lease.
    await other.tell(A, state=State.NOBODY, key=bytes(32))
    assert other.engine.all("close_group") == [{"source": int(A), "epoch": ours["epoch"]}]


async def test_without_a_secret_the_engine_is_told_so(one: Node) -> None:
    await one.join()
    assert one.engine.all("seal_groups") == [{"epoch": b"", "key": b"", "label_key": bytes(16)}]


async def test_a_table_that_is_full_ends_nothing(one: Node) -> None:
    await one.join()
    one.engine.is_full = True
    assert one.happens(EVENT_WANTED, B.packed)
    await one.tell(B, state=State.CLEAR, key=bytes(32))
    assert one.engine.all("set_peer") == []


async def test_before_a_log_in_with_a_key_there_is_nothing_to_do(one: Node) -> None:
    await one.tell(B)
    await one.sealing.perform(Shake(bytes(200)))
    await one.sealing.perform(NetworkChanged(OTHER_NETWORK))
    one.sealing.go_on()
    one.sealing.end()
    one.sealing.lost(RELAY)
    assert not one.sealing.forget(B)
    assert (one.engine.done, one.said, list(one.sealing.members())) == ([], [], [])


async def test_other_settings_count_at_once_and_sessions_go_on_that_may(one: Node, other: Node) -> None:
    local, _ = await agree(one, other)
    one.sealing.change(Seal.REQUIRE, None)
    assert one.sealing.flags == Asks.REQUIRES_SEALING
    assert one.engine.all("set_sealing")[-1]["sealing"] == 2
    assert one.engine.all("remove_session") == []
    one.sealing.change(Seal.PREFER, None)
    assert (one.sealing.flags, one.engine.all("set_sealing")[-1]["sealing"]) == (Asks(0), 1)
    one.sealing.change(Seal.OFF, None)
    assert (one.sealing.flags, one.engine.all("set_sealing")[-1]["sealing"]) == (Asks.SEALS_NOTHING, 0)
    assert one.engine.all("remove_session") == [{"local": local}]
    assert list(one.sealing.members()) == []
    # It begins anew.
    one.sealing.change(Seal.PREFER, None)
    assert one.happens(EVENT_WANTED, B.packed)
    await one.tell(B)
    assert len(one.sent(HANDSHAKE)) == 1


async def test_another_secret_ends_what_was_agreed_on_by_the_one_before(tmp_path: Path) -> None:
    first, second = (Secret(bytes([n]) * 32) for n in (1, 2))
    one, other = (Node(tmp_path / str(at), at, Seal.REQUIRE, first) for at in (A, B))
    local, _ = await agree(one, other)
    one.sealing.change(Seal.REQUIRE, first)
    assert one.engine.all("remove_session") == []
    one.sealing.change(Seal.REQUIRE, second)
    assert one.engine.all("remove_session") == [{"local": local}]
    await one.join(RELAY + 1)
    assert one.happens(EVENT_WANTED, B.packed)
    await one.tell(B)
    *_, shake = one.sent(HANDSHAKE)
    # The other has the one before: what it answers does not open.
    await other.sealing.perform(Shake(shake))
    other.now += 2
    other.sealing.go_on()
    await one.sealing.perform(Shake(other.sent(HANDSHAKE)[-1]))
    assert len(one.engine.all("install")) == 1
    assert "another secret" in one.said[-1].text  # type: ignore[union-attr]
