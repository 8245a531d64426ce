"""Two members that want the same address, in memory."""

import pytest
from kit.talk import FAILED, ONE, TAKEN_OVER, TWO, Talk, ip

from candy.protocol import wire
from candy.protocol.actions import Close, Send
from candy.relay.session import Bind, Unbind


def test_the_same_vmac_replaces_the_holder_at_once(talk: Talk) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, actions = talk.newcomer(ip(7), ONE)
    assert actions == [Unbind(holder), Close(holder, 4001, TAKEN_OVER), Bind(newcomer, int(ip(7)))]
    assert talk.logged("replaced at 192.168.202.7 by 203.0.113.2, which has the same VMAC")
    assert talk.close(holder) == []
    sender = talk.member(ip(8))
    message = wire.Discovery(ip(8), ip(7)).encode()
    assert talk.receive(sender, message) == [Send(newcomer, message)]


def test_a_dynamic_member_that_comes_back_before_its_old_connection_is_found_dead(talk: Talk) -> None:
    old = talk.member(ip(7), ONE)
    new = talk.open()
    assert talk.vmac(new, ONE) == []
    assert talk.granted(new, "192.168.202.7/24") == "192.168.202.7/24"
    talk.wall += 1
    assert talk.auth(new, ip(7)) == [Unbind(old), Close(old, 4001, TAKEN_OVER), Bind(new, int(ip(7)))]


@pytest.mark.parametrize(("one", "other"), [(None, None), (ONE, None), (None, ONE), (ONE, TWO)])
def test_a_holder_that_answers_stays(talk: Talk, one: bytes | None, other: bytes | None) -> None:
    holder = talk.member(ip(7), one)
    newcomer, payload = talk.contest(ip(7), holder, other)
    assert payload.startswith(b"candy-probe:")
    assert talk.network.next_deadline() == 1003.0
    talk.now += 2.9
    assert talk.pong(holder, payload) == [Close(newcomer, None, FAILED)]
    assert talk.logged("refused: 192.168.202.7 is held by 203.0.113.1, which answers")
    assert talk.network.next_deadline() is None
    assert talk.auth(newcomer, ip(8)) == []
    assert talk.pong(holder, payload) == []


@pytest.mark.parametrize(("one", "other"), [(None, None), (ONE, None), (None, ONE), (ONE, TWO)])
def test_a_holder_that_is_silent_is_replaced(talk: Talk, one: bytes | None, other: bytes | None) -> None:
    holder = talk.member(ip(7), one)
    newcomer, payload = talk.contest(ip(7), holder, other)
    talk.now += 2.999
    assert talk.expire() == []
    talk.now = 1003.0
    assert talk.expire() == [
        Unbind(holder),
        Close(holder, 4001, TAKEN_OVER),
        Bind(newcomer, int(ip(7))),
    ]
    assert talk.logged("replaced at 192.168.202.7 by 203.0.113.2, because it did not answer a ping")
    assert talk.pong(holder, payload) == []
    assert talk.network.next_deadline() is None


def test_the_probe_time_is_an_option_and_may_end_after_the_authentication_deadline() -> None:
    talk = Talk(probe_timeout=20.0)
    holder = talk.member(ip(7))
    newcomer, _ = talk.contest(ip(7), holder)
    talk.now += 19.9
    assert talk.expire() == []
    talk.now += 0.1
    assert Bind(newcomer, int(ip(7))) in talk.expire()


def test_only_the_probe_s_own_pong_from_its_holder_is_an_answer() -> None:
    counter = iter(range(1000))
    talk = Talk(randbytes=lambda count: next(counter).to_bytes(count))
    holder = talk.member(ip(7))
    newcomer, payload = talk.contest(ip(7), holder)
    bystander = talk.member(ip(8))
    assert talk.pong(holder, b"") == []
    assert talk.pong(holder, payload + b"\0") == []
    assert talk.pong(bystander, payload) == []
    assert talk.pong(newcomer, payload) == []
    assert talk.close(newcomer) == []
    second, later = talk.contest(ip(7), holder)
    assert later != payload
    assert talk.pong(holder, payload) == []
    assert talk.pong(holder, later) == [Close(second, None, FAILED)]


