"""When packets that wait are dropped or marked: the engine's CoDel beside a slow one after RFC 8289.

A Trial compares every decision. The numbers here are reckoned by hand on top, so that no fault of the model hides the
same one of the engine. Times are in milliseconds; frames have 1,000 bytes where nothing else is said.
"""

import math
from itertools import cycle

import pytest
from kit.codel import CE, DELIVER, DROP, ECT_0, ECT_1, KEY, MARK, MS, NOT_CAPABLE, CoDel, Decision, Trial, payload_of
from kit.peer import FORWARD, SUPER
from kit.superpacket import IPIP, A, B, C, D, Vnet, ip_header, pattern, tcp, udp, with_header_checksum

from candy._fastpath import Backlog

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("carrier")]

FIRST_DROPS = [105, 205, 276, 334, 384, 429, 469, 507, 543, 576]
"""When a queue drops that is above the target from 5 on: an interval later, then after an interval divided by the
square roots of 1, 2, 3, ..."""
Times = list[tuple[int, Decision]]


def stand(
    trial: Trial,
    start: int,
    end: int,
    *,
    waiting: int = 30,
    spacing: int = 1,
    ecn: int = NOT_CAPABLE,
    sizes: tuple[int, ...] = (1000,),
) -> Times:
    """So many packets come at once, then one for each that leaves; what was decided, and when."""
    decided: Times = []
    size = cycle(sizes)
    for _ in range(waiting):
        trial.append(start * MS, next(size), ecn=ecn)
    for now in range(start + spacing, end, spacing):
        trial.append(now * MS, next(size), ecn=ecn)
        decided += [(now, one) for one in trial.take(now * MS)]
    return decided


def drain(trial: Trial, now: int, keep: int = 0) -> None:
    """All but so many leave at once."""
    while sum(len(codel.packets) for codel in trial.flows.values()) > keep:
        trial.take(now * MS)


def times(decided: Times, what: str) -> list[int]:
    return [now for now, (verdict, _) in decided if verdict == what]


@pytest.mark.parametrize("masked", [False, True])
def test_a_standing_queue_drops_faster_and_faster(masked: bool) -> None:
    decided = stand(Trial(masked=masked), 0, 600)
    assert times(decided, DROP) == FIRST_DROPS
    assert times(decided, DELIVER) == list(range(1, 600))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ecn", [ECT_0, ECT_1, CE])
def test_where_the_sender_understands_ecn_packets_are_marked_instead(ecn: int, masked: bool) -> None:
    trial = Trial(masked=masked)
    decided = stand(trial, 0, 600, ecn=ecn)
    assert times(decided, MARK) == FIRST_DROPS
    assert times(decided, DELIVER) == [now for now in range(1, 600) if now not in FIRST_DROPS]
    assert trial.backlog.drops == {}


def test_a_queue_that_drains_slowly() -> None:
    """Nothing comes any more, and every other millisecond a packet leaves, until all are gone."""
    trial = Trial()
    for _ in range(150):
        trial.append(MS)
    decided = [(now, one) for now in range(2, 600, 2) for one in trial.take(now * MS)]
    assert times(decided, DROP) == [106, 206, 278]
    assert times(decided, DELIVER) == list(range(2, 2 + 2 * 147, 2))


def test_a_queue_that_empties_within_an_interval_drops_nothing() -> None:
    trial = Trial()
    for start in range(0, 2000, 110):
        for _ in range(50):
            trial.append(start * MS)
        for now in range(start + 2, start + 102, 2):
            assert [verdict for verdict, _ in trial.take(now * MS)] == [DELIVER]
    assert trial.take(3000 * MS) == []


@pytest.mark.parametrize(("waiting", "drops"), [(4, []), (5, [105])])
def test_the_target_is_five_milliseconds(waiting: int, drops: list[int]) -> None:
    assert times(stand(Trial(), 0, 600, waiting=waiting), DROP) == drops


@pytest.mark.parametrize(("sizes", "drops"), [((757, 757), []), ((757, 758), [108])])
def test_what_has_no_more_than_a_full_packet_behind_it_is_sent(sizes: tuple[int, int], drops: list[int]) -> None:
    """However long it has waited, here 6 ms: 1,514 bytes are left, or 1,515."""
    assert times(stand(Trial(), 0, 600, waiting=2, spacing=3, sizes=sizes), DROP) == drops


@pytest.mark.parametrize(
    ("rate", "drops"), [(0, [108]), (200_000, [108]), (112_000, [111]), (110_000, [])], ids=lambda one: str(one)
)
def test_on_a_slow_link_the_time_of_one_frame_is_the_target(rate: int, drops: list[int]) -> None:
    """Frames wait 6 ms first and then 9; at this rate, bytes a second, each takes 5 ms, 8.9 and 9.1."""
    assert times(stand(Trial(rate=rate), 0, 200, waiting=3, spacing=3), DROP) == drops


