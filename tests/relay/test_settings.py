"""A relay's settings: defaults, what every wrong value is answered with, and networks that have to get along."""

import os
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, fields
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from candy.errors import ConfigError
from candy.relay.enrolment import Admit
from candy.relay.networksettings import NetworkSettings
from candy.relay.passwords import PASSWORDS_MAX, Password
from candy.relay.reservations import Reservation
from candy.relay.rules import MAX_RULES, Rule
from candy.relay.settings import MAX_NETWORKS, RelaySettings, canonical_path, relay_settings
from candy.settings import Given, GivenNetwork


def on_line(**values: Any) -> dict[str, Given]:
    return {key: Given(value, f"--{key}") for key, value in values.items()}


def relay(networks: Sequence[GivenNetwork] = (), /, **values: Any) -> RelaySettings:
    return relay_settings(on_line(**values), password=b"secret", networks=networks)


def main(**values: Any) -> NetworkSettings:
    """The network `/`."""
    return relay(**values).networks[0]


def further(path: str, password: bytes | None = b"other", **values: Any) -> GivenNetwork:
    given = {key: Given(value, f"file.toml:9: {key}") for key, value in values.items()}
    origin = "file.toml:8: network"
    return GivenNetwork(Given(path, origin), given, None if password is None else Given(password, origin))


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "file.pem"
    path.touch()
    return str(path)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDY_STATE_DIR", "/somewhere")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    settings = relay()
    assert vars(settings) | {"networks": tuple(map(vars, settings.networks))} == {
        "state_dir": Path("/somewhere"),
        "debug": False,
        "timestamps": True,
        "log_format": "text",
        "networks": (
            {
                "path": "/",
                "password": b"secret",
                "passwords": (),
                "password_is_generated": False,
                "admit": Admit.PASSWORD,
                "legacy": True,
                "pool": IPv4Network("192.168.202.0/24"),
                "allow_outside_pool": False,
                "rules": (),
                "tun": None,
                "seal": "prefer",
                "direct": True,
                "check_source": True,
                "forward_broadcast": True,
                "auth_timeout": 10.0,
                "clock_tolerance": 300,
                "max_members": 0,
                "new_devices_per_minute": 100,
                "limit_down": 0,
                "limit_up": 0,
                "network_limit_down": 0,
                "network_limit_up": 0,
                "quota": 0,
                "quota_rate": 1_000_000,
                "lease_days": 30,
                "reservations": (),
            },
        ),
        "host": None,
        "port": 26816,
        "public_url": None,
        "tls_certificate": (),
        "tls_key": (),
        "tls_self_signed": False,
        "ml_kem": False,
        "allow_origin": (),
        "trusted_proxies": (),
        "control_socket": None,
        "control_group": None,
        "control": None,
        "control_token_file": None,
        "metrics": None,
        "unauthenticated_per_source": 64,
        "failures_per_minute": 60,
        "workers": 7,
        "queue_bytes": 4 * 1024 * 1024,
        "max_connections": 65536,
        "cluster": None,
        "stun": True,
        "stun_listen": None,
    }


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://example.org",
        "http://10.0.0.1:8080",
        "http://[::1]:8080",
        "moz-extension://0a-1",
        "http://x:443",
    ],
)
def test_origins(origin: str) -> None:
    assert relay(allow_origin=(origin, "null")).allow_origin == (origin, "null")


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "",
        "example.org",
        "https://example.org/",
        "https://Example.org",
        "https://example.org:443",
        "http://x:80",
        "NULL",
    ],
)
def test_what_is_no_origin(origin: str) -> None:
    """Each value is exact, so one that no browser would send is a mistake."""
    with pytest.raises(ConfigError) as caught:
        relay(allow_origin=("https://example.org", origin))
    assert str(caught.value) == (
        f"--allow_origin: {origin!r} is not an origin as browsers write it, like https://example.org or "
        "http://10.0.0.1:8080"
    )