def test_a_newcomer_that_gives_up_leaves_the_holder_alone(talk: Talk) -> None:
    holder = talk.member(ip(7))
    newcomer, payload = talk.contest(ip(7), holder)
    assert talk.close(newcomer) == []
    assert talk.network.next_deadline() is None
    talk.now += 3
    assert talk.expire() == []
    assert talk.pong(holder, payload) == []
    message = wire.Discovery(ip(7), ip(8)).encode()
    other = talk.member(ip(8))
    assert talk.receive(holder, message) == [Send(other, message)]


def test_a_holder_that_goes_leaves_the_address_to_the_one_who_waits(talk: Talk) -> None:
    holder = talk.member(ip(7))
    newcomer, _ = talk.contest(ip(7), holder)
    assert talk.close(holder) == [Bind(newcomer, int(ip(7)))]
    assert talk.network.next_deadline() is None


def test_a_third_is_refused_while_one_waits(talk: Talk) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, payload = talk.contest(ip(7), holder, TWO)
    third, actions = talk.newcomer(ip(7))
    assert actions == [Close(third, None, FAILED)]
    assert talk.logged("another newcomer waits for 192.168.202.7 already")
    assert talk.pong(holder, payload) == [Close(newcomer, None, FAILED)]


def test_a_third_with_the_vmac_of_the_one_waiting_takes_its_place_and_its_time(talk: Talk) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, payload = talk.contest(ip(7), holder, TWO)
    talk.now += 2
    third, actions = talk.newcomer(ip(7), TWO)
    assert actions == [Close(newcomer, None, FAILED)]
    assert talk.close(newcomer) == []
    assert talk.network.next_deadline() == 1003.0
    talk.now += 1
    assert talk.expire() == [Unbind(holder), Close(holder, 4001, TAKEN_OVER), Bind(third, int(ip(7)))]
    assert talk.pong(holder, payload) == []


def test_a_third_with_the_vmac_of_the_holder_replaces_it_and_ends_the_wait(talk: Talk) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, payload = talk.contest(ip(7), holder, TWO)
    third, actions = talk.newcomer(ip(7), ONE)
    assert actions == [
        Close(newcomer, None, FAILED),
        Unbind(holder),
        Close(holder, 4001, TAKEN_OVER),
        Bind(third, int(ip(7))),
    ]
    assert talk.network.next_deadline() is None
    assert talk.pong(third, payload) == []


def test_a_silent_holder_that_came_back_by_expttun_keeps_its_address(talk: Talk) -> None:
    holder = talk.member(ip(7), ONE)
    newcomer, _ = talk.contest(ip(7), holder, TWO)
    back = talk.open()
    assert talk.vmac(back, ONE) == []
    assert talk.granted(back, "192.168.202.7/24") == "192.168.202.7/24"
    talk.now += 3
    assert talk.expire() == [
        Unbind(holder),
        Close(holder, 4001, TAKEN_OVER),
        Close(newcomer, None, FAILED),
    ]
    talk.wall += 1
    assert talk.auth(back, ip(7)) == [Bind(back, int(ip(7)))]


def test_conflicts_over_two_addresses_do_not_meet() -> None:
    counter = iter(range(1000))
    talk = Talk(randbytes=lambda count: next(counter).to_bytes(count))
    seven, eight = talk.member(ip(7)), talk.member(ip(8))
    wants_seven, payload = talk.contest(ip(7), seven)
    talk.now += 1
    wants_eight, _ = talk.contest(ip(8), eight)
    assert talk.pong(eight, payload) == []
    assert talk.pong(seven, payload) == [Close(wants_seven, None, FAILED)]
    assert talk.network.next_deadline() == 1004.0
    talk.now = 1004.0
    assert talk.expire() == [Unbind(eight), Close(eight, 4001, TAKEN_OVER), Bind(wants_eight, int(ip(8)))]