@pytest.mark.parametrize(("size", "drops"), [(2_000, [106]), (20_000, [])])
def test_a_long_frame_has_a_higher_target(size: int, drops: list[int]) -> None:
    """Frames wait 6 ms first and then 12; at 1 MB/s these take 2 ms and 20."""
    decided = stand(Trial(rate=1_000_000), 0, 200, waiting=6, spacing=2, sizes=(size,))
    assert times(decided, DROP) == drops


@pytest.mark.parametrize(("pause", "gap"), [(200, 34), (1500, 34), (1503, 100), (5000, 100)])
def test_a_queue_that_comes_back_soon_goes_on_where_it_was(pause: int, gap: int) -> None:
    """Ten drops, with a count of 1 at first: within 16 intervals of the next one that was due it is 10 - 1, else 1."""
    trial = Trial()
    assert times(stand(trial, 0, 600), DROP) == FIRST_DROPS
    drain(trial, 600)
    start = 600 + pause
    first, second, *_ = times(stand(trial, start, start + 250), DROP)
    assert (first, second) == (start + 105, start + 105 + gap)


def test_a_queue_that_comes_back_again_goes_on_from_where_it_was_then() -> None:
    """The second time it begins with 9 and counts two more drops. So the third time it begins with 2."""
    trial = Trial()
    stand(trial, 0, 600)
    drain(trial, 600)
    assert times(stand(trial, 800, 960), DROP) == [905, 939]
    trial.take(970 * MS)
    drain(trial, 970)
    first, second, *_ = times(stand(trial, 1200, 1400), DROP)
    assert (first, second) == (1305, 1305 + 71)


def test_an_empty_flow_is_forgotten_where_another_takes_its_place() -> None:
    """Difference 4: the next flow of its set does, though there are free places. The pause is that of 34 above."""
    trial = Trial()
    stand(trial, 0, 600)
    [place] = trial.backlog.places
    drain(trial, 600)
    assert trial.take(600 * MS) == []
    other = next(flow for flow in range(2, 1000) if place_alone(flow) == place)
    trial.append(700 * MS, flow=other)
    assert list(trial.backlog.places) == [place]
    assert trial.take(700 * MS) == [(DELIVER, 0)]
    trial.flows[1] = CoDel()
    assert times(stand(trial, 800, 1050), DROP) == [905, 1005]


def place_alone(flow: int) -> int:
    """Where a flow's packet waits when it is the only one."""
    backlog = Backlog(key=KEY)
    backlog.append(payload_of(flow, 0, 100, NOT_CAPABLE), MS)
    [place] = backlog.places
    return place


def test_the_last_drop_of_a_row_sets_no_time_for_another() -> None:
    """The eleventh drop, due at 607, leaves too little behind it. At 2,220 that is more than 16 intervals ago; the
    twelfth would have been due 30 ms later."""
    trial = Trial()
    stand(trial, 0, 600)
    drain(trial, 606, keep=3)
    assert [verdict for verdict, _ in trial.take(608 * MS)] == [DROP, DELIVER]
    drain(trial, 608)
    assert times(stand(trial, 2115, 2400), DROP)[:2] == [2220, 2320]


def test_a_queue_that_was_emptied_otherwise_is_no_longer_above_the_target() -> None:
    """For want of memory, in the midst of drops. What comes next is above it at the first look, and for an interval."""
    trial = Trial()
    stand(trial, 0, 600)
    trial.shed()
    assert trial.take(600 * MS) == []
    assert times(stand(trial, 900, 1100, spacing=6), DROP)[:1] == [1008]


@pytest.mark.parametrize("sizes", [(1000,), (500, 3000, 2000)])
@pytest.mark.parametrize("ecn", [NOT_CAPABLE, ECT_0])
def test_a_packet_that_waits_for_the_next_send_is_judged_once(ecn: int, sizes: tuple[int, ...]) -> None:
    """What the kernel is handed has room for four frames of these. The fifth, marked, waits for the next time."""
    trial = Trial()
    stand(trial, 0, 600, waiting=300, ecn=ecn, sizes=sizes)
    decided: list[Decision] = []
    while one := trial.commit(1000 * MS):
        decided += one
    kinds = [verdict for verdict, _ in decided]
    assert kinds.count(DROP if ecn == NOT_CAPABLE else MARK) > 10
    trial.check()
    assert trial.backlog.places == {}


