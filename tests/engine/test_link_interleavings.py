"""Orders of events at direct links that happen once in a million times: see test_interleavings.py."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kit.held import let_go
from kit.linked import Datagram, linked, packed, udp
from kit.old_linked import LONGEST, PEER_KEY, opened, three
from kit.peer import FORWARD, packet
from kit.sealing import CLEAR
from kit.superpacket import A, B, C, pattern

from candy._fastpath import EVENT_QUIET, EVENT_WANTED, hold_at, release, replaced_tables, wait_held

pytestmark = pytest.mark.engine

OUT, BACK = packet(A, B, b"out"), packet(B, A, b"back")
D = C + 1


@pytest.fixture(autouse=True)
def _let_go() -> Iterator[None]:
    """Nothing that one test has held is held in the next."""
    yield
    let_go()


def test_a_path_is_replaced_while_it_is_used() -> None:
    """The packet leaves by the path that was there, whose memory is not given back before."""
    with linked() as one, udp() as elsewhere:
        hold_at("path")
        one.device.kernel.send(OUT)
        assert wait_held("path")
        name = elsewhere.getsockname()
        one.path(to=(name[0], name[1]))
        assert replaced_tables(one.engine) == 1
        release("path")
        assert one.went().plain == OUT
        one.device.kernel.send(OUT)
        assert one.read(elsewhere.recv(65536)).plain == OUT
        one.path()
        one.device.kernel.send(OUT)
        assert one.went().plain == OUT


def test_a_path_and_its_peer_are_forgotten_while_it_is_used() -> None:
    with linked() as one:
        hold_at("path")
        one.device.kernel.send(OUT)
        assert wait_held("path")
        assert one.engine.forget_peer(one.device.tun, B)
        assert replaced_tables(one.engine) == 2
        release("path")
        assert one.went().plain == OUT


def test_a_packet_comes_while_those_that_waited_are_about_to_leave() -> None:
    """It leaves behind them."""
    with linked(with_path=False) as one, ThreadPoolExecutor(1) as python:
        one.engine.set_peer(one.device.tun, B, 0)
        one.engine.set_peer(one.device.tun, C, CLEAR)
        one.device.kernel.send(packet(A, B, b"first"))
        assert one.told(EVENT_WANTED) == [B.to_bytes(4, "big")]
        one.path()
        hold_at("opened")
        opening = python.submit(one.device.seal_with, one.one)
        assert wait_held("opened")
        one.device.kernel.send(packet(A, B, b"second"))
        # One that goes by the relay, in the clear, behind it.
        assert one.device.sends(packet(A, C)).payload == FORWARD + packet(A, C)
        release("opened")
        opening.result()
        assert [one.went().plain for _ in range(2)] == [packet(A, B, b"first"), packet(A, B, b"second")]


def test_two_calls_of_one_turn_are_refused() -> None:
    """Python is told once that nothing goes by the path."""
    with linked() as one:
        one.path(to=("10.9.9.9", 9))
        hold_at("path")
        one.device.kernel.send(OUT)
        assert wait_held("path")
        # A longer one behind it goes in a call of its own.
        one.device.kernel.send(packet(A, B, b"longer than the first"))
        release("path")
        assert one.told(EVENT_QUIET) == [B.to_bytes(4, "big")]
        out = packet(A, B, b"by the relay")
        assert one.one.went(one.device.sends(out).payload).packet == out
        assert one.device.told(EVENT_QUIET) == [B.to_bytes(4, "big")]
        assert one.device.relay.dropped() == {"link_refused": 2}


def test_a_session_is_removed_while_it_is_about_to_seal() -> None:
    """Its keys are overwritten: the worker finds none, or, where it has looked already, drops the packet."""
    with linked() as one:
        hold_at("path")
        one.device.kernel.send(OUT)
        assert wait_held("path")
        assert one.engine.remove_session(one.device.tun, one.one.local)
        release("path")
        one.device.server.sync()
        one.peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.peer.recv(1)


def test_a_session_is_removed_while_a_batch_is_about_to_be_opened() -> None:
    with linked() as one:
        other = one.one.__class__(A, B, one.one.local + 1, 7, bytes([3]) * 32, bytes([4]) * 32)
        other.install(one.engine, one.device.tun)
        hold_at("came")
        one.comes(BACK)
        assert wait_held("came")
        assert one.engine.remove_session(one.device.tun, one.one.local)
        release("came")
        one.peer.sendto(Datagram(other.local, 0, BACK).seal(other.receives), one.own)
        assert one.device.reads() == BACK
        assert one.device.relay.dropped() == {"link_no_session": 1}


def test_a_link_is_closed_while_its_device_is_about_to_send() -> None:
    """Its worker closes it behind that: the packet leaves, and no later one."""
    with linked() as one:
        hold_at("path")
        one.device.kernel.send(OUT)
        assert wait_held("path")
        assert one.engine.close_link(one.link)
        assert not one.engine.send_by(one.device.tun, 1, one.link, *packed(one.there))
        release("path")
        assert one.went().plain == OUT
        assert one.device.relay.cause(one.link) == "local"
        assert one.one.went(one.device.sends(OUT).payload).packet == OUT


def test_a_link_is_closed_while_what_came_is_about_to_be_opened() -> None:
    with linked() as one:
        hold_at("came")
        one.comes(BACK)
        assert wait_held("came")
        assert one.engine.close_link(one.link)
        release("came")
        assert one.device.reads() == BACK
        assert one.device.relay.cause(one.link) == "local"


def test_more_is_sent_on_in_a_turn_than_a_batch_takes() -> None:
    """The batch leaves while others that were received with the last of them are yet to be looked at."""
    with three() as (one, third), udp() as fourth:
        name = fourth.getsockname()
        one.engine.set_peer(one.tun, D, CLEAR, takes_clear=True)
        one.engine.set_old_path(one.tun, D, one.link, *packed((name[0], name[1])), PEER_KEY, LONGEST)
        hold_at("came")
        one.comes(FORWARD + packet(B, A, b"the first"))
        assert wait_held("came")
        packets = [(packet(B, C, flow=number), packet(B, D, pattern(number))) for number in range(60)]
        for pair in packets:
            for each in pair:
                one.comes(FORWARD + each)
        release("came")
        one.device.reads()
        assert [(third.went(), opened(fourth.recv(65536), PEER_KEY)) for _ in packets] == [
            (FORWARD + to_c, FORWARD + to_d) for to_c, to_d in packets
        ]
        assert one.dropped() == {}