@pytest.mark.parametrize(("cores", "workers"), [(2, 1), (64, 63), (65, 64), (66, 64), (1024, 64)])
def test_a_machine_of_many_cores(monkeypatch: pytest.MonkeyPatch, cores: int, workers: int) -> None:
    """F1: "a machine with 66 or more usable cores: traceback instead of a relay"."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert relay().workers == workers


def test_one_core_has_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert relay().workers == 1


@pytest.mark.parametrize("settings", [relay(), main()])
def test_settings_are_immutable(settings: RelaySettings | NetworkSettings) -> None:
    name = fields(settings)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(settings, name, None)


def test_passwords_are_in_no_repr() -> None:
    settings = relay([further("/home", b"secret too")])
    assert [network.password for network in settings.networks] == [b"secret", b"secret too"]
    assert "secret" not in f"{settings} {settings!r}"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("ws://0.0.0.0:26816", "0.0.0.0", 26816),
        ("ws://127.0.0.1:0/any/path", "127.0.0.1", 0),
        ("ws://relay.example.org", "relay.example.org", 80),
        ("ws://[::1]:8080/", "::1", 8080),
        ("ws://[0::0]:26816", "::", 26816),
        ("ws://[FE80::1%25eth0]:26816", "fe80::1%eth0", 26816),
        ("ws://[fe80::1%eth0]:26816", "fe80::1%eth0", 26816),
    ],
)
def test_listens(url: str, host: str, port: int) -> None:
    settings = relay(websocket=url)
    assert (settings.host, settings.port, settings.tls_certificate) == (host, port, ())


def test_with_tls(pem: str) -> None:
    settings = relay(websocket="wss://0.0.0.0", tls_certificate=pem, tls_key=pem)
    assert (settings.port, settings.tls_certificate, settings.tls_key) == (443, (Path(pem),), (Path(pem),))
    assert relay(tls_certificate=pem, tls_key=pem).port == 26816


def test_trusted_proxies() -> None:
    assert relay(trusted_proxy=("10.0.0.5", "10.1.2.3/16", "::1")).trusted_proxies == (
        IPv4Network("10.0.0.5/32"),
        IPv4Network("10.1.0.0/16"),
        IPv6Network("::1/128"),
    )


@pytest.mark.parametrize(
    ("written", "pool"),
    [
        ("192.168.202.0/24", "192.168.202.0/24"),
        ("192.168.202.17/24", "192.168.202.0/24"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/255.255.255.252", "10.0.0.0/30"),
    ],
)
def test_pool(written: str, pool: str) -> None:
    assert main(dhcp=written).pool == IPv4Network(pool)


def test_no_pool() -> None:
    assert main(dhcp="").pool is None


URL = "write it like ws://host:26816 or wss://host"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("websocket", "", f"'' is not a WebSocket URL: {URL}"),
        ("websocket", "0.0.0.0:26816", f"'0.0.0.0:26816' is not a WebSocket URL: {URL}"),
        ("websocket", "http://0.0.0.0", f"'http://0.0.0.0' is not a WebSocket URL: {URL}"),
        ("websocket", "ws://:26816", f"'ws://:26816' is not a WebSocket URL: {URL}"),
        ("websocket", "ws://0.0.0.0:65536", "'ws://0.0.0.0:65536' has no port from 0 to 65535: write it"),
        ("websocket", "ws://0.0.0.0:http", "'ws://0.0.0.0:http' has no port from 0 to 65535: write it"),
        ("websocket", "ws://[::1", "'ws://[::1' is not a URL: write it"),
        (
            "websocket",
            "wss://0.0.0.0",
            "'wss://0.0.0.0' needs --tls-certificate and --tls-key, or --tls-self-signed, or write ws://",
        ),
        ("dhcp", "192.168.202.0", "'192.168.202.0' has no prefix length: write it like 192.168.202.0/24"),
        ("dhcp", "192.168.202", "'192.168.202' is not an IPv4 network: write it like 192.168.202.0/24"),
        ("dhcp", "192.168.202.0/31", "'192.168.202.0/31' is not a size for a pool"),
        ("dhcp", "0.0.0.0/0", "'0.0.0.0/0' is not a size for a pool"),
        ("dhcp", "192.168.202.0/33", "is not an IPv4 network: write it like 192.168.202.0/24"),
        ("dhcp", "fd00::/64", "is not an IPv4 network"),
        ("dhcp", "127.0.0.0/16", "'127.0.0.0/16' overlaps 127.0.0.0/8, where no member can be"),
        ("tun", "192.168.202.1", "'192.168.202.1' has no prefix length: write it like 192.168.202.1/24"),
        ("tun", "192.168.202.0/24", "'192.168.202.0/24' is the network's own or its broadcast address"),
        ("tun", "192.168.203.1/24", "'192.168.203.1/24' is not a member's address in the pool 192.168.202.0/24"),
        ("tun", "192.168.202.255/16", "'192.168.202.255/16' is not a member's address in the pool 192.168.202.0/24"),
        ("max_members", "-1", "'-1' is too small: use 0 or more"),
        ("limit_down", "10Q", "'10Q' is not a rate in bits a second: write it like 10M or 500k, 0 for no limit"),
        ("limit_up", "7999", "'7999' is too little: use 8000 bits a second or more, or 0 for no limit"),
        ("network_limit_up", "2T", "'2T' is too large: use 1000000000000 or less"),
        ("quota", "5Gbit", "'5Gbit' is not a number of bytes: write it like 200G or 1.5T, 0 for no limit"),
        ("tls_certificate", "/nowhere.pem", "'/nowhere.pem' is not a file: give the path of one that exists"),
        ("auth_timeout", "0", "'0' is too small: it must be more than 0"),
        ("auth_timeout", "nan", "'nan' is not a number"),
        ("auth_timeout", "soon", "'soon' is not a number"),
        ("auth_timeout", "3601", "'3601' is too large: use 3600"),
        ("clock_tolerance", "-1", "'-1' is too small: use 1 or more"),
        ("unauthenticated_per_source", "0", "'0' is too small: use 1 or more"),
        ("failures_per_minute", "many", "'many' is not a whole number"),
        ("workers", "65", "'65' is too large: use 64 or less"),
        ("queue_bytes", "1500", "'1500' is too small: use 131072 or more"),
        ("max_connections", "9" * 5000, "is too large"),
        ("trusted_proxy", ("::1", "proxy"), "'proxy' is not an address or network of a proxy: write it"),
        ("trusted_proxy", ("",), "'' is not an address or network of a proxy"),
        ("public_url", "https://vpn.example.org", "'https://vpn.example.org' is not a WebSocket URL: "),
        ("public_url", "wss://x/?a=b", "'wss://x/?a=b' is more than scheme, host, port and path: write it"),
        ("public_url", "wss://u:p@x", "'wss://…@x' is more than scheme, host, port and path: "),
        ("stun_listen", "443", "'443' is not an address and a port: write it like 127.0.0.1:26817"),
        ("metrics", "127.0.0.1", "'127.0.0.1' has no port from 0 to 65535: write it like 127.0.0.1:26817"),
        ("metrics", "127.0.0.1:65536", "'127.0.0.1:65536' has no port from 0 to 65535: "),
        ("metrics", "localhost:1", "'localhost:1' is not an address and a port: write it like "),
        ("control", "::1:x", "'::1:x' has no port from 0 to 65535: "),
        ("control_socket", "/", "'/' is not the path of a socket: write it like /run/candy/control.sock"),
        ("control_socket", ".", "'.' is not the path of a socket: "),
        ("control_socket", "/run/\0", "'/run/\\x00' is not the path of a socket: "),
        ("control_group", "", "'' is not a group: name one, or write its number"),
        ("control_group", "wh\0eel", "'wh\\x00eel' is not a group: "),
        ("control_group", "4294967295", "'4294967295' is not a group: "),
        ("control_group", "9" * 5000, "is not a group: "),
    ],
)
def test_refuses(key: str, value: str | tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        relay(**{key: value})
    assert str(refused.value).startswith(f"--{key}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_certificate_and_key_need_each_other(pem: str) -> None:
    for half in ("tls_certificate", "tls_key"):
        with pytest.raises(ConfigError, match=r"^--tls-certificate and --tls-key need each other: give"):
            relay(**{half: pem})


def test_control_over_tcp_needs_tokens(pem: str) -> None:
    for half in ({"control": "127.0.0.1:1"}, {"control_token_file": pem}):
        with pytest.raises(
            ConfigError, match=r"^--control and --control-token-file need each other: give both or none$"
        ):
            relay(**half)
    settings = relay(control="[::1]:26817", control_token_file=pem, metrics="127.0.0.1:0")
    assert (settings.control, settings.metrics) == (("::1", 26817), ("127.0.0.1", 0))


def test_the_control_socket_and_its_group() -> None:
    settings = relay(control_socket="control", control_group="4294967294")
    assert (settings.control_socket, settings.control_group) == ("control", "4294967294")
    assert relay(control_socket="").control_socket == ""


def test_certificate_and_ws_contradict_each_other(pem: str) -> None:
    for tls in ({"tls_certificate": pem, "tls_key": pem}, {"tls_self_signed": True}):
        with pytest.raises(
            ConfigError, match=r"is without TLS, but a certificate is given, or asked for: write wss://"
        ):
            relay(websocket="ws://0.0.0.0", **tls)


def test_several_certificates(pem: str, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.touch()
    settings = relay(tls_certificate=(pem, str(other)), tls_key=(str(other), pem))
    assert (settings.tls_certificate, settings.tls_key) == ((Path(pem), other), (other, Path(pem)))
    assert settings.has_tls
    with pytest.raises(ConfigError) as refused:
        relay(tls_certificate=(pem, str(other)), tls_key=pem)
    assert str(refused.value) == (
        "2 of --tls-certificate and 1 of --tls-key: give as many keys as certificates, in the same order"
    )
    with pytest.raises(
        ConfigError, match=r"^--tls_key: '/nowhere\.pem' is not a file: give the path of one that exists$"
    ):
        relay(tls_certificate=(pem, pem), tls_key=(pem, "/nowhere.pem"))


def test_a_certificate_of_its_own(pem: str) -> None:
    settings = relay(websocket="wss://0.0.0.0:99", tls_self_signed=True)
    assert (settings.has_tls, settings.tls_certificate, settings.port) == (True, (), 99)
    assert relay(tls_self_signed=True).port == 26816
    assert not relay().has_tls
    with pytest.raises(ConfigError, match=r"^--tls-self-signed and --tls-certificate exclude each other: remove one"):
        relay(tls_self_signed=True, tls_certificate=pem, tls_key=pem)


def test_a_single_value_of_a_list_is_named_whole() -> None:
    with pytest.raises(ConfigError, match=r"^--trusted_proxy: 'proxy' is not an address or network of a proxy"):
        relay(trusted_proxy="proxy")


# Rules


RULES = "192.168.202.1/32,172.17.0.0/16,192.168.202.2;192.168.202.2/32, 172.16.0.0/16 , 192.168.202.1;"


def tables(*rules: str, **more: Any) -> list[Given]:
    """Rules as a TOML file gives them."""
    keys = ("device", "destination", "via")
    lines = enumerate(rules, 5)
    return [Given(dict(zip(keys, rule.split(","), strict=True)) | more, f"file.toml:{n}: routes") for n, rule in lines]


def test_rules_in_both_forms() -> None:
    expected = tuple(Rule.parse(rule) for rule in RULES.rstrip(";").split(";"))
    assert main(sdwan=RULES).rules == expected
    assert main(routes=tables(*map(str, expected))).rules == expected
    assert main(sdwan=str(expected[0]), routes=tables(str(expected[1]))).rules == expected
    assert main(sdwan="").rules == main(sdwan=" ; ;").rules == main(routes=[]).rules == ()


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("192.168.202.1/32,172.17.0.0/16", "is not a rule: write it like 192.168.202.0/24,172.17.0.0/16,192.168.202.2"),
        ("192.168.202.1/33,172.17.0.0/16,192.168.202.2", "has '192.168.202.1/33' for its device: write a network"),
        ("192.168.202.1/32,172.17/16,192.168.202.2", "has '172.17/16' for its destination: write a network"),
        ("192.168.202.1/32,172.17.0.0/16,gateway", "has 'gateway' for its next hop: write an address"),
        ("192.168.202.1/32,172.17.0.0/16,192.168.203.2", "has a next hop that is not a member's address in the pool"),
        ("192.168.202.1/32,192.168.0.0/16,192.168.202.2", "is a route into the pool 192.168.202.0/24"),
        ("192.168.202.0/24,172.16.5.0/24,192.168.202.9", "overlaps '192.168.202.2/32,172.16.0.0/12,192.168.202.1'"),
    ],
)
def test_a_rule_is_refused_by_its_name(rule: str, why: str) -> None:
    first = "192.168.202.2/32,172.16.0.0/12,192.168.202.1"
    with pytest.raises(ConfigError) as refused:
        relay(sdwan=f"{first};{rule}")
    assert str(refused.value).startswith(f"--sdwan: rule 2: {rule!r} {why}")
    if rule.count(",") == 2:
        with pytest.raises(ConfigError) as refused:
            relay(routes=tables(first, rule))
        assert str(refused.value).startswith(f"file.toml:6: routes: {rule!r} {why}")


def test_rules_where_addresses_may_be_anywhere() -> None:
    rule = "10.9.0.0/16,172.17.0.0/16,10.9.0.2"
    assert main(dhcp="", sdwan=rule).rules == (Rule.parse(rule),)
    assert main(allow_outside_pool=True, sdwan=rule).rules == (Rule.parse(rule),)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"device": "10.0.0.0/8", "destination": "10.0.0.0/8"}, "via is missing, or not text in quotes"),
        ({"device": 5, "destination": "10.0.0.0/8", "via": "10.0.0.1"}, "device is missing, or not text in quotes"),
        (
            {"device": "10.0.0.0/8", "destination": "10.0.0.0/8", "via": "10.0.0.1", "metric": 1},
            "metric is not a part of a rule: write device, destination, via",
        ),
    ],
)
def test_a_table_that_is_no_rule(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        relay(routes=[Given(table, "file.toml:5: routes")])
    assert str(refused.value) == f"file.toml:5: routes: {said}"


def test_too_many_rules() -> None:
    rules = [f"192.168.202.0/24,10.{n // 256}.{n % 256}.0/24,192.168.202.2" for n in range(MAX_RULES + 1)]
    assert len(main(sdwan=";".join(rules[:-1])).rules) == MAX_RULES
    with pytest.raises(ConfigError, match=rf"^--sdwan: rule 1001: '{rules[-1]}' is one rule too many"):
        relay(sdwan=";".join(rules))


# Several networks


def test_networks_share_nothing() -> None:
    settings = relay(
        [further("/home", dhcp="10.0.0.0/8")],
        dhcp="192.168.7.0/24",
        auth_timeout="3",
        sdwan="192.168.7.1/32,172.17.0.0/16,192.168.7.2",
        allow_outside_pool=True,
        no_source_check=True,
    )
    home = settings.networks[1]
    assert home == NetworkSettings(path="/home", password=b"other", pool=IPv4Network("10.0.0.0/8"))
    assert (home.auth_timeout, home.rules, home.allow_outside_pool, home.check_source) == (10.0, (), False, True)


def test_the_same_addresses_in_several_networks() -> None:
    rules = "192.168.202.1/32,172.17.0.0/16,192.168.202.2"
    settings = relay([further(path, sdwan=rules) for path in ("/home", "/home2")], sdwan=rules)
    assert [network.path for network in settings.networks] == ["/", "/home", "/home2"]
    assert len({network.rules for network in settings.networks}) == 1


@pytest.mark.parametrize(
    ("path", "canonical"),
    [("/", "/"), ("", "/"), ("/home", "/home"), ("/home/", "/home"), ("/office/eu", "/office/eu"), ("//", "/")],
)
def test_canonical_path(path: str, canonical: str) -> None:
    assert canonical_path(path) == canonical


@pytest.mark.parametrize(
    ("networks", "said"),
    [
        ([further("/home"), further("/home/")], "'/home/' is the second network at /home: give each a path of its own"),
        ([further("/")], "'/' is the network that stands at the top of the file, before all tables"),
        ([further("home")], "'home' is not a path: write it like /home or /office/eu"),
        ([further("")], "'' is not a path"),
        ([further("//home")], "'//home' is not a path"),
        ([further("/home?a=b")], "'/home?a=b' is not a path"),
        ([further("/../home")], "'/../home' is not a path"),
        ([further("/hö")], "'/hö' is not a path"),
        ([further("/healthz/")], "'/healthz/' is where the relay answers health checks: choose another path"),
        ([further("/home", None)], "'/home' has no password: add password or password_file to its table"),
        ([further(f"/{n}") for n in range(MAX_NETWORKS)], "'/999' is one network too many: a relay has at most 1000"),
    ],
)
def test_networks_that_cannot_be(networks: list[GivenNetwork], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        relay(networks)
    assert str(refused.value).startswith(f"file.toml:8: network: {said}")
    assert "\n" not in str(refused.value)


def test_a_wrong_value_of_a_further_network() -> None:
    with pytest.raises(ConfigError, match=r"^file.toml:9: dhcp: '10.0.0.0/31' is not a size for a pool"):
        relay([further("/home", dhcp="10.0.0.0/31")])


# Interfaces of the relay's own


def test_interface() -> None:
    assert main(tun="192.168.202.1/24").tun == IPv4Interface("192.168.202.1/24")
    assert main(tun="10.9.9.9/24", allow_outside_pool=True).tun == IPv4Interface("10.9.9.9/24")
    assert main(tun="10.9.9.9/24", dhcp="").tun == IPv4Interface("10.9.9.9/24")
    assert main(tun="").tun is None


def test_a_rule_into_the_interface_s_own_network() -> None:
    rule = "10.9.0.5,10.9.9.0/24,10.8.0.2"
    assert main(dhcp="", sdwan=rule).rules
    with pytest.raises(ConfigError, match=r"^--sdwan: rule 1: '.*' is a route into 10.9.0.0/16, where this machine is"):
        relay(dhcp="", sdwan=rule, tun="10.9.0.1/16")


def test_names_of_interfaces() -> None:
    paths = ["/", "/home", "/office/eu", "/office/europe", "/office/america", "/" + "x" * 12, "/" + "x" * 13]
    names = [NetworkSettings(path=path, password=b"").interface for path in paths]
    assert names[:3] == ["candy-server", "cs-home", "cs-office-eu"]
    assert names[5] == "cs-" + "x" * 12
    assert len(set(names)) == len(paths)
    assert all(len(name) <= 15 for name in names)


def test_interfaces_that_a_machine_cannot_tell_apart() -> None:
    def two(one: tuple[str, str], other: tuple[str, str]) -> RelaySettings:
        return relay([further(path, dhcp="", tun=tun) for path, tun in (one, other)])

    assert two(("/a", "10.1.0.1/16"), ("/b", "10.2.0.1/16"))
    with pytest.raises(ConfigError) as refused:
        two(("/a", "10.1.0.1/16"), ("/b", "10.1.2.1/24"))
    said = "'10.1.2.1/24' overlaps 10.1.0.1/16, this machine's interface in the network /a"
    assert str(refused.value) == f"file.toml:9: tun: {said}"
    with pytest.raises(ConfigError, match=r"'10.2.0.1/16' needs an interface cs-a-b, as /a/b does"):
        two(("/a/b", "10.1.0.1/16"), ("/a-b", "10.2.0.1/16"))


# Passwords


def listed(*passwords: Password) -> list[Given]:
    return [Given(password, f"file.toml:{number}: passwords") for number, password in enumerate(passwords, 1)]


def test_a_list_of_passwords() -> None:
    old, new = Password(b"old", "old", 1e9), Password(b"new", "new")
    network = relay_settings({}, password=b"short", passwords=listed(old, new)).networks[0]
    assert network.every_password == (Password(b"short"), old, new)
    assert relay_settings({}, password=b"", passwords=listed(old)).networks[0].every_password == (old,)
    home = further("/home", None)._replace(passwords=listed(new))
    assert relay([home]).networks[1].every_password == (new,)


@pytest.mark.parametrize(
    ("passwords", "said"),
    [
        ([Password(b"secret")], "file.toml:1: passwords: is the same password a second time: remove one of them"),
        (
            [Password(b"1", "name"), Password(b"2", "name")],
            "file.toml:2: passwords: 'name' is the name of another password too: choose another",
        ),
        (
            [Password(b"%d" % number) for number in range(PASSWORDS_MAX)],
            f"file.toml:16: passwords: is one password too many: a network has at most {PASSWORDS_MAX}",
        ),
        (
            [Password(b"1", "x" * 64)],
            f"file.toml:1: passwords: {'x' * 64!r} is too long a name: use 63 characters or less",
        ),
    ],
)
def test_passwords_that_can_not_be(passwords: list[Password], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        relay_settings({}, password=b"secret", passwords=listed(*passwords))
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("wss://vpn.example.org", "wss://vpn.example.org"),
        ("wss://vpn.example.org/candy/", "wss://vpn.example.org/candy"),
        ("ws://[2001:db8::1]:8080/", "ws://[2001:db8::1]:8080"),
    ],
)
def test_public_url(written: str, url: str) -> None:
    assert relay(public_url=written).public_url == url


@pytest.mark.parametrize("wrong", ["https://example.org", "example.org", "wss://u@h", "wss://h/?q", "wss://h/#f"])
def test_public_url_that_is_none(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"^--public_url: "):
        relay(public_url=wrong)


def test_log_format() -> None:
    assert relay(log_format="json").log_format == "json"
    with pytest.raises(ConfigError, match=r"^--log_format: 'xml' is not one of 'text' or 'json'$"):
        relay(log_format="xml")


# Reservations


def test_reservations() -> None:
    network = main(reserve=("192.168.202.9=laptop", "192.168.202.10=vmac:0123456789abcdef"))
    assert network.reservations == (
        Reservation(IPv4Address("192.168.202.9"), name="laptop"),
        Reservation(IPv4Address("192.168.202.10"), vmac=b"0123456789abcdef"),
    )
    assert main(reserve="192.168.202.9=laptop").reservations == network.reservations[:1]
    assert main(reserve=("10.0.0.1=laptop",), allow_outside_pool=True).reservations
    assert main(reserve=("10.0.0.1=laptop",), dhcp="").reservations


@pytest.mark.parametrize(
    ("reserve", "more", "message"),
    [
        ("laptop", {}, "'laptop' does not begin with an address: write it like 192.168.202.10=laptop"),
        (
            "192.168.202.9=",
            {},
            "'192.168.202.9=' names no device: write its name, of at most 63 characters, or key:… or vmac:…",
        ),
        ("10.0.0.1=x", {}, "'10.0.0.1=x' is not a member's address in the pool 192.168.202.0/24"),
        ("192.168.202.255=x", {}, "'192.168.202.255=x' is not a member's address in the pool 192.168.202.0/24"),
        ("224.0.0.1=x", {"dhcp": ""}, "'224.0.0.1=x' is not an address that a member can have"),
        ("192.168.202.1=x", {"tun": "192.168.202.1/24"}, "'192.168.202.1=x' is the address of this machine, by tun"),
        ("192.168.202.8=x", {}, "'192.168.202.8=x' is the second device for this address: an address has one"),
    ],
)
def test_reservations_that_can_t_be(reserve: str, more: dict[str, Any], message: str) -> None:
    """The one that is wrong is named, and none before it."""
    with pytest.raises(ConfigError) as caught:
        main(reserve=("192.168.202.8=first", reserve) if not more else (reserve,), **more)
    assert str(caught.value) == f"--reserve: {message}"


def test_whom_a_password_admits() -> None:
    assert main(admit="approval").admit is Admit.APPROVAL
    with pytest.raises(ConfigError, match=r"^--admit: 'all' is not one of password, invite, approval$"):
        main(admit="all")


def test_old_clients_need_a_password_of_their_own() -> None:
    doubt = relay([further("/home"), further("/office", legacy=False)]).doubt_of_shared
    assert doubt is not None
    assert doubt.endswith(" (networks /, /home)")
    assert relay(legacy=False).doubt_of_shared is None
    assert relay(admit="invite").doubt_of_shared is None
    own = Password(b"old", legacy=True)
    assert relay_settings({}, password=b"new", passwords=[Given(own, "file")]).doubt_of_shared is None
