"""A member's settings: defaults, and what every wrong value is answered with."""

from dataclasses import FrozenInstanceError, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from candy.carrier import pin
from candy.errors import ConfigError
from candy.member.settings import MemberSettings, change, member_settings
from candy.protocol.link import Link
from candy.settings import Given


def on_line(**values: Any) -> dict[str, Given]:
    return {key: Given(value, f"--{key}") for key, value in values.items()}


def member(**values: Any) -> MemberSettings:
    return member_settings(on_line(**{"websocket": "ws://relay:26816"} | values), password=b"secret")


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "file.pem"
    path.touch()
    return str(path)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDY_STATE_DIR", "/somewhere")
    assert vars(member()) == {
        "password": b"secret",
        "state_dir": Path("/somewhere"),
        "debug": False,
        "timestamps": True,
        "log_format": "text",
        "urls": ("ws://relay:26816/",),
        "network_key": None,
        "link_pins": (),
        "name": None,
        "tun": None,
        "accept_routes": (),
        "mtu": 1400,
        "extension": True,
        "masquerade": False,
        "seal": "prefer",
        "secret": None,
        "offload": True,
        "insecure": False,
        "ca_file": None,
        "pins": (),
        "ml_kem": False,
        "direct": True,
        "endpoints": (),
        "stun": None,
        "port": 0,
        "localhost": None,
        "discovery": 0,
        "route": 0,
        "control_socket": None,
        "control_group": None,
        "control": None,
        "control_token_file": None,
    }


def test_settings_are_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        member().debug = True  # type: ignore[misc]


def test_password_is_in_no_repr() -> None:
    settings = member()
    assert settings.password == b"secret"
    assert "secret" not in f"{settings} {settings!r}"


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("ws://relay", "ws://relay/"),
        ("wss://relay.example.org", "wss://relay.example.org/"),
        ("ws://127.0.0.1:26816/office/eu", "ws://127.0.0.1:26816/office/eu"),
        ("wss://relay:1/?a=b", "wss://relay:1/?a=b"),
        ("ws://[::1]:26816", "ws://[::1]:26816/"),
        ("ws://[fe80::1%25eth0]:26816", "ws://[fe80::1%25eth0]:26816/"),
        ("ws://[fe80::1%eth0]", "ws://[fe80::1%eth0]/"),
        ("wss://me%40here:p%3Aw@relay", "wss://me%40here:p%3Aw@relay/"),
    ],
)
def test_url(written: str, url: str) -> None:
    assert member(websocket=written).url == url


def test_values_as_text(pem: str) -> None:
    settings = member(
        name="home",
        tun="192.168.202.5/24",
        mtu="1479",
        ca_file=pem,
        stun="stun://stun.example.org:3478",
        port="26817",
        localhost="192.168.1.5",
        discovery="300",
        endpoint=["198.51.100.7:5000", "[2001:db8::7]:1"],
        route="5",
        debug="true",
    )
    assert settings.tun == IPv4Interface("192.168.202.5/24")
    assert settings.localhost == IPv4Address("192.168.1.5")
    assert settings.stun == ("stun.example.org", 3478)
    assert [str(endpoint) for endpoint in settings.endpoints] == ["198.51.100.7:5000", "[2001:db8::7]:1"]
    assert (settings.mtu, settings.port, settings.discovery, settings.route) == (1479, 26817, 300, 5)
    assert (settings.ca_file, settings.debug) == (Path(pem), True)


@pytest.mark.parametrize("key", ["name", "tun", "stun", "localhost"])
def test_empty_text_is_nothing(key: str) -> None:
    assert getattr(member(**{key: ""}), key) is None


@pytest.mark.parametrize(
    ("name", "interface"), [(None, "candy"), ("home", "candy-home"), ("123456789", "candy-123456789")]
)
def test_interface(name: str | None, interface: str) -> None:
    assert member(**({"name": name} if name else {})).interface == interface


