"""Decisions that several relays take at once: one stands, and a lost answer is settled."""

import asyncio
import os
from dataclasses import replace

import pytest
from kit.ledger import ModelLedger
from kit.nats import SECRET
from kit.primitives import PRIMITIVES

from candy.relay.cluster import agreement
from candy.relay.cluster.agreement import (
    Agreement,
    DiffersError,
    HeldError,
    RepeatedError,
    UsedUpError,
)
from candy.relay.cluster.ledger import AwayError, Bucket, Entry
from candy.relay.cluster.records import Common, Envelope, Grant, Redeemable, grant_key
from candy.relay.enrolment import Device, Standing

IP = 0x0A000001
ONE, TWO = b"1" * 16, b"2" * 16
DEVICE = Device(b"k" * 32, 7, b"s" * 16, b"p" * 32, Standing.WAITING, "laptop", "staff", b"", None, 5)
TICKET = Redeemable(b"i" * 16, b"p" * 32, "guests", "", 2, 100, 0)
COMMON = Common(("eu",), "10.0.0.0/8", ("a",), ())


@pytest.fixture
def ledger() -> ModelLedger:
    return ModelLedger()


def relay(ledger: ModelLedger, name: str = "eu") -> Agreement:
    return Agreement(ledger, Envelope(SECRET, PRIMITIVES, os.urandom), name)


def grant(holder: bytes, relay: str = "eu") -> Grant:
    return Grant(holder, relay, 1000)


async def test_an_address_has_one_device(ledger: ModelLedger) -> None:
    eu, us = relay(ledger), relay(ledger, "us")
    known = await eu.claim("/", IP, grant(ONE))
    with pytest.raises(HeldError) as caught:
        await us.claim("/", IP, grant(TWO, "us"))
    assert caught.value.grant == known.record
    # In another network it is another address.
    await us.claim("/home", IP, grant(TWO, "us"))


async def test_at_another_relay_it_is_still_its_own_and_its_number_stays(ledger: ModelLedger) -> None:
    first = await relay(ledger).claim("/", IP, replace(grant(ONE), number=b"n" * 8))
    again = await relay(ledger, "us").claim("/", IP, replace(grant(ONE, "us"), number=b"m" * 8))
    assert again.revision > first.revision
    assert again.record == replace(grant(ONE, "us"), number=b"n" * 8)


async def test_two_relays_at_once(ledger: ModelLedger) -> None:
    claims = [relay(ledger, name).claim("/", IP, grant(holder, name)) for name, holder in (("eu", ONE), ("us", TWO))]
    outcomes = await asyncio.gather(*claims, return_exceptions=True)
    assert [type(each) for each in outcomes].count(HeldError) == 1


async def test_another_is_first(ledger: ModelLedger) -> None:
    other = relay(ledger, "us")
    value, _ = other._envelope.seal(Bucket.GRANTS, grant_key("/", IP), grant(TWO, "us").encode())
    ledger.before_put = lambda: ledger.write(Bucket.GRANTS, grant_key("/", IP), value)
    with pytest.raises(HeldError):
        await relay(ledger).claim("/", IP, grant(ONE))


async def test_it_may_be_taken_from_whom_the_relay_saw_and_from_nobody_else(ledger: ModelLedger) -> None:
    eu, us = relay(ledger), relay(ledger, "us")
    known = await eu.claim("/", IP, grant(ONE))
    with pytest.raises(HeldError):
        await us.claim("/", IP, grant(TWO, "us"), takes_from=b"3" * 16, known=known.revision)
    await us.claim("/", IP, grant(TWO, "us"), takes_from=ONE, known=known.revision)
    with pytest.raises(HeldError):
        await eu.claim("/", IP, grant(b"3" * 16), takes_from=ONE, known=known.revision)


async def test_what_is_released_is_free_for_all(ledger: ModelLedger) -> None:
    eu, us = relay(ledger), relay(ledger, "us")
    await eu.claim("/", IP, grant(ONE))
    assert not await us.release("/", IP, TWO, 2000)
    assert await us.release("/", IP, ONE, 2000)
    assert not await us.release("/", IP, ONE, 2000)
    assert (await eu.claim("/", IP, grant(TWO), known=1)).record == grant(TWO)


