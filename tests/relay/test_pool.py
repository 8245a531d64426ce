"""The pool: which address is granted, who holds it, what is kept for whom, and which pools are refused."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from candy.errors import ConfigError, PoolFull
from candy.protocol.hello import Hello
from candy.relay.leases import DAY_S, Leases
from candy.relay.pool import OFFER_S, OFFERS_PER_SOURCE, Pool
from candy.relay.reservations import Reservation

ONE = b"1111111111111111"
TWO = b"2222222222222222"
ANY = IPv4Address("0.0.0.0")


def ip(last: int) -> IPv4Address:
    return IPv4Address(f"192.168.202.{last}")


def pool_of(text: str = "192.168.202.0/24", lease_limit: int = 100) -> Pool:
    return Pool(IPv4Network(text), leases=Leases(limit=lease_limit))


def grant(
    pool: Pool,
    connection: int,
    asked: IPv4Address = ANY,
    vmac: bytes | None = None,
    *,
    source: str | None = None,
    now: float = 0.0,
    may_keep: bool = True,
) -> IPv4Address:
    """What is granted, to a source that nobody else has unless it is named."""
    source = source if source is not None else f"source {connection}"
    return pool.ask(asked, vmac, connection, source, now, may_keep=may_keep).ip


def test_addresses_are_granted_in_turn_with_the_prefix() -> None:
    pool = pool_of()
    assert str(pool.ask(ANY, None, 1, "a", 0.0)) == "192.168.202.1/24"
    assert str(pool.ask(ANY, None, 2, "b", 0.0)) == "192.168.202.2/24"


def test_the_first_address_can_be_chosen_and_the_turn_goes_round() -> None:
    pool = Pool(IPv4Network("192.168.202.0/29"), first=ip(5))
    assert [grant(pool, connection) for connection in range(6)] == [ip(n) for n in (5, 6, 1, 2, 3, 4)]
    with pytest.raises(PoolFull, match=r"192\.168\.202\.0/29 is full: all 6 addresses"):
        grant(pool, 6)


def test_a_freed_address_is_not_granted_before_the_turn_comes_to_it() -> None:
    pool = pool_of("192.168.202.0/29")
    assert grant(pool, 1) == ip(1)
    pool.release(1)
    assert [grant(pool, connection) for connection in range(2, 8)] == [ip(n) for n in (2, 3, 4, 5, 6, 1)]


def test_the_asked_address_is_granted_when_it_is_free() -> None:
    pool = pool_of()
    assert grant(pool, 1, asked=ip(77)) == ip(77)
    assert grant(pool, 2, asked=ip(77)) == ip(1)


@pytest.mark.parametrize("asked", ["192.168.202.0", "192.168.202.255", "192.168.203.7", "0.0.0.0", "224.0.0.1"])
def test_never_the_network_the_broadcast_or_a_foreign_address(asked: str) -> None:
    assert grant(pool_of(), 1, asked=IPv4Address(asked)) == ip(1)


def test_a_held_address_is_granted_to_the_same_vmac_alone() -> None:
    pool = pool_of()
    pool.claim(ip(7), ONE, 1)
    assert grant(pool, 2, asked=ip(7), vmac=TWO) == ip(1)
    assert grant(pool, 3, asked=ip(7), vmac=None) == ip(2)
    assert grant(pool, 4, asked=ip(7), vmac=ONE) == ip(7)
    assert pool.holder(ip(7)) == 1
    pool.claim(ip(7), ONE, 4)
    assert pool.holder(ip(7)) == 4
    assert list(pool.holders()) == [4]


def test_members_without_vmac_are_not_one_installation() -> None:
    pool = pool_of()
    pool.claim(ip(7), None, 1)
    assert grant(pool, 2, asked=ip(7), vmac=None) == ip(1)


def test_an_offered_address_moves_to_the_newer_connection_of_the_same_vmac() -> None:
    pool = pool_of()
    assert grant(pool, 1, asked=ip(7), vmac=ONE) == ip(7)
    assert grant(pool, 2, asked=ip(7), vmac=ONE) == ip(7)
    pool.release(1)
    assert grant(pool, 3, asked=ip(7), vmac=TWO) == ip(1)
    pool.release(2)
    assert grant(pool, 4, asked=ip(7), vmac=TWO) == ip(7)


def test_the_last_address_of_a_vmac_is_granted_again() -> None:
    pool = pool_of()
    pool.claim(ip(99), ONE, 1)
    pool.release(1)
    assert grant(pool, 2, vmac=TWO) == ip(1)
    assert grant(pool, 3, vmac=ONE) == ip(99)


def test_an_address_that_was_only_offered_is_not_remembered() -> None:
    pool = pool_of()
    assert grant(pool, 1, asked=ip(99), vmac=ONE) == ip(99)
    pool.release(1)
    assert grant(pool, 2, vmac=ONE) == ip(1)


def test_memory_alone_never_grants_an_address_in_use() -> None:
    pool = pool_of()
    pool.claim(ip(7), ONE, 1)
    assert grant(pool, 2, vmac=ONE) == ip(1)
    pool.claim(ip(1), ONE, 2)
    pool.release(2)
    assert grant(pool, 3, vmac=ONE) == ip(1)
    assert grant(pool, 4, vmac=ONE) == ip(2)


def test_the_memory_of_leases_is_bounded() -> None:
    pool = pool_of(lease_limit=2)
    vmacs = [bytes([n]) * 16 for n in (1, 2, 3)]
    for connection, vmac in enumerate(vmacs):
        pool.claim(ip(100 + connection), vmac, connection)
        pool.release(connection)
    assert grant(pool, 10, vmac=vmacs[0]) == ip(1)
    assert grant(pool, 11, vmac=vmacs[1]) == ip(101)
    assert grant(pool, 12, vmac=vmacs[2]) == ip(102)


def test_the_lease_whose_device_left_longest_ago_is_forgotten_first() -> None:
    pool = pool_of(lease_limit=2)
    for last, vmac in ((101, ONE), (102, TWO), (101, ONE), (103, b"3" * 16)):
        pool.claim(ip(last), vmac, last)
        pool.release(last)
    assert grant(pool, 1, vmac=ONE) == ip(101)
    assert grant(pool, 2, vmac=TWO) == ip(1)


def test_an_address_outside_the_network_is_remembered_but_not_granted() -> None:
    pool = pool_of()
    outside = IPv4Address("10.9.9.9")
    pool.claim(outside, ONE, 1)
    assert pool.holder(outside) == 1
    pool.release(1)
    assert pool.holder(outside) is None
    assert grant(pool, 2, vmac=ONE) == ip(1)


def test_claims_outside_do_not_count_as_used() -> None:
    pool = pool_of("192.168.202.0/30")
    for connection in range(10, 15):
        pool.claim(IPv4Address(connection), None, connection)
    pool.claim(ip(0), None, 20)
    pool.claim(ip(3), None, 21)
    assert {grant(pool, 1), grant(pool, 2)} == {ip(1), ip(2)}
    with pytest.raises(PoolFull):
        grant(pool, 3)


def test_a_connection_holds_one_address_at_most() -> None:
    pool = pool_of("192.168.202.0/30")
    assert grant(pool, 1, asked=ip(1)) == ip(1)
    assert grant(pool, 1, asked=ip(2)) == ip(2)
    assert grant(pool, 2) == ip(1)
    pool.claim(ip(2), None, 2)
    assert pool.holder(ip(2)) == 2
    assert grant(pool, 3) == ip(1)


def test_asking_again_for_any_address_grants_the_same() -> None:
    pool = pool_of()
    assert [grant(pool, 1), grant(pool, 1)] == [ip(1), ip(1)]


def test_an_offer_stands_against_everyone_else() -> None:
    pool = pool_of()
    grant(pool, 1, asked=ip(7), vmac=ONE)
    assert pool.is_offered_to_another(ip(7), TWO, 2, 0.0)
    assert pool.is_offered_to_another(ip(7), None, 2, 0.0)
    assert not pool.is_offered_to_another(ip(7), ONE, 2, 0.0)
    assert not pool.is_offered_to_another(ip(7), None, 1, 0.0)
    assert not pool.is_offered_to_another(ip(8), None, 2, 0.0)
    pool.release(1)
    assert not pool.is_offered_to_another(ip(7), TWO, 2, 0.0)


def test_an_offer_to_a_member_without_vmac_stands_too() -> None:
    pool = pool_of()
    grant(pool, 1, asked=ip(7))
    assert pool.is_offered_to_another(ip(7), None, 2, 0.0)


# What is sniffed


def test_an_offer_is_short() -> None:
    pool = pool_of("192.168.202.0/30")
    assert grant(pool, 1, asked=ip(1)) == ip(1)
    assert grant(pool, 2, now=1.0) == ip(2)
    with pytest.raises(PoolFull):
        grant(pool, 3, now=OFFER_S - 0.1)
    assert pool.is_offered_to_another(ip(1), None, 3, OFFER_S - 0.1)
    assert not pool.is_offered_to_another(ip(1), None, 3, OFFER_S)
    assert grant(pool, 3, now=OFFER_S) == ip(1)
    # Asking again begins it anew.
    assert grant(pool, 2, now=OFFER_S) == ip(2)
    with pytest.raises(PoolFull):
        grant(pool, 4, now=OFFER_S + 1.0)


def test_a_source_has_few_offers_and_further_grants_differ_all_the_same() -> None:
    pool = pool_of()
    granted = [grant(pool, connection, source="office") for connection in range(1, 61)]
    assert granted == [ip(last) for last in range(1, 61)]
    offered = [address for address in granted if pool.is_offered_to_another(address, None, 0, 0.0)]
    assert offered == granted[:OFFERS_PER_SOURCE]
    # Each of them claims its own.
    for connection, address in enumerate(granted, 1):
        pool.claim(address, None, connection)
    assert pool.holder(ip(60)) == 60
    # What was claimed is no offer any more, and so the next have room.
    grant(pool, 61, source="office")
    assert pool.is_offered_to_another(ip(61), None, 0, 0.0)


def test_five_sources_that_ask_as_often_as_they_can_leave_the_pool_to_others() -> None:
    pool = pool_of()
    for connection in range(300):
        grant(pool, connection, source=f"source {connection % 5}", now=connection / 1000)
    taken = [last for last in range(1, 255) if pool.is_offered_to_another(ip(last), None, 999, 0.3)]
    assert len(taken) == 5 * OFFERS_PER_SOURCE
    assert grant(pool, 999, now=0.3) not in {ip(last) for last in taken}


def test_an_offer_that_ends_in_any_way_is_no_longer_counted_for_its_source() -> None:
    pool = pool_of()
    for turn in range(10):
        first = 10 * turn
        for connection in range(first, first + OFFERS_PER_SOURCE):
            address = grant(pool, connection, source="a", now=10.0 * turn)
            assert pool.is_offered_to_another(address, None, -1, 10.0 * turn)
        pool.release(first)
        pool.claim(grant(pool, first + 1, source="a", now=10.0 * turn), None, first + 1)
        pool.claim(grant(pool, first + 2, asked=ip(200), source="a", now=10.0 * turn), None, first + 9)


def test_what_may_not_be_kept_is_granted_and_takes_nothing_from_others() -> None:
    pool = pool_of("192.168.202.0/30")
    assert grant(pool, 1, may_keep=False) == ip(1)
    assert not pool.is_offered_to_another(ip(1), None, 2, 0.0)
    assert grant(pool, 2, may_keep=False) == ip(2)
    assert grant(pool, 3, asked=ip(1), vmac=ONE) == ip(1)
    assert grant(pool, 4, asked=ip(1), vmac=ONE, may_keep=False) == ip(1)
    pool.release(4)
    assert pool.is_offered_to_another(ip(1), TWO, 5, 0.0)


def test_the_leased_address_of_another_is_not_granted_while_there_is_one_without_a_lease() -> None:
    pool = pool_of("192.168.202.0/29")
    pool.claim(ip(3), ONE, 1)
    pool.release(1)
    assert grant(pool, 2, asked=ip(3), vmac=TWO) == ip(1)
    assert [grant(pool, connection, asked=ip(3)) for connection in (3, 4, 5, 6)] == [ip(2), ip(4), ip(5), ip(6)]
    assert grant(pool, 7, asked=ip(3)) == ip(3)


@pytest.mark.parametrize("asked", [ANY, IPv4Address("192.168.202.3")])
def test_the_lessee_comes_before_an_offer(asked: IPv4Address) -> None:
    pool = pool_of("192.168.202.0/30")
    pool.claim(ip(1), ONE, 1)
    pool.claim(ip(2), TWO, 2)
    pool.release(1)
    # The last free one, so it is granted although it is leased.
    assert grant(pool, 3, asked=ip(1)) == ip(1)
    assert pool.is_offered_to_another(ip(1), TWO, 4, 0.0)
    assert not pool.is_offered_to_another(ip(1), ONE, 4, 0.0)
    assert grant(pool, 4, asked=asked, vmac=ONE) == ip(1)
    assert pool.is_offered_to_another(ip(1), None, 3, 0.0)


def test_an_address_has_one_lessee_the_one_who_claimed_it_last() -> None:
    pool = pool_of("192.168.202.0/29")
    for connection, vmac in enumerate((ONE, TWO)):
        pool.claim(ip(3), vmac, connection)
        pool.release(connection)
    assert grant(pool, 4, vmac=ONE) == ip(1)
    assert grant(pool, 5, vmac=TWO) == ip(3)
    # One without a VMAC can't be told from others, so nobody has it then.
    pool.claim(ip(3), None, 6)
    pool.release(6)
    assert grant(pool, 7, vmac=TWO) == ip(2)
    assert grant(pool, 8, asked=ip(3)) == ip(3)


def test_a_newcomer_gets_an_address_without_a_lease_however_many_have_one() -> None:
    pool = pool_of("10.20.0.0/16", lease_limit=70_000)
    for number in range(10_000):
        pool.claim(IPv4Address("10.20.0.1") + number, number.to_bytes(16), number)
        pool.release(number)
    granted = [grant(pool, -number, may_keep=False) for number in range(1, 5)]
    assert granted == [IPv4Address("10.20.0.1") + number for number in range(10_000, 10_004)]


def test_without_such_an_address_it_gets_the_one_that_was_seen_longest_ago() -> None:
    pool = pool_of("192.168.202.0/30")
    for last, vmac in ((2, ONE), (1, TWO)):
        pool.claim(ip(last), vmac, last)
    for last in (2, 1):
        pool.release(last)
    assert grant(pool, 3) == ip(2)
    pool.release(3)
    # Its device was here again.
    pool.claim(ip(2), ONE, 4)
    pool.release(4)
    assert grant(pool, 5) == ip(1)
    assert grant(pool, 6) == ip(2)
    with pytest.raises(PoolFull):
        grant(pool, 7)


@pytest.mark.parametrize(("days", "after", "granted"), [(30, 30, 2), (30, 31, 1), (1, 2, 1), (0, 10_000, 2)])
def test_a_lease_ends_when_its_device_was_not_seen_for_so_long(days: int, after: int, granted: int) -> None:
    pool = Pool(IPv4Network("192.168.202.0/24"), leases=Leases(days))
    pool.claim(ip(1), ONE, 1)
    pool.leases.wall += 100 * DAY_S
    # It was connected until now.
    pool.release(1)
    pool.leases.wall += after * DAY_S
    assert grant(pool, 2) == ip(granted)


def test_one_vmac_has_a_lease_of_each_of_its_addresses() -> None:
    """Old clients of one host share a VMAC."""
    pool = pool_of()
    for last in (7, 8):
        pool.claim(ip(last), ONE, last)
    for last in (7, 8):
        pool.release(last)
    assert grant(pool, 1, asked=ip(7), vmac=TWO) == ip(1)
    assert grant(pool, 2, asked=ip(7), vmac=ONE) == ip(7)
    # Without a wish the one that was claimed last.
    assert grant(pool, 3, vmac=ONE) == ip(8)
    assert grant(pool, 4, vmac=ONE) == ip(2)


def test_what_is_reserved_is_granted_to_its_device_alone() -> None:
    pool = pool_of("192.168.202.0/30")
    pool.reserve(Reservation(ip(1), vmac=ONE))
    assert grant(pool, 1, asked=ip(1), vmac=TWO) == ip(2)
    with pytest.raises(PoolFull, match="in use or reserved"):
        grant(pool, 2)
    assert grant(pool, 3, asked=ip(2), vmac=ONE) == ip(1)
    assert pool.is_reserved_for_another(ip(1), TWO)
    assert pool.is_reserved_for_another(ip(1), None)
    assert not pool.is_reserved_for_another(ip(1), ONE)
    assert not pool.is_reserved_for_another(ip(2), None)
    # Of two that share a VMAC the one that is there keeps it, unless the other one asks for this very address.
    pool.claim(ip(1), ONE, 3)
    pool.release(1)
    assert grant(pool, 4, vmac=ONE) == ip(2)
    assert grant(pool, 5, asked=ip(1), vmac=ONE) == ip(1)


def test_what_is_reserved_for_a_name_goes_to_who_had_it_last() -> None:
    pool = pool_of()
    pool.reserve(Reservation(ip(9), name="Laptop"))
    for last, vmac in ((1, ONE), (2, TWO)):
        lease = pool.claim(ip(last), vmac, last)
        assert lease is not None
        pool.leases.tell(lease, Hello("linux", "6.1", "laptop" if vmac == ONE else "other"))
    assert pool.reserved_for(ONE) == ip(9)
    assert pool.reserved_for(TWO) is None
    assert grant(pool, 3, vmac=ONE) == ip(9)
    assert grant(pool, 4, asked=ip(9), vmac=TWO) == ip(3)


def test_an_address_that_is_released_by_command_is_anybody_s() -> None:
    pool = pool_of("192.168.202.0/30")
    pool.reserve(Reservation(ip(1), vmac=ONE))
    pool.claim(ip(1), ONE, 1)
    pool.release(1)
    assert grant(pool, 2) == ip(2)
    assert pool.give_up(ip(1))
    assert not pool.give_up(ip(1))
    assert grant(pool, 3) == ip(1)


def test_while_its_device_is_connected_a_lease_is_not_released() -> None:
    pool = pool_of()
    pool.claim(ip(1), ONE, 1)
    assert not pool.give_up(ip(1))
    pool.release(1)
    assert grant(pool, 2, vmac=ONE) == ip(1)


def test_a_configuration_replaces_the_one_before() -> None:
    pool = pool_of("192.168.202.0/30")
    pool.configure([Reservation(ip(1), vmac=ONE)])
    assert grant(pool, 1) == ip(2)
    pool.release(1)
    pool.configure([Reservation(ip(2), vmac=ONE)])
    assert grant(pool, 2) == ip(1)
    pool.configure([])
    assert grant(pool, 3) == ip(2)


def test_releasing_what_is_not_held_does_nothing() -> None:
    pool = pool_of("192.168.202.0/30")
    pool.release(1)
    pool.claim(ip(1), None, 1)
    pool.release(1)
    pool.release(1)
    assert {grant(pool, 2), grant(pool, 3)} == {ip(1), ip(2)}


def test_without_a_network_nothing_is_granted_and_anything_can_be_claimed() -> None:
    pool = Pool(None)
    with pytest.raises(PoolFull, match="no address pool"):
        grant(pool, 1, asked=ip(7), vmac=ONE)
    pool.claim(ip(7), ONE, 1)
    assert pool.holder(ip(7)) == 1
    assert not pool.contains(ip(7))
    assert not pool.contains(IPv4Address("0.0.0.0"))


def test_ten_thousand_members_of_a_sixteen() -> None:
    pool = pool_of("10.20.0.0/16")
    granted = set()
    for connection in range(10_000):
        address = grant(pool, connection)
        pool.claim(address, None, connection)
        granted.add(address)
    assert len(granted) == 10_000
    assert IPv4Address("10.20.0.0") not in granted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("192.168.202.1", "use /30 or a shorter prefix"),
        ("192.168.202.0/31", "use /30 or a shorter prefix"),
        ("192.168.202.0/32", "use /30 or a shorter prefix"),
        ("224.0.0.0/24", "overlaps 224.0.0.0/3"),
        ("127.0.0.0/16", "overlaps 127.0.0.0/8"),
        ("0.0.0.0/0", "overlaps 0.0.0.0/8"),
    ],
)
def test_bad_pools_are_refused_in_one_line_that_says_how_to_mend_it(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pool(IPv4Network(text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("first", ["192.168.202.0", "192.168.202.255", "10.0.0.1"])
def test_a_first_address_outside_is_refused(first: str) -> None:
    with pytest.raises(ConfigError, match="first address"):
        Pool(IPv4Network("192.168.202.0/24"), first=IPv4Address(first))


def test_a_pool_grows() -> None:
    """What was held stays, what was claimed outside of it may be inside now, and each address is granted once."""
    pool = pool_of("192.168.202.8/30")
    held = grant(pool, 1, vmac=ONE)
    pool.claim(held, ONE, 1)
    pool.claim(ip(13), TWO, 2)
    assert grant(pool, 3) == ip(10)
    pool.enlarge(IPv4Network("192.168.202.0/28"))
    assert (pool.holder(held), pool.holder(ip(13))) == (1, 2)
    granted = [grant(pool, connection) for connection in range(4, 15)]
    assert sorted(granted) == [ip(last) for last in range(1, 15) if last not in (9, 10, 13)]
    with pytest.raises(PoolFull, match=r"the pool 192\.168\.202\.0/28 is full: all 14 addresses"):
        grant(pool, 15)


def test_what_was_leased_or_reserved_outside_of_a_pool_that_grows_is_granted_to_nobody_else() -> None:
    pool = pool_of("192.168.202.8/30")
    pool.claim(ip(2), ONE, 1)
    pool.release(1)
    pool.reserve(Reservation(ip(3), vmac=TWO))
    pool.enlarge(IPv4Network("192.168.202.0/28"))
    granted = [grant(pool, connection) for connection in range(2, 14)]
    assert sorted(granted) == [ip(last) for last in range(1, 15) if last not in (2, 3)]
    assert grant(pool, 14, vmac=TWO) == ip(3)
    # The pool is full but for the address whose device is away.
    assert grant(pool, 15) == ip(2)
    with pytest.raises(PoolFull):
        grant(pool, 16)


@pytest.mark.parametrize("other", ["192.168.202.0/25", "10.0.0.0/8", "0.0.0.0/0"])
def test_a_pool_does_not_become_another(other: str) -> None:
    pool = pool_of()
    with pytest.raises(ConfigError):
        pool.enlarge(IPv4Network(other))
    with pytest.raises(ConfigError):
        Pool(None).enlarge(IPv4Network("10.0.0.0/8"))
    assert pool.network == IPv4Network("192.168.202.0/24")
