"""Which addresses can be a member's, and which peers are one source."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from candy.protocol.addresses import broadcast_of, is_unicast, source_of


@pytest.mark.parametrize(
    ("address", "unicast"),
    [
        ("10.0.0.1", True),
        ("192.168.202.255", True),
        ("1.0.0.0", True),
        ("126.255.255.255", True),
        ("223.255.255.255", True),
        ("0.0.0.0", False),
        ("0.1.2.3", False),
        ("127.0.0.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
    ],
)
def test_unicast(address: str, unicast: bool) -> None:
    assert is_unicast(IPv4Address(address)) is unicast


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("203.0.113.5", "203.0.113.5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::2", "::/64"),
        # This machine, by whichever of its addresses.
        ("127.0.0.1", "127.0.0.1"),
        ("127.9.8.7", "127.0.0.1"),
        ("::1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_source(address: str, source: str) -> None:
    assert source_of(address) == source


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("10.0.0.0/8", "10.255.255.255"),
        ("10.0.0.8/30", "10.0.0.11"),
        ("10.0.0.8/31", "255.255.255.255"),
        ("10.0.0.8/32", "255.255.255.255"),
    ],
)
def test_what_is_for_all_in_a_network(network: str, address: str) -> None:
    assert broadcast_of(IPv4Network(network)) == IPv4Address(address)