@pytest.mark.parametrize("loses", [[True], [False], [True, False], [False, True], [False, False]])
async def test_a_lost_answer_is_settled(ledger: ModelLedger, loses: list[bool]) -> None:
    ledger.loses.extend(loses)
    known = await relay(ledger).claim("/", IP, grant(ONE))
    entry = await ledger.get(Bucket.GRANTS, grant_key("/", IP))
    assert entry is not None
    assert (known.record, known.revision) == (grant(ONE), entry.revision)
    # It took effect once.
    assert entry.revision == 1


async def test_a_lost_answer_and_another_that_was_first(ledger: ModelLedger) -> None:
    us = relay(ledger, "us")
    value, _ = us._envelope.seal(Bucket.GRANTS, grant_key("/", IP), grant(TWO, "us").encode())
    ledger.loses.append(False)
    ledger.before_put = lambda: ledger.write(Bucket.GRANTS, grant_key("/", IP), value)
    with pytest.raises(HeldError):
        await relay(ledger).claim("/", IP, grant(ONE))


async def test_no_answer_at_all(ledger: ModelLedger) -> None:
    ledger.loses.extend([False] * agreement.TRIES)
    with pytest.raises(AwayError, match=f"no answer came to {agreement.TRIES} writings"):
        await relay(ledger).claim("/", IP, grant(ONE))
    assert ledger.keys(Bucket.GRANTS) == []


async def test_away(ledger: ModelLedger) -> None:
    ledger.is_away = True
    with pytest.raises(AwayError):
        await relay(ledger).claim("/", IP, grant(ONE))


async def test_an_invitation_lets_in_so_many_and_each_once(ledger: ModelLedger) -> None:
    eu, us = relay(ledger), relay(ledger, "us")
    await eu.invite("/", TICKET)
    keys = [bytes([number]) * 32 for number in range(4)]
    redeemed = [
        relay.redeem("/", TICKET.selector, key, 50, 100) for key, relay in zip(keys, (eu, us, eu, us), strict=True)
    ]
    outcomes = await asyncio.gather(*redeemed, return_exceptions=True)
    assert [isinstance(each, UsedUpError) for each in outcomes].count(True) == 2
    came = [key for key, each in zip(keys, outcomes, strict=True) if not isinstance(each, UsedUpError)]
    again = await us.redeem("/", TICKET.selector, came[0], 50, 100)
    assert again.record is not None
    assert again.record.used == 2


async def test_a_redemption_whose_answer_is_lost_and_that_others_follow(ledger: ModelLedger) -> None:
    """It counts once, although its own value is not what is read in the end."""
    eu, us = relay(ledger), relay(ledger, "us")
    await eu.invite("/", TICKET)
    one, two = b"1" * 32, b"2" * 32
    ledger.loses.extend([True])
    first = asyncio.create_task(eu.redeem("/", TICKET.selector, one, 50, 100))
    await asyncio.gather(first, us.redeem("/", TICKET.selector, two, 50, 100))
    known = await eu.read(Redeemable, f"=2F.invitation.{TICKET.selector.hex()}")
    assert known.record is not None
    assert (known.record.used, set(known.record.recent)) == (2, {"31" * 8, "32" * 8})


async def test_invitations_that_there_are_not(ledger: ModelLedger) -> None:
    eu = relay(ledger)
    with pytest.raises(UsedUpError):
        await eu.redeem("/", TICKET.selector, ONE, 50, 100)
    await eu.invite("/", TICKET)
    with pytest.raises(UsedUpError):
        await eu.redeem("/", TICKET.selector, ONE, 100, 200)
    # The first record stays.
    await eu.invite("/", replace(TICKET, uses=9))
    known = await eu.read(Redeemable, f"=2F.invitation.{TICKET.selector.hex()}")
    assert known.record == TICKET


async def test_a_device_that_came_to_two_relays_has_one_credential(ledger: ModelLedger) -> None:
    eu, us = relay(ledger), relay(ledger, "us")
    other = replace(DEVICE, number=8, selector=b"t" * 16, secret=b"q" * 32, has_come=True)
    assert await eu.enrol("/", DEVICE) == DEVICE
    assert await us.enrol("/", other) == replace(DEVICE, has_come=True)


