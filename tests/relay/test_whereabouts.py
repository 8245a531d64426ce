"""Which ends are meant, and what a relay's networks know of them, from members in memory."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from kit.keyed import Keyed
from kit.login import DEVICE, by_password
from kit.talk import ONE, TWO, Talk, ip

from candy.errors import RequestError
from candy.protocol.hello import Hello
from candy.protocol.keys import fingerprint
from candy.protocol.login import Asked, Asks
from candy.relay.network import Network
from candy.relay.rules import Rule, Rules
from candy.relay.snapshot import Counters
from candy.relay.whereabouts import Counted, carrier_of_destination, carrier_of_source, end, meet, terms
from candy.relay.why import End

FAR = IPv4Address("172.16.0.9")
TO_LAN = Rule.parse("192.168.202.0/24,172.16.0.0/16,192.168.202.3")
OTHER_WAY = Rule.parse("192.168.202.128/25,172.16.0.0/16,192.168.202.4")
COUNTERS = Counters(1, 2, 3, 4, 5, 6, 700, 8_500_000, 1, 0)


def name(talk: Talk, connection: int, text: str) -> None:
    for session in talk.network.sessions:
        if session.connection == connection:
            session.hello = Hello("linux", "1", text)
            assert session.lease is not None
            talk.network.pool.leases.tell(session.lease, session.hello)


def ends(source: str, destination: str, networks: dict[str, Network]) -> tuple[End, End]:
    one, other = meet(source, destination, networks)
    sender = carrier_of_source(one.ip, networks[one.path])
    receiver = carrier_of_destination(other.ip, sender, networks[other.path])
    return (
        end(one, sender, networks[one.path], Counted()),
        end(other, receiver, networks[other.path], Counted()),
    )


def test_members_by_address_name_and_vmac(talk: Talk) -> None:
    name(talk, talk.member(ip(2), ONE), "Laptop")
    talk.member(ip(3), TWO)
    for wanted in ("192.168.202.2", "laptop", f"vmac:{ONE.decode()}"):
        source, destination = ends(wanted, "192.168.202.3", {"/": talk.network})
        assert (source.ip, source.name, source.through, source.is_here) == (ip(2), "Laptop", ip(2), True)
        assert (destination.ip, destination.name, destination.is_here) == (ip(3), "", True)


def test_one_that_has_left(talk: Talk) -> None:
    """Its lease says who and when."""
    connection = talk.member(ip(2), ONE)
    name(talk, connection, "laptop")
    talk.wall += 50
    talk.close(connection)
    source, destination = ends("laptop", "192.168.202.9", {"/": talk.network})
    assert (source.ip, source.through, source.is_here, source.last_seen) == (ip(2), ip(2), False, talk.wall)
    assert (destination.through, destination.is_here, destination.last_seen) == (None, False, None)


def test_names_of_nobody_and_of_several(talk: Talk) -> None:
    for last, vmac in ((2, ONE), (3, TWO)):
        name(talk, talk.member(ip(last), vmac), "twin")
    with pytest.raises(RequestError, match=r"^'nobody' is no address, nor the name of a member or of a lease"):
        meet("nobody", "192.168.202.3", {"/": talk.network})
    with pytest.raises(RequestError, match=r"^2 devices are 'twin': 192\.168\.202\.2 in /, 192\.168\.202\.3 in /: "):
        meet("twin", "192.168.202.3", {"/": talk.network})
    with pytest.raises(RequestError):
        meet("", "192.168.202.3", {"/": talk.network})


def test_what_lies_behind_a_member() -> None:
    talk = Talk(rules=Rules([TO_LAN]))
    talk.newcomer(ip(2), ONE)
    source, destination = ends("192.168.202.2", str(FAR), {"/": talk.network})
    assert source.rule is None
    assert (destination.through, destination.rule, destination.is_here) == (ip(3), TO_LAN, False)
    talk.newcomer(ip(3), TWO)
    assert ends("192.168.202.2", str(FAR), {"/": talk.network})[1].is_here
    # Back: from behind the gateway, whose own address a rule's device need not have.
    source, destination = ends(str(FAR), "192.168.202.2", {"/": talk.network})
    assert (source.through, source.rule, source.is_here, destination.is_here) == (ip(3), TO_LAN, True, True)
    # The next hop itself has no way there by its own rule.
    assert ends("192.168.202.3", str(FAR), {"/": talk.network})[1].through is None


def test_of_two_gateways_to_one_lan_the_one_that_is_there() -> None:
    """Each is other members' way; either may send from there."""
    talk = Talk(rules=Rules([TO_LAN, OTHER_WAY]))
    talk.newcomer(ip(4), TWO)
    source, _ = ends(str(FAR), "192.168.202.77", {"/": talk.network})
    assert (source.through, source.rule, source.is_here) == (ip(4), OTHER_WAY, True)


