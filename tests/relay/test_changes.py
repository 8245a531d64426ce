"""Settings that were read again: what a relay that runs applies, what it names, and what it runs with then."""

from collections.abc import Sequence
from typing import Any

import pytest

from candy.relay.changes import Changes, changes
from candy.relay.passwords import Password
from candy.relay.settings import RelaySettings, relay_settings
from candy.settings import Given, GivenNetwork

RULES = "192.168.202.0/24,172.17.0.0/16,192.168.202.2"


def relay(networks: Sequence[GivenNetwork] = (), /, *, password: bytes = b"secret", **values: Any) -> RelaySettings:
    given = {key: Given(value, f"--{key}") for key, value in values.items()}
    return relay_settings(given, password=password, networks=networks)


def further(path: str, password: bytes = b"other", **values: Any) -> GivenNetwork:
    given = {key: Given(value, f"file.toml:9: {key}") for key, value in values.items()}
    return GivenNetwork(Given(path, "file.toml:8: network"), given, Given(password, "file.toml:8: password"))


def outcome(found: Changes) -> tuple[list[str], list[str]]:
    return list(found.reloaded.applied), list(found.reloaded.needs_restart)


@pytest.fixture
def pem(tmp_path: Any) -> str:
    path = tmp_path / "file.pem"
    path.touch()
    return str(path)


def test_nothing() -> None:
    before = relay([further("/home")], sdwan=RULES)
    found = changes(before, before)
    assert found == Changes(before)


def test_what_is_applied(pem: str, tmp_path: Any) -> None:
    other = tmp_path / "other.pem"
    other.touch()
    tls: dict[str, Any] = {"websocket": "wss://127.0.0.1", "tls_key": pem}
    before = relay([further("/home")], tls_certificate=pem, **tls)
    after = relay(
        [further("/home", b"changed", max_members=7)],
        tls_certificate=str(other),
        debug=True,
        public_url="wss://vpn.example.org",
        allow_origin=("null",),
        trusted_proxy=("127.0.0.1",),
        sdwan=RULES,
        dhcp="192.168.0.0/16",
        **tls,
    )
    found = changes(before, after)
    assert outcome(found) == (
        [
            "allow_origin",
            "debug",
            "public_url",
            "tls_certificate",
            "trusted_proxy",
            "dhcp",
            "sdwan",
            "network /home: max_members",
            "network /home: password",
        ],
        [],
    )
    assert found.running == after
    assert found.changed == [
        (after.networks[0], frozenset({"pool", "rules"})),
        (after.networks[1], frozenset({"max_members", "password"})),
    ]


def test_a_certificate_of_its_own(pem: str) -> None:
    """It and files replace each other. TLS on or off needs a restart, and with it all that is about TLS."""
    files = relay(tls_certificate=pem, tls_key=pem)
    own = relay(tls_self_signed=True, ml_kem=True)
    names = ["ml_kem", "tls_certificate", "tls_key", "tls_self_signed"]
    assert outcome(changes(files, own)) == outcome(changes(own, files)) == (names, [])
    assert outcome(changes(relay(), own)) == outcome(changes(own, relay())) == ([], ["ml_kem", "tls_self_signed"])


def test_what_needs_a_restart(pem: str) -> None:
    before = relay()
    after = relay(
        websocket="wss://127.0.0.1",
        tls_certificate=pem,
        tls_key=pem,
        no_timestamp=True,
        log_format="json",
        queue_bytes=1 << 20,
        workers=7,
        max_connections=99,
        unauthenticated_per_source=9,
        failures_per_minute=9,
        no_broadcast=True,
        no_source_check=True,
        dhcp="10.0.0.0/8",
        tun="10.0.0.1/8",
        allow_outside_pool=True,
        auth_timeout=3,
        clock_tolerance=3,
        new_devices_per_minute=3,
    )
    found = changes(before, after)
    assert outcome(found) == (
        [],
        [
            "failures_per_minute",
            "websocket",
            "log_format",
            "max_connections",
            "queue_bytes",
            "no_timestamp",
            "tls_certificate",
            "tls_key",
            "unauthenticated_per_source",
            "workers",
            "allow_outside_pool",
            "auth_timeout",
            "no_source_check",
            "clock_tolerance",
            "no_broadcast",
            "new_devices_per_minute",
            "dhcp",
            "tun",
        ],
    )
    assert found.running == before
    # And it is named again, until there is one.
    assert changes(found.running, after).reloaded == found.reloaded