@pytest.mark.parametrize(
    ("written", "networks"),
    [
        ((), ()),
        ("203.0.113.0/24", (IPv4Network("203.0.113.0/24"),)),
        (("203.0.113.0/24", "8.8.8.8"), (IPv4Network("203.0.113.0/24"), IPv4Network("8.8.8.8/32"))),
        ("all", (IPv4Network("0.0.0.0/0"),)),
        (("all",), (IPv4Network("0.0.0.0/0"),)),
        ("none", None),
    ],
)
def test_routes_to_accept(written: str | tuple[str, ...], networks: tuple[IPv4Network, ...] | None) -> None:
    assert member(accept_routes=written).accept_routes == networks


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            ("10.0.0.0/8", "8.8.8.8/24"),
            "'10.0.0.0/8, 8.8.8.8/24' is not a network: write it like 203.0.113.0/24, or all, or none",
        ),
        ("", "'' is not a network"),
        ("2001:db8::/32", "'2001:db8::/32' is not a network"),
        (("all", "none"), "'all, none' says more than one thing: name networks, or write all or none alone"),
        (("none", "8.8.8.8"), "'none, 8.8.8.8' says more than one thing"),
    ],
)
def test_refuses_routes_to_accept(written: str | tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        member(accept_routes=written)
    assert str(refused.value).startswith(f"--accept_routes: {message}")


URL = "write it like ws://host:26816 or wss://host"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("websocket", "relay.example.org", f"'relay.example.org' is not a WebSocket URL: {URL}"),
        ("websocket", "ws://relay:0", "'ws://relay:0' has port 0: give the port that the relay listens on"),
        ("websocket", "ws://re lay", f"'ws://re lay' is not a URL: {URL}"),
        ("websocket", "ws://relay\n", f"'ws://relay\\n' is not a URL: {URL}"),
        (
            "websocket",
            "ws://[fe80::1]:26816",
            "'ws://[fe80::1]:26816' is without the interface: write it like ws://[fe80::1%25eth0]:26816",
        ),
        ("websocket", "ws://[fe80::1%25]:26816", f"'ws://[fe80::1%25]:26816' is not a URL: {URL}"),
        (
            "websocket",
            "ws://a%3Ab:x@relay",
            "'ws://…@relay' has a colon in the user, which HTTP takes for the user's end: choose one without",
        ),
        ("name", "1234567890", "'1234567890' is too long: candy-NAME may have 15 letters, so NAME 9"),
        ("name", "a/b", "'a/b' is not a name for an interface: use letters and digits"),
        ("name", "..", "'..' is not a name for an interface"),
        ("name", "%d", "'%d' is not a name for an interface"),
        ("tun", "192.168.202.5", "'192.168.202.5' has no prefix length: write it like 192.168.202.5/24"),
        ("tun", "192.168.202.5/33", "is not an address with prefix length: write it like 192.168.202.5/24"),
        ("tun", "192.168.202.256/24", "is not an address with prefix length"),
        ("tun", "192.168.202.0/24", "broadcast address: choose another in 192.168.202.0/24"),
        ("tun", "192.168.202.255/24", "broadcast address: choose another in 192.168.202.0/24"),
        ("tun", "0.0.0.0/0", "is not an address for a member"),
        ("tun", "127.0.0.1/8", "is not an address for a member"),
        ("tun", "224.0.0.1/24", "is not an address for a member"),
        ("mtu", "575", "'575' is too small: use 576 or more"),
        ("mtu", "1480", "'1480' is too large: use 1479 or less"),
        ("mtu", "", "'' is not a whole number"),
        ("ca_file", "/", "'/' is not a file: give the path of one that exists"),
        ("stun", "stun.example.org", "is not a STUN server: write it like stun://stun.example.org"),
        ("port", "65536", "'65536' is too large: use 65535 or less"),
        ("endpoint", "198.51.100.7", "has no port from 1 to 65535: write it like 198.51.100.7:5000"),
        ("endpoint", "198.51.100.7:0", "has no port from 1 to 65535"),
        ("endpoint", "host:5000", "is not an address and a port: write it like 198.51.100.7:5000"),
        ("endpoint", "127.0.0.1:5000", "is not an address by which other machines reach this one"),
        ("localhost", "::1", "'::1' is not an IPv4 address: write it like 192.168.1.5"),
        ("discovery", "-1", "'-1' is too small: use 0 or more"),
        ("route", "1001", "'1001' is too large: use 1000 or less"),
        ("debug", "perhaps", "'perhaps' is neither true nor false"),
    ],
)
def test_refuses(key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        member(**{key: value})
    assert str(refused.value).startswith(f"--{key}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("given", [{}, {"websocket": Given("", "candy.cfg:3: websocket")}])
def test_needs_a_relay(given: dict[str, Given]) -> None:
    with pytest.raises(ConfigError, match=r"^no relay given: add -w ws"):
        member_settings(given, password=b"secret")


def test_pins() -> None:
    one, other = (pin.shown(bytes([number]) * 32) for number in (1, 2))
    assert member(pin=one).pins == (b"\1" * 32,)
    assert member(pin=(one, other)).pins == (b"\1" * 32, b"\2" * 32)
    with pytest.raises(
        ConfigError, match=r"^--pin: 'sha256/x' is not a pin: write it as the relay prints it, sha256/ and"
    ):
        member(pin=(one, "sha256/x"))
    with pytest.raises(
        ConfigError, match=r"^--insecure and --pin exclude each other: a pin needs no authority, so rem"
    ):
        member(pin=one, insecure=True)
    changed = change(member(pin=one), member(pin=(one, other)))
    assert (changed.applied, changed.left, changed.takes_connection) == (["pin"], [], True)


def test_settings_that_are_read_again() -> None:
    """What a connection is made by is applied, and all else is left for a restart."""
    running = member(mtu="1300", name="home")
    wanted = member_settings(
        on_line(
            websocket="wss://other/",
            tun="192.168.202.5/24",
            accept_routes="all",
            insecure=True,
            ml_kem=True,
            no_extension=True,
            mtu="1200",
            no_offload=True,
            masquerade=True,
            debug=True,
            discovery="300",
        ),
        password=b"another",
    )
    changed = change(running, wanted)
    assert changed.applied == [
        "accept_routes",
        "debug",
        "insecure",
        "ml_kem",
        "no_extension",
        "password",
        "tun",
        "websocket",
    ]
    assert changed.left == ["discovery", "masquerade", "mtu", "name", "no_offload"]
    assert changed.takes_connection
    assert changed.settings == replace(wanted, mtu=1300, name="home", offload=True, masquerade=False, discovery=0)
    # What is left is named again, and what was applied is not.
    again = change(changed.settings, wanted)
    assert (again.applied, again.left, again.settings) == ([], changed.left, changed.settings)
    assert change(running, running) == (running, [], False, [])
    assert change(running, replace(running, debug=True)).applied == ["debug"]
    assert not change(running, replace(running, debug=True)).takes_connection


NETWORK, PIN = bytes([1]) * 32, bytes([2]) * 32


def test_a_line_with_the_networks_key() -> None:
    settings = member(websocket=f"wss://relay/home#{Link(NETWORK, pin=PIN).encode()}", pin=pin.shown(NETWORK))
    assert (settings.url, settings.network_key) == ("wss://relay/home", NETWORK)
    assert settings.pins_of("wss://relay/home") == (NETWORK, PIN)
    settings = member(websocket=f"ws://relay#{Link(NETWORK).encode()}")
    assert (settings.url, settings.network_key, settings.pins_of(settings.url)) == ("ws://relay/", NETWORK, ())


def test_several_relays() -> None:
    line, other = (f"wss://{host}#{Link(NETWORK, pin=its).encode()}" for host, its in (("a", PIN), ("b", None)))
    settings = member(websocket=(line, "wss://c/", other), pin=pin.shown(NETWORK))
    assert settings.urls == ("wss://a/", "wss://c/", "wss://b/")
    assert settings.network_key == NETWORK
    assert [settings.pins_of(url) for url in settings.urls] == [(NETWORK, PIN), (NETWORK,), (NETWORK,)]
    # One that a relay told has no pin of its own.
    assert settings.pins_of("wss://d/") == (NETWORK,)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (("ws://a", "ftp://b"), "'ftp://b' is not a WebSocket URL"),
        (("ws://a", "ws://me:secret@a/"), "names ws://a/ twice: remove one"),
        (tuple(f"ws://relay{number}" for number in range(17)), "17 of --websocket: use 16 or less"),
        (
            (f"ws://a#{Link(NETWORK).encode()}", f"ws://b#{Link(PIN).encode()}"),
            "'ws://b#…' is of another network than the first one",
        ),
    ],
)
def test_several_relays_that_can_not_be(written: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        member(websocket=written)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("fragment", ["", "x", "AAAA", Link(NETWORK).encode()[:-2], "é"])
def test_a_line_whose_key_is_none(fragment: str) -> None:
    with pytest.raises(ConfigError, match="behind its #") as refused:
        member(websocket=f"ws://relay#{fragment}")
    assert str(refused.value).startswith("--websocket: 'ws://relay#…' ")


def test_what_the_key_of_a_line_excludes() -> None:
    line = f"wss://relay#{Link(NETWORK, pin=PIN).encode()}"
    with pytest.raises(ConfigError, match="--no-extension logs in as old clients do"):
        member(websocket=line, no_extension=True)
    with pytest.raises(ConfigError, match="--insecure takes any certificate, but the URL pins the relay's"):
        member(websocket=line, insecure=True)


def test_how_packets_are_sealed() -> None:
    assert member(seal="require").seal == "require"
    with pytest.raises(ConfigError, match="--seal: 'always' is not one of"):
        member(seal="always")


def test_another_key_takes_another_connection() -> None:
    other = member(websocket=f"ws://relay:26816#{Link(NETWORK).encode()}")
    changed = change(member(), other)
    assert (changed.applied, changed.takes_connection, changed.settings.network_key) == (["websocket"], True, NETWORK)
