"""Which keys a member believes: at a first contact, with a line, after rotations, and from whom it does not."""

from dataclasses import replace

import pytest

from candy.errors import TrustError
from candy.member.trust import OTHERS_MAX, Known, Seen, accepted, judge, shown_network, shown_relay
from candy.primitives import sign, signing_public, verify
from candy.protocol.keys import RelayKey, Shown, Succession

SEEDS = [bytes([number]) * 32 for number in range(1, 13)]
NETWORKS = [signing_public(seed) for seed in SEEDS]
RELAY, OTHER_RELAY = bytes([0x61]) * 32, bytes([0x62]) * 32


def key(network: int = 0, *, relay: bytes = RELAY, number: int = 0, generation: int = 100) -> RelayKey:
    return RelayKey.make(sign, SEEDS[network], NETWORKS[network], relay, number, generation)


def entry(old: int, new: int, number: int | None = None, signer: int | None = None) -> Succession:
    seed = SEEDS[old if signer is None else signer]
    return Succession.make(sign, seed, NETWORKS[old], NETWORKS[new], new if number is None else number)


def shown(its: RelayKey, *entries: Succession) -> Shown:
    return Shown(its, bytes(32), entries)


def known(*networks: int, relay: bytes = RELAY, number: int = 0, generation: int = 100) -> Known:
    return Known(number, relay, generation, tuple(NETWORKS[network] for network in networks))


def test_a_first_contact_takes_what_is_signed() -> None:
    assert judge(shown(key()), None, None, verify) == known(0)
    with pytest.raises(TrustError, match="not signed by its network's"):
        judge(shown(replace(key(), relay=OTHER_RELAY)), None, None, verify)


def test_a_line_names_its_network() -> None:
    assert judge(shown(key()), NETWORKS[0], None, verify) == known(0)
    with pytest.raises(TrustError) as refused:
        judge(shown(key(1)), NETWORKS[0], None, verify)
    assert shown_network(NETWORKS[1]) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_kept_counts_as_the_line_does() -> None:
    assert judge(shown(key()), None, known(0), verify) == known(0)
    with pytest.raises(TrustError, match="of another network"):
        judge(shown(key(1)), None, known(0), verify)


def test_a_line_with_another_key_counts_instead_of_all_that_is_kept() -> None:
    assert judge(shown(key(1, generation=5)), NETWORKS[1], known(0), verify) == known(1, generation=5)
    with pytest.raises(TrustError, match="of another network"):
        judge(shown(key(0)), NETWORKS[1], known(0), verify)


def test_a_succession_leads_to_another_network() -> None:
    way = (entry(0, 1), entry(1, 2))
    assert judge(shown(key(2), *way), NETWORKS[0], None, verify) == known(0, 1, 2)
    assert judge(shown(key(2), *way), None, known(1), verify) == known(1, 2)
    # It does not lead back, nor does a line with a key that was passed.
    for configured in (None, NETWORKS[0]):
        with pytest.raises(TrustError, match="of another network"):
            judge(shown(key(0), *way), configured, known(0, 1, 2), verify)
    assert judge(shown(key(2), *way), NETWORKS[0], known(0, 1, 2), verify) == known(0, 1, 2)


@pytest.mark.parametrize(
    "way",
    [
        (),
        (entry(1, 2),),
        (entry(0, 1, signer=3), entry(1, 2)),
        (entry(1, 2), entry(0, 1)),
        (entry(0, 1, number=5), entry(1, 2, number=5)),
        (entry(0, 1, number=5), entry(1, 2, number=4)),
    ],
)
def test_a_way_with_a_gap_leads_nowhere(way: tuple[Succession, ...]) -> None:
    with pytest.raises(TrustError, match="of another network"):
        judge(shown(key(2), *way), NETWORKS[0], None, verify)


def test_eight_steps_are_passed_and_nine_keys_kept() -> None:
    way = [entry(at, at + 1) for at in range(8)]
    judged = judge(shown(key(8), *way), NETWORKS[0], None, verify)
    assert judged == known(*range(9))
    further = judge(shown(key(9), *way[1:], entry(8, 9)), None, judged, verify)
    assert further == known(*range(1, 10))
    assert Known.decode(further.encode()) == further
    assert len(further.encode()) in Known.LENGTHS


@pytest.mark.parametrize("generation", [100, 101])
def test_a_later_key_of_the_relay_is_taken(generation: int) -> None:
    assert judge(shown(key(generation=generation)), None, known(0), verify) == known(0, generation=generation)


def test_an_older_key_of_the_relay_is_refused() -> None:
    with pytest.raises(TrustError, match="that was replaced"):
        judge(shown(key(relay=OTHER_RELAY, generation=99)), None, known(0), verify)
    with pytest.raises(TrustError, match="that was replaced"):
        judge(shown(key(generation=99)), NETWORKS[0], known(0), verify)


def test_another_key_of_the_same_generation_is_refused() -> None:
    with pytest.raises(TrustError, match="another key of the same time"):
        judge(shown(key(relay=OTHER_RELAY)), None, known(0), verify)


def test_generations_are_counted_for_each_relay_and_network() -> None:
    of_both = judge(shown(key(number=1, generation=5)), None, known(0), verify)
    assert of_both == replace(known(0, number=1, generation=5), others=(Seen(0, RELAY, 100),))
    judged = judge(shown(key(1, generation=5), entry(0, 1)), None, known(0), verify)
    assert judged == known(0, 1, generation=5)


