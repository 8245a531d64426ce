"""Which addresses can be a member's."""

from ipaddress import IPv4Address

import pytest

from candy.protocol.addresses import is_unicast


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