def test_networks_come_and_go() -> None:
    before = relay([further("/gone"), further("/stays"), further("/tun", dhcp="", tun="10.0.0.1/8")])
    after = relay([further("/new"), further("/stays")])
    found = changes(before, after)
    assert outcome(found) == (["network /gone", "network /new"], ["network /tun"])
    assert [network.path for network in found.removed] == ["/gone"]
    assert [network.path for network in found.added] == ["/new"]
    assert [network.path for network in found.running.networks] == ["/", "/new", "/stays", "/tun"]
    assert found.running.networks[0] == before.networks[0]


@pytest.mark.parametrize(
    ("old", "new", "is_applied"),
    [
        ("192.168.202.0/24", "192.168.202.0/23", True),
        ("192.168.202.0/24", "192.0.0.0/8", True),
        ("192.168.202.0/23", "192.168.202.0/24", False),
        ("192.168.202.0/24", "192.168.203.0/24", False),
        ("192.168.202.0/24", "", False),
        ("", "192.168.202.0/24", False),
    ],
)
def test_a_pool_may_grow(old: str, new: str, is_applied: bool) -> None:
    found = changes(relay(dhcp=old), relay(dhcp=new))
    assert outcome(found) == ((["dhcp"], []) if is_applied else ([], ["dhcp"]))
    assert found.running == relay(dhcp=new if is_applied else old)


def test_rules_wait_for_the_pool_that_they_were_judged_with() -> None:
    before = relay(dhcp="10.0.0.0/24")
    after = relay(dhcp="192.168.202.0/24", sdwan=RULES)
    assert outcome(changes(before, after)) == ([], ["dhcp", "sdwan"])


def test_leases_and_reservations_need_no_restart() -> None:
    after = relay(lease_days=1, reserve=("192.168.202.9=laptop",))
    found = changes(relay(), after)
    assert outcome(found) == (["lease_days", "reserve"], [])
    assert found.running == after


def test_reservations_wait_for_the_pool_that_they_were_judged_with() -> None:
    after = relay(dhcp="10.0.0.0/24", reserve=("10.0.0.9=laptop",))
    assert outcome(changes(relay(), after)) == ([], ["dhcp", "reserve"])


def test_rules_in_another_order_are_no_change() -> None:
    other = "192.168.202.0/24,172.18.0.0/16,192.168.202.2"
    before, after = relay(sdwan=f"{RULES};{other}"), relay(sdwan=f"{other};{RULES}")
    assert outcome(changes(before, after)) == ([], [])


class TestPasswords:
    def test_the_short_form_is_one_of_the_list(self) -> None:
        listed = [Given(Password(b"secret"), "file.toml:1: passwords")]
        assert outcome(changes(relay(), relay_settings({}, password=b"", passwords=listed))) == ([], [])

    def test_another_name_or_end_is_a_change(self) -> None:
        listed = [Given(Password(b"secret", "old", 2e9), "file.toml:1: passwords")]
        found = changes(relay(), relay_settings({}, password=b"", passwords=listed))
        assert outcome(found) == (["password", "passwords"], [])
        assert found.running.networks[0].every_password == (Password(b"secret", "old", 2e9),)

    def test_one_that_was_made_is_read_again(self) -> None:
        made = relay_settings({}, password=b"made", password_is_generated=True)
        check = relay_settings({}, password=b"", password_is_generated=True)
        found = changes(made, check)
        assert outcome(found) == ([], [])
        assert found.running == made

    def test_one_of_the_users_own_takes_its_place(self) -> None:
        made = relay_settings({}, password=b"made", password_is_generated=True)
        found = changes(made, relay())
        assert outcome(found) == (["password"], [])
        assert found.running == relay()

    def test_the_other_way_round_needs_a_start_at_which_one_is_made(self) -> None:
        """Or nobody could log in."""
        check = relay_settings({}, password=b"", password_is_generated=True)
        found = changes(relay(), check)
        assert outcome(found) == ([], ["password"])
        assert found.running == relay()
