"""How two relays get to know each other on a link: who is believed, and what they agree on."""

from collections.abc import Mapping

import pytest

from candy.primitives import NOISE, key_pair
from candy.relay.cluster.linklogin import CONTROL, Identity, LinkError, LinkLogin, Step

PSK = bytes([7]) * 32
EU, US, AP = (key_pair(bytes([n]) * 32) for n in (1, 2, 3))
KEYS = {"eu": EU.public, "us": US.public}


def identity(name: str, words: list[str], *, psk: bytes = PSK) -> Identity:
    return Identity(name, {"eu": EU, "us": US, "ap": AP}[name], psk, words, NOISE)


def dialing(own: Identity, keys: Mapping[str, bytes] = KEYS, peer: str = "eu") -> LinkLogin:
    return LinkLogin(own, keys.get, lambda: key_pair(bytes([101]) * 32), peer)


def dialed(own: Identity, keys: Mapping[str, bytes] = KEYS) -> LinkLogin:
    return LinkLogin(own, keys.get, lambda: key_pair(bytes([102]) * 32))


def talk(one: LinkLogin, other: LinkLogin) -> tuple[list[Step], list[Step], list[bytes]]:
    """All of it: what follows at who has dialed, at who was, and the messages in their order."""
    sides: tuple[tuple[LinkLogin, list[Step]], ...] = ((other, []), (one, []))
    sent, waiting, turn = [], [one.begin()], 0
    while waiting:
        receiver, steps = sides[turn]
        answers: list[bytes] = []
        for message in waiting:
            sent.append(message)
            step = receiver.received(message)
            steps.append(step)
            answers += step.messages
        waiting, turn = answers, 1 - turn
    return sides[1][1], sides[0][1], sent


def test_what_both_serve_has_one_number_at_both() -> None:
    one, other = dialing(identity("us", ["home", "lab", "work"])), dialed(identity("eu", ["work", "home"]))
    steps, answers, sent = talk(one, other)
    assert [step.agreed for step in steps] == [None, ("home", "work")]
    assert [step.agreed for step in answers] == [None, ("home", "work"), None]
    assert other.peer == "us"
    # Who was dialed takes packets before it says so, and sends none before it is told that it may.
    assert [step.is_open for step in steps] == [False, True]
    assert [step.is_open for step in answers] == [False, False, True]
    assert {message[0] for message in sent} == {CONTROL}


def test_nothing_in_common() -> None:
    steps, answers, _ = talk(dialing(identity("us", ["home"])), dialed(identity("eu", ["work"])))
    assert steps[-1].agreed == answers[1].agreed == ()
    steps, _, _ = talk(dialing(identity("us", [])), dialed(identity("eu", ["work"])))
    assert steps[-1] == Step((), steps[-1].messages, is_open=True)


def test_many_networks_are_several_messages() -> None:
    words = [f"=2Fnetwork-{n}" for n in range(1000)]
    steps, answers, sent = talk(dialing(identity("us", words)), dialed(identity("eu", words[::2])))
    assert steps[-1].agreed == answers[-2].agreed == tuple(words[::2])
    assert len(sent) > 12
    # With its header, as the engine takes it of a stranger: 1,024 bytes.
    assert all(len(message) <= 1000 for message in sent)


@pytest.mark.parametrize(
    ("dialer", "keys"),
    [
        (identity("ap", []), KEYS),
        (identity("us", [], psk=bytes(32)), KEYS),
        (identity("us", []), {"eu": EU.public}),
        (identity("us", []), {"eu": EU.public, "us": AP.public}),
    ],
    ids=["no record", "another secret", "not known yet", "another key"],
)
def test_who_is_refused(dialer: Identity, keys: Mapping[str, bytes]) -> None:
    with pytest.raises(LinkError, match=r"record|secret_file"):
        dialed(identity("eu", []), keys).received(dialing(dialer).begin())


def test_it_does_not_dial_itself() -> None:
    with pytest.raises(LinkError, match="another key"):
        dialed(identity("eu", [])).received(dialing(identity("eu", [])).begin())


def test_another_relay_at_that_url() -> None:
    """It can't read what is meant for the one of the record."""
    with pytest.raises(LinkError, match="keys are not those"):
        dialed(identity("us", []), {**KEYS, "ap": AP.public}).received(dialing(identity("ap", [])).begin())


def test_an_answer_of_whoever() -> None:
    one = dialing(identity("us", []))
    one.begin()
    with pytest.raises(LinkError, match="keys are not those"):
        one.received(bytes([CONTROL, 2]) + bytes(48))


def test_each_message_in_its_turn() -> None:
    own = identity("eu", ["home"])
    _, _, sent = talk(dialing(identity("us", ["home"])), dialed(own))
    for message in (b"", b"\x16", b"\x17\x01", *sent[1:]):
        with pytest.raises(LinkError, match="out of its order"):
            dialed(own).received(message)
    one, over = dialing(identity("us", ["home"])), dialed(own)
    talk(one, over)
    for side in (one, over):
        for message in (sent[-1], bytes([CONTROL, 0]), bytes([CONTROL, 0, 1])):
            with pytest.raises(LinkError, match="out of its order"):
                side.received(message)


@pytest.mark.parametrize("at", range(5))
def test_a_message_that_was_changed(at: int) -> None:
    one, other = dialing(identity("us", ["home"])), dialed(identity("eu", ["home"]))
    sides, turn = (other, one), 0
    message = one.begin()
    for _ in range(at):
        [message] = sides[turn].received(message).messages
        turn = 1 - turn
    with pytest.raises(LinkError):
        sides[turn].received(message[:-1] + bytes([message[-1] ^ 1]))


def test_a_list_that_makes_no_sense() -> None:
    for words in (["home", "home"], ["a" * 2] * 3, [f"{n}" for n in range(5000)]):
        with pytest.raises(LinkError, match="makes no sense"):
            talk(dialing(identity("us", words)), dialed(identity("eu", ["home"])))


def test_more_networks_than_it_was_asked_for() -> None:
    class Greedy(LinkLogin):
        def _networks(self, body: bytes) -> Step:
            self._opened(body)
            return Step(messages=[self._sealed(4, b"\xff")])

    greedy = Greedy(identity("eu", ["home"]), KEYS.get, lambda: key_pair(bytes([102]) * 32))
    with pytest.raises(LinkError, match="of which it was not asked"):
        talk(dialing(identity("us", ["home"])), greedy)