async def test_nothing_undoes_a_revocation(ledger: ModelLedger) -> None:
    eu, us = relay(ledger), relay(ledger, "us")
    await eu.enrol("/", DEVICE)
    await us.enrol("/", replace(DEVICE, standing=Standing.REVOKED, since=9))
    found = await eu.enrol("/", replace(DEVICE, standing=Standing.ADMITTED))
    assert (found.standing, found.since) == (Standing.REVOKED, 9)


async def test_a_device_is_approved_at_another_relay(ledger: ModelLedger) -> None:
    eu, us = relay(ledger), relay(ledger, "us")
    await eu.enrol("/", DEVICE)
    await us.enrol("/", replace(DEVICE, standing=Standing.ADMITTED, has_come=True))
    assert await eu.enrol("/", DEVICE) == replace(DEVICE, standing=Standing.ADMITTED, has_come=True)


async def test_a_digest_comes_once(ledger: ModelLedger) -> None:
    eu, us = relay(ledger), relay(ledger, "us")
    await eu.spend("/", 100, b"d" * 15)
    for again in (eu, us):
        with pytest.raises(RepeatedError):
            await again.spend("/", 100, b"d" * 15)
    await us.spend("/home", 100, b"d" * 15)
    # Its own, whose answer is lost, is none that came before.
    ledger.loses.append(True)
    await us.spend("/", 101, b"e" * 15)


async def test_the_time_that_is_forgotten_never_goes_back(ledger: ModelLedger) -> None:
    eu, us = relay(ledger), relay(ledger, "us")
    assert await us.forgotten("/") == 0
    assert await eu.forget("/", 101) == 101
    assert await us.forget("/", 99) == 101
    assert await us.forgotten("/") == 101
    assert await us.forgotten("/home") == 0


async def test_a_network_is_the_same_at_all_relays(ledger: ModelLedger) -> None:
    eu, us = relay(ledger), relay(ledger, "us")
    await eu.join("/", COMMON, [])
    own = replace(COMMON, relays=("us",))
    await us.join("/", own, ["eu"])
    for changed, said in (
        ({"pool": "10.0.0.0/9"}, "the pool is 10.0.0.0/9 here and 10.0.0.0/8 at eu"),
        ({"pool": ""}, "the pool is none here and 10.0.0.0/8 at eu"),
        ({"passwords": ("a", "b")}, "the passwords are 2 here and 1 at eu"),
        ({"passwords": ("b",)}, "the passwords are others than at eu"),
        ({"rules": ("x",)}, "the rules here and at eu differ"),
        ({"reservations": ("x",)}, "the reservations here and at eu differ"),
        ({"legacy": False}, "the legacy setting here and at eu differ"),
        ({"allow_outside_pool": True}, "allow_outside_pool here and at eu differ"),
        ({"clock_tolerance": 30}, "clock_tolerance here and at eu differ"),
    ):
        with pytest.raises(DiffersError, match=f"^network /: {said}: write the same$"):
            await us.join("/", replace(own, **changed), ["eu"])
    # Nobody who serves it otherwise is there any more.
    await us.join("/", replace(own, pool="10.0.0.0/9"), ["ap"])
    with pytest.raises(DiffersError, match=r"10\.0\.0\.0/8 here and 10\.0\.0\.0/9 at us"):
        await eu.join("/", COMMON, ["us"])


async def test_one_that_is_always_too_late(ledger: ModelLedger) -> None:
    eu = relay(ledger)
    number = 0

    class Fast(ModelLedger):
        async def put(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
            nonlocal number
            number += 1
            ledger.write(bucket, key, eu._envelope.seal(bucket, key, grant(b"").encode())[0])
            return await ledger.put(bucket, key, value, revision)

        async def get(self, bucket: Bucket, key: str, after: int = -1) -> Entry | None:
            return await ledger.get(bucket, key)

    eu._ledger = Fast()
    with pytest.raises(AwayError, match=f"other relays were first {agreement.ROUNDS} times"):
        await eu.claim("/", IP, grant(ONE))
    assert number == agreement.ROUNDS
