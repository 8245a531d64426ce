"""The client behind reverse proxies that are trusted, whatever a stranger writes into the headers."""

from ipaddress import ip_network

import pytest

from candy.relay.proxies import TrustedProxies

PROXIES = TrustedProxies(ip_network(text) for text in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "2001:db8:ffff::/48"))
PROXY = "10.0.0.1"


@pytest.mark.parametrize("peer", ["203.0.113.5", "2001:db8:1:2::1", "fe80::1%eth0", "::ffff:203.0.113.5", "unknown"])
def test_a_stranger_can_say_what_he_wants(peer: str) -> None:
    assert peer not in PROXIES
    assert PROXIES.client(peer, ["for=198.51.100.1"], ["198.51.100.1"]) == peer


def test_nobody_is_trusted_who_is_not_named() -> None:
    proxies = TrustedProxies(())
    assert "127.0.0.1" not in proxies
    assert proxies.client("127.0.0.1", (), ["203.0.113.5"]) == "127.0.0.1"


def test_an_address_in_either_form() -> None:
    assert "10.0.0.1" in PROXIES
    assert "::ffff:10.0.0.1" in PROXIES
    assert PROXIES.client("::ffff:10.0.0.1", (), ["203.0.113.5"]) == "203.0.113.5"


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["203.0.113.5"], "203.0.113.5"),
        (["203.0.113.5:4711"], "203.0.113.5"),
        (["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2:3:4:5:6"),
        (["[2001:db8:1:2:3:4:5:6]:4711"], "2001:db8:1:2:3:4:5:6"),
        (["::ffff:203.0.113.5"], "203.0.113.5"),
        # What stands to the left of the first that is not trusted is a stranger's word.
        (["198.51.100.1, 203.0.113.5"], "203.0.113.5"),
        (["127.0.0.1,203.0.113.5"], "203.0.113.5"),
        (["198.51.100.1", "203.0.113.5"], "203.0.113.5"),
        # Two proxies.
        (["198.51.100.1, 203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        (["203.0.113.5, 2001:db8:ffff::7, 10.0.0.2"], "203.0.113.5"),
        # A client in a trusted network.
        (["10.0.0.9"], "10.0.0.9"),
        # Malformed: the last trusted one counts.
        (["nobody"], PROXY),
        ([""], PROXY),
        (["203.0.113.5,"], PROXY),
        (["203.0.113.5, nobody, 10.0.0.2"], "10.0.0.2"),
        (["203.0.113.256"], PROXY),
        (["1.2.3"], PROXY),
        (["203.0.113.5:port"], PROXY),
        (["[203.0.113.5"], PROXY),
        # Loopback of another machine is not exempt.
        (["127.0.0.1"], "proxy 127.0.0.1"),
        (["::1"], "proxy ::1"),
        ([], PROXY),
    ],
)
def test_x_forwarded_for(lines: list[str], client: str) -> None:
    assert PROXIES.client(PROXY, (), lines) == client


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["for=203.0.113.5"], "203.0.113.5"),
        (["For=203.0.113.5;proto=https;by=10.0.0.1"], "203.0.113.5"),
        (['for="203.0.113.5:4711"'], "203.0.113.5"),
        (['for="[2001:db8:1:2:3:4:5:6]:4711"'], "2001:db8:1:2:3:4:5:6"),
        (["for=198.51.100.1, for=203.0.113.5 , for=10.0.0.2"], "203.0.113.5"),
        (["for=198.51.100.1", "proto=http;for=203.0.113.5"], "203.0.113.5"),
        (['by="a,for=198.51.100.1";for=203.0.113.5'], "203.0.113.5"),
        (['for="203.0.113.\\5"'], "203.0.113.5"),
        # Malformed.
        (["for=unknown"], PROXY),
        (["for=_hidden"], PROXY),
        (["proto=http"], PROXY),
        (["for=198.51.100.1;for=203.0.113.5"], PROXY),
        (["for=203.0.113.5, proto=http"], PROXY),
        (["for = 203.0.113.5"], PROXY),
        (["203.0.113.5"], PROXY),
        ([""], PROXY),
        # A quote that a stranger opens would swallow what the proxy adds.
        (['for=198.51.100.1, x="', "for=203.0.113.5"], PROXY),
        (['for="198.51.100.1, for=203.0.113.5'], PROXY),
    ],
)
def test_forwarded(lines: list[str], client: str) -> None:
    assert PROXIES.client(PROXY, lines, ()) == client


def test_both_headers() -> None:
    """A proxy that writes one passes on what a stranger wrote into the other."""
    assert PROXIES.client(PROXY, ["for=203.0.113.5"], ["203.0.113.5"]) == "203.0.113.5"
    assert PROXIES.client(PROXY, ["for=198.51.100.1"], ["203.0.113.5"]) == PROXY
    assert PROXIES.client(PROXY, ["nonsense"], ["203.0.113.5"]) == PROXY


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
def test_a_trusted_proxy_on_loopback_is_not_exempt(peer: str) -> None:
    assert PROXIES.client(peer, (), ["203.0.113.5"]) == "203.0.113.5"
    assert PROXIES.client(peer, (), ["nobody"]) == f"proxy {peer}"
    assert PROXIES.client(peer, (), ()) == f"proxy {peer}"


def test_a_header_of_the_longest_that_is_read() -> None:
    for value in ('for="' + "\\a" * 4000, "a=b;" * 2000, "a=b, " * 1600, 'a="b" ' * 1300):
        assert PROXIES.client(PROXY, [value], ()) == PROXY