def test_a_clock_that_jumps() -> None:
    """All drops that were due in the meantime happen at once; of packets that can be marked only one."""
    due = sum(105 + sum(100 / math.sqrt(k) for k in range(1, n)) <= 1600 for n in range(1, 1000))
    trial = Trial()
    stand(trial, 0, 600, waiting=300)
    assert [verdict for verdict, _ in trial.take(1600 * MS)] == [DROP] * (due - 10) + [DELIVER]
    # So much later that all but the last two are dropped. Then back.
    assert trial.take(100_000 * MS)[-1] == (DELIVER, 897)
    assert trial.take(99_000 * MS) == [(DELIVER, 898)]
    trial = Trial()
    stand(trial, 0, 600, waiting=300, ecn=ECT_0)
    assert [verdict for verdict, _ in trial.take(1600 * MS)] == [MARK]


def test_a_flow_beside_a_standing_queue_loses_nothing() -> None:
    trial = Trial()
    for _ in range(30):
        trial.append(0)
    bulk: Times = []
    sparse: list[str] = []
    for now in range(1, 600):
        trial.append(now * MS)
        bulk += [(now, one) for one in trial.take(now * MS)]
        if now % 10 == 0:
            trial.append(now * MS, 200, flow=2)
            sparse += [verdict for verdict, _ in trial.take(now * MS)]
    assert times(bulk, DROP)
    assert sparse == [DELIVER] * 59


# Marks: a packet's own header, or the inner one of what we wrapped.

DATA = pattern(1200)
OUTER = ip_header(1228, IPIP, A, B)
OLD_CLIENTS = bytes(9) + bytes([IPIP]) + bytes(2) + OUTER[12:20]
VNET = bytes(Vnet(gso_type=1, hdr_len=40, gso_size=500, csum_offset=16))


def with_ecn(packet: bytes, ecn: int, at: int = 0) -> bytes:
    """Set it in the header that begins there."""
    header = bytearray(packet[at : at + (packet[at] & 15) * 4])
    header[1] = header[1] & 0xFC | ecn
    return packet[:at] + with_header_checksum(bytes(header)) + packet[at + len(header) :]


def condemned(payload: bytes, masked: bool) -> tuple[bytes | None, dict[str, int]]:
    """The payload that leaves when many of these have waited too long, if it was marked, and what was dropped."""
    backlog = Backlog(key=KEY, masked=masked)
    for _ in range(4 + 2000 // len(payload)):
        backlog.append(payload, MS)
    assert backlog.take(10 * MS) == payload
    left = backlog.take(110 * MS)
    assert backlog.take(110 * MS) == payload
    return left, backlog.drops


MARKED = {
    "a datagram": (FORWARD, udp(DATA), 0),
    "with a traffic class": (FORWARD, b"\x45\xb8" + udp(DATA)[2:], 0),
    "with options": (FORWARD, ip_header(1200, 50, A, B, options=b"\x01" * 8) + DATA, 0),
    "a super-packet": (SUPER + VNET, tcp(DATA), 0),
    "wrapped": (FORWARD, OUTER + udp(DATA, source=C, to=D), 20),
    "wrapped by an old client": (FORWARD, OLD_CLIENTS + udp(DATA, source=C, to=D), 20),
    "a super-packet, wrapped": (SUPER + VNET, ip_header(1240, IPIP, A, B) + tcp(DATA, source=C, to=D), 20),
    "the user's own IPIP": (FORWARD, ip_header(1228, IPIP, A, B, number=7) + udp(DATA), 0),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ecn", [ECT_0, ECT_1])
@pytest.mark.parametrize("name", MARKED)
def test_a_mark_has_its_header_and_a_right_checksum(name: str, ecn: int, masked: bool) -> None:
    before, packet, at = MARKED[name]
    sent = before + with_ecn(packet, ecn, at)
    assert condemned(sent, masked) == (before + with_ecn(packet, CE, at), {})


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", MARKED)
def test_who_does_not_understand_marks_loses_the_packet(name: str, masked: bool) -> None:
    before, packet, at = MARKED[name]
    sent = before + with_ecn(packet, NOT_CAPABLE, at)
    assert condemned(sent, masked) == (sent, {"delay": 1})


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "packet",
    [
        b"\x65\x02" + udp(DATA)[2:],
        with_ecn(OUTER, ECT_0) + udp(DATA, source=C, to=D),
        with_ecn(OUTER, ECT_0) + b"\x65\x02" + DATA,
        ip_header(19, IPIP, A, B) + b"\x45\x02" + bytes(17),
        ip_header(0, IPIP, A, B),
    ],
    ids=["version 6", "only outside", "version 6 inside", "half a header inside", "nothing inside"],
)
def test_no_header_to_mark(packet: bytes, masked: bool) -> None:
    assert condemned(FORWARD + packet, masked) == (FORWARD + packet, {"delay": 1})


@pytest.mark.parametrize("masked", [False, True])
def test_no_mark_in_what_members_tell_each_other(masked: bool) -> None:
    general = b"\xff" + with_ecn(udp(DATA), ECT_0)
    assert condemned(general, masked) == (general, {"delay": 1})
