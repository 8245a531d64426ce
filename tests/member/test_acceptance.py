"""Which networks a relay may lead into the tunnel: those whose addresses nobody has on the Internet, and named ones."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from candy.member.acceptance import ALL, Acceptance

PUBLIC = "not private, and not among --accept-routes"
NONE = "--accept-routes is none"


def networks(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


@pytest.mark.parametrize(
    ("destination", "doubt"),
    [
        # RFC 1918 and RFC 6598: whole, a part, and one bit too much.
        *[(text, None) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")],
        *[(text, None) for text in ("10.1.2.3/32", "172.31.255.0/24", "192.168.1.0/24", "100.127.0.0/16")],
        *[(text, PUBLIC) for text in ("10.0.0.0/7", "172.0.0.0/11", "192.168.0.0/15", "100.0.0.0/9")],
        *[(text, PUBLIC) for text in ("172.32.0.0/12", "100.128.0.0/10", "192.169.0.0/16", "11.0.0.0/8")],
        # All that has a private part.
        *[(text, PUBLIC) for text in ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "192.0.0.0/8", "172.0.0.0/8")],
        *[(text, PUBLIC) for text in ("8.8.8.8/32", "1.0.0.0/8", "203.0.113.0/24")],
        # Nobody's on the Internet, and not for members either.
        *[
            (text, PUBLIC)
            for text in ("169.254.0.0/16", "169.254.169.254/32", "127.0.0.0/8", "224.0.0.0/4", "0.0.0.0/8")
        ],
    ],
)
def test_by_default_private_networks_alone(destination: str, doubt: str | None) -> None:
    network = IPv4Network(destination)
    assert Acceptance().doubt(network) == doubt
    assert Acceptance().doubts_own(network) == (doubt is not None)


@pytest.mark.parametrize(
    ("named", "destination", "taken"),
    [
        (["203.0.113.0/24"], "203.0.113.0/24", True),
        (["203.0.113.0/24"], "203.0.113.128/25", True),
        (["203.0.113.0/24"], "203.0.112.0/23", False),
        (["203.0.113.0/24"], "8.8.8.8/32", False),
        # Private ones stay.
        (["203.0.113.0/24"], "10.1.0.0/16", True),
        # Neighbours make one, with private ones too.
        (["203.0.113.0/24", "203.0.112.0/24"], "203.0.112.0/23", True),
        (["11.0.0.0/8"], "10.0.0.0/7", True),
        (["0.0.0.0/0"], "0.0.0.0/0", True),
        (["0.0.0.0/0"], "8.8.8.8/32", True),
    ],
)
def test_what_is_named_is_taken_too(named: list[str], destination: str, taken: bool) -> None:
    acceptance = Acceptance(networks(*named))
    assert (acceptance.doubt(IPv4Network(destination)) is None) == taken
    assert acceptance.doubts_own(IPv4Network(destination)) != taken


@pytest.mark.parametrize("destination", ["10.1.0.0/16", "8.8.8.8/32", "0.0.0.0/0"])
def test_none_is_no_route_at_all(destination: str) -> None:
    assert Acceptance(None).doubt(IPv4Network(destination)) == NONE


def test_none_is_not_about_the_members_own_network() -> None:
    assert not Acceptance(None).doubts_own(IPv4Network("192.168.202.0/24"))
    assert Acceptance(None).doubts_own(IPv4Network("8.0.0.0/8"))


@given(address=st.ip_addresses(v=4), length=st.integers(0, 32))
@example(address=IPv4Address("10.0.0.0"), length=7)
def test_no_route_is_taken_that_has_a_globally_routable_address(address: IPv4Address, length: int) -> None:
    """Python's own registry (IANA's) is the model: of a network that is taken neither end is global, nor are those of
    either half."""
    network = IPv4Network((int(address) >> (32 - length) << (32 - length) if length else 0, length))
    if Acceptance().doubt(network) is None:
        parts = [network, *(network.subnets() if length < 32 else ())]
        assert not any(end.is_global for part in parts for end in (part[0], part[-1]))
        assert not any(end.is_link_local or end.is_loopback for end in (network[0], network[-1]))
    assert Acceptance([ALL]).doubt(network) is None