def test_a_member_goes_from_one_relay_to_another_and_back() -> None:
    """Each may have a key that is older than the other one's, and none an older one than it had itself."""
    kept = None
    for _ in range(2):
        for number, relay, generation in ((1, RELAY, 100), (2, OTHER_RELAY, 50)):
            kept = judge(shown(key(relay=relay, number=number, generation=generation)), None, kept, verify)
            kept = Known.decode(kept.encode())
    assert kept == Known(2, OTHER_RELAY, 50, (NETWORKS[0],), (Seen(1, RELAY, 100),))
    for number, generation, refusal in ((1, 99, "was replaced"), (2, 49, "was replaced"), (1, 100, "of the same time")):
        relay = bytes([0x63]) * 32
        with pytest.raises(TrustError, match=refusal):
            judge(shown(key(relay=relay, number=number, generation=generation)), None, kept, verify)
    # With another key of the network's nothing of that counts.
    assert judge(shown(key(1, generation=5), entry(0, 1)), None, kept, verify) == known(0, 1, generation=5)


def test_a_key_that_is_accepted_is_one_relays() -> None:
    seen = judge(shown(key(number=2, relay=OTHER_RELAY)), None, known(0, number=1), verify)
    older = bytes([0x63]) * 32
    kept = Known.decode(accepted(shown_relay(older), None, seen).encode())
    judged = judge(shown(key(number=1, relay=older, generation=5)), None, kept, verify)
    assert judged == replace(known(0, number=1, relay=older, generation=5), others=(Seen(2, OTHER_RELAY, 100),))


def test_as_many_relays_as_are_kept() -> None:
    kept = None
    for number in range(1, OTHERS_MAX + 5):
        kept = judge(shown(key(number=number)), None, kept, verify)
    assert kept is not None
    assert len(kept.others) == OTHERS_MAX
    assert [kept.number, kept.others[0].number, kept.others[-1].number] == [67, 66, 4]
    assert len(kept.encode()) in Known.LENGTHS
    assert Known.decode(kept.encode()) == kept
    for wrong in (0, 2, 255):
        with pytest.raises(ValueError, match="do not fill it"):
            Known.decode(kept.encode()[:-1] + bytes([wrong]))


def test_what_two_connections_have_seen() -> None:
    """One of them was told of a later key of its relay, before the other one is kept."""
    one = replace(known(0, number=1, generation=101), others=(Seen(3, RELAY, 5),))
    other = replace(known(0, number=2), others=(Seen(1, RELAY, 100), Seen(3, RELAY, 4)))
    assert set(other.beside(one).others) == {Seen(1, RELAY, 101), Seen(3, RELAY, 5)}
    assert other.beside(known(1)) == other


def test_keys_told_on_a_connection() -> None:
    now = known(0).renewed(key(relay=OTHER_RELAY, generation=101), verify)
    assert now == known(0, relay=OTHER_RELAY, generation=101)
    for wrong in (key(), key(1, generation=200), replace(key(generation=200), relay=OTHER_RELAY)):
        with pytest.raises(TrustError):
            now.renewed(wrong, verify)
    succeeded = now.succeeded(entry(0, 1), verify)
    assert succeeded.network == NETWORKS[1]
    assert succeeded.renewed(key(1, generation=50), verify) == known(0, 1, generation=50)
    for entry_ in (entry(1, 2), entry(0, 1, signer=2)):
        with pytest.raises(TrustError, match="not signed by the one before"):
            now.succeeded(entry_, verify)


def test_what_was_refused_can_be_accepted() -> None:
    """By the very words of the refusal, and nothing else with it."""
    with pytest.raises(TrustError) as refused:
        judge(shown(key(1)), None, known(0), verify)
    assert shown_network(NETWORKS[1]) in str(refused.value)
    kept = accepted(shown_network(NETWORKS[1]), None, known(0))
    assert judge(shown(key(1)), None, kept, verify) == known(0, 1)
    # A line with the key before leads there.
    assert judge(shown(key(1)), NETWORKS[0], kept, verify) == known(0, 1)
    for_line = accepted(shown_network(NETWORKS[1]), NETWORKS[2], known(0))
    assert judge(shown(key(1)), NETWORKS[2], for_line, verify) == known(2, 1)
    assert judge(shown(key(1)), None, accepted(shown_network(NETWORKS[1]), None, None), verify) == known(1)
    with pytest.raises(TrustError, match="of another network"):
        judge(shown(key(0)), None, kept, verify)


def test_a_relays_key_that_was_refused_can_be_accepted() -> None:
    older = key(relay=OTHER_RELAY, generation=99)
    with pytest.raises(TrustError) as refused:
        judge(shown(older), None, known(0), verify)
    assert shown_relay(OTHER_RELAY) in str(refused.value)
    kept = Known.decode(accepted(shown_relay(OTHER_RELAY), None, known(0)).encode())
    assert judge(shown(older), None, kept, verify) == known(0, relay=OTHER_RELAY, generation=99)
    # That one alone.
    for other in (key(), key(generation=2**47)):
        with pytest.raises(TrustError, match="that was replaced"):
            judge(shown(other), None, kept, verify)
    with pytest.raises(ValueError, match="knows no relay yet"):
        accepted(shown_relay(RELAY), None, None)


@pytest.mark.parametrize("text", ["", "network/", "relay/AAAA", "A" * 43, "network/" + "A" * 42, "network/" + "é" * 43])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="is not a key as a refusal names it"):
        accepted(text, None, known(0))


def test_what_was_said_later() -> None:
    assert known(0).is_before(known(0, generation=101))
    assert known(0, generation=500).is_before(known(0, 1))
    for other in (known(0), known(0, generation=99), known(1), known(0, number=1, generation=500)):
        assert not known(0).is_before(other)
    assert not known(0).is_before(accepted(shown_relay(OTHER_RELAY), None, known(0)))
