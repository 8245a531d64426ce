"""What a member makes of URLs that a relay tells, and which dialers it has."""

from ipaddress import IPv4Address

import pytest

from candy.errors import ConfigError
from candy.member.dial import Dialer
from candy.member.relays import Relays, usable_url
from candy.protocol.control import RELAYS_MAX, URL_MAX

OWN, OTHER = "wss://a.test/home", "wss://b.test/home"


class Made:
    """Relays of one URL, and which dialers were made."""

    def __init__(self, *own: str) -> None:
        self.made: list[str] = []
        self.relays = Relays([self.make(url) for url in own or (OWN,)], self.make, lambda: 0.0)

    def make(self, url: str) -> Dialer:
        if "broken" in url:
            raise ConfigError("it can't be used")
        self.made.append(url)
        return Dialer(url)


@pytest.mark.parametrize(
    ("told", "used"),
    [
        (OTHER, OTHER),
        ("wss://b.test/home/", "wss://b.test/home/"),
        ("wss://B.test:443/home", OTHER),
        ("wss://[2001:db8::1]:26816/home", "wss://[2001:db8::1]:26816/home"),
    ],
)
def test_what_is_used(told: str, used: str) -> None:
    assert usable_url(told, OWN) == used


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("", "is not a WebSocket URL"),
        ("https://b.test/home", "is not a WebSocket URL"),
        ("wss://b.test:0/home", "has port 0"),
        ("wss://b.test:70000/home", "has no port from 0 to 65535"),
        ("wss://[fe80::1]/home", "is without the interface"),
        ("ws://b.test/home", "is without TLS, which -w asks for"),
        ("wss://b.test/", "has another path than -w"),
        ("wss://b.test/home?x=1", "has another path than -w"),
        ("wss://me:secret@b.test/home", "has a user or a fragment in it"),
        ("wss://b.test/home#AQA", "has a user or a fragment in it"),
        ("wss://b.test/home".ljust(URL_MAX + 1, "/"), "is longer than 512 characters"),
    ],
)
def test_what_is_not(told: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        usable_url(told, OWN)


def test_without_tls_either_will_do() -> None:
    assert usable_url("ws://b.test", "ws://a.test/") == "ws://b.test/"
    assert usable_url("wss://b.test", "ws://a.test/") == "wss://b.test/"


def test_no_more_than_there_is_room_for(caplog: pytest.LogCaptureFixture) -> None:
    relays = Made().relays
    told = [f"wss://r{number}.test/home" for number in range(RELAYS_MAX + 3)]
    assert relays.tell(told) == tuple(told[:RELAYS_MAX])
    assert relays.others == told[:RELAYS_MAX]
    assert relays.tell([OTHER, "nonsense", OWN]) == (OTHER, OWN)
    assert relays.others == [OTHER]
    # That is said once.
    relays.tell(["nonsense"])
    assert len(caplog.messages) == 1


def test_a_dialer_is_made_when_it_is_needed() -> None:
    made = Made("ws://a.test/home")
    relays = made.relays
    relays.tell(["ws://b.test/home", "ws://c.test/home"])
    first = relays.next()
    relays.used(first)
    relays.held(first)
    assert (made.made, relays.has_others, relays.is_over) == (["ws://a.test/home"], True, True)
    relays.failed(first.relay)
    second = relays.next()
    assert made.made[1:] == ["ws://b.test/home"]
    # What leads may still be the first, and packets for neither may go into the tunnel.
    assert relays.at_hand is first
    for number, dialer in enumerate((first, second), 1):
        dialer.outer.addresses = frozenset({IPv4Address(f"192.0.2.{number}")})
    assert relays.exposed == {IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")}
    relays.used(second)
    assert relays.at_hand is second
    assert relays.exposed == {IPv4Address("192.0.2.2")}
    # And is made anew when it is gone to again.
    relays.failed(second.relay)
    relays.next()
    relays.left()
    assert relays.at_hand.relay == "ws://c.test/home"
    relays.failed("ws://c.test/home")
    assert relays.next() is first


def test_one_that_can_not_be_used() -> None:
    made = Made("ws://a.test/")
    made.relays.tell(["ws://broken.test/"])
    made.relays.failed("ws://a.test/")
    assert made.relays.following == "ws://broken.test/"
    with pytest.raises(ConfigError, match="it can't be used"):
        made.relays.next()