def test_two_networks() -> None:
    """An address alone says not in which it is: both ends are in one, unless one is known in another alone."""
    home, office = Talk(), Talk()
    home.member(ip(2), ONE)
    office.member(ip(3), TWO)
    networks = {"/": home.network, "/office": office.network}
    assert [place.path for place in meet("192.168.202.2", "192.168.202.3", networks)] == ["/", "/office"]
    office.member(ip(2), ONE)
    assert [place.path for place in meet("192.168.202.2", "192.168.202.3", networks)] == ["/office", "/office"]
    assert [place.path for place in meet("192.168.202.2", "192.168.202.77", networks)] == ["/", "/"]
    assert [place.path for place in meet("192.168.202.77", "192.168.202.3", networks)] == ["/office", "/office"]


def test_the_relay_itself_and_groups(talk: Talk) -> None:
    talk.network.host(1 << 40, ip(1))
    talk.member(ip(2), ONE)
    _, relay = ends("192.168.202.2", "192.168.202.1", {"/": talk.network})
    assert (relay.through, relay.is_here, relay.is_relay) == (ip(1), True, True)
    assert (relay.takes_sealed, relay.takes_clear) == (False, True)
    for group in ("192.168.202.255", "255.255.255.255", "224.0.0.251"):
        assert ends("192.168.202.2", group, {"/": talk.network})[1].is_group
    assert not ends("192.168.202.2", "192.168.202.254", {"/": talk.network})[1].is_group


@pytest.mark.parametrize(
    ("flags", "takes_sealed", "takes_clear"),
    [(Asks(0), True, True), (Asks.REQUIRES_SEALING, True, False), (Asks.SEALS_NOTHING, False, True)],
)
def test_how_a_member_with_a_key_seals(flags: Asks, takes_sealed: bool, takes_clear: bool) -> None:
    keyed = Keyed()
    keyed.member(by_password(), asked=Asked(flags=flags))
    [session] = keyed.network.sessions
    found, _ = ends(str(session.ip), "192.168.202.77", {"/": keyed.network})
    assert (found.takes_sealed, found.takes_clear) == (takes_sealed, takes_clear)


def test_a_device_that_was_revoked() -> None:
    keyed = Keyed()
    _, outcome = keyed.member(by_password())
    keyed.keep(keyed.network.revoke(DEVICE.public, keyed.now, keyed.wall))
    found, _ = ends(str(outcome.told.address.ip), "192.168.202.77", {"/": keyed.network})
    assert (found.is_here, found.is_revoked) == (False, True)
    # By its key, too.
    assert ends(f"key:{fingerprint(DEVICE.public)}", "192.168.202.77", {"/": keyed.network})[0] == found


def test_an_old_client_seals_nothing(talk: Talk) -> None:
    talk.member(ip(2), ONE)
    found, _ = ends("192.168.202.2", "192.168.202.77", {"/": talk.network})
    assert (found.takes_sealed, found.takes_clear) == (False, True)


def test_what_was_dropped_between_two_looks(talk: Talk) -> None:
    talk.member(ip(2), ONE)
    before = Counted(COUNTERS, 0.1, {"delay": 3, "stalled": 1})
    now = Counted(COUNTERS, 0.2, {"delay": 5, "stalled": 1, "memory": 0}).since(before)
    place, _ = meet("192.168.202.2", "192.168.202.77", {"/": talk.network})
    found = end(place, carrier_of_source(place.ip, talk.network), talk.network, now)
    assert found.dropped == {"delay": 2}
    assert found.dropped_before == {"delay": 5, "stalled": 1, "memory": 0}
    assert (found.heard_s, found.queued_bytes, found.queue_delay_ms) == (0.2, 700, 8.5)
    # Of another connection, or none, nothing is known of the time before.
    for other in (Counted(), Counted(COUNTERS._replace(connection=9), 0.1, {"delay": 3})):
        assert now.since(other).drops_now == now.drops_now


def test_the_terms_of_a_network() -> None:
    talk = Talk(rules=Rules([TO_LAN]), tell_gateways=False, forward_broadcast=False)
    held = terms(talk.network)
    assert (held.pool, held.rules.rules) == (IPv4Network("192.168.202.0/24"), (TO_LAN,))
    assert (held.checks_source, held.forwards_broadcast) == (False, False)
