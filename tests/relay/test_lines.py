"""Lines about one connection: in words, and as facts."""

from ipaddress import IPv4Address

import pytest

from candy.protocol.actions import Log
from candy.relay.leases import Traffic
from candy.relay.lines import line, stay

SOURCE = "203.0.113.5"


def test_of_a_stranger_only_the_source_is_known() -> None:
    assert line("debug", "left", source=SOURCE) == Log("debug", f"{SOURCE}: left", about={"source": SOURCE})


def test_a_member_is_called_by_all_that_is_known() -> None:
    known = line(
        "info",
        "logged in as 192.168.202.7",
        source=SOURCE,
        ip=IPv4Address("192.168.202.7"),
        vmac=b"0123456789abcdef",
        name="laptop",
        facts={"password": "old"},
    )
    assert known.text == f"{SOURCE}: logged in as 192.168.202.7 (laptop, VMAC 0123456789abcdef)"
    assert known.about == {
        "source": SOURCE,
        "address": "192.168.202.7",
        "name": "laptop",
        "vmac": "0123456789abcdef",
        "password": "old",
    }


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "\u202egnp.exe", "\x00"])
def test_what_a_peer_says_moves_nothing(name: str) -> None:
    said = line("info", "is here", source=SOURCE, name=name, vmac=b"\n\x1b" + bytes(14))
    assert said.text.isprintable()
    assert all(str(fact).isprintable() for fact in said.about.values())


def test_what_a_peer_says_is_not_taken_for_what_was_escaped() -> None:
    said = [line("info", "is here", source=SOURCE, name=name).text for name in ("\x1b", "\\x1b")]
    assert said[0] != said[1]


def test_one_that_a_peer_can_cause_says_what_it_is_limited_by() -> None:
    caused = line("warning", "refused: no", source="2001:db8::1", kind="clock", counted_as="2001:db8::/64")
    assert (caused.kind, caused.source, caused.at_once) == ("clock", "2001:db8::/64", 1)
    assert caused.about == {"source": "2001:db8::1", "kind": "clock"}


@pytest.mark.parametrize("kind", ["password", "replay"])
def test_of_failed_log_ins_a_few_are_written(kind: str) -> None:
    assert line("warning", "refused", source=SOURCE, kind=kind).at_once == 3


def test_what_a_member_does_is_limited_by_its_device_and_has_no_kind_for_programs() -> None:
    did = line("info", "logged in", source=SOURCE, kind="login", counted_as="0123456789abcdef", of_member=True)
    assert (did.kind, did.source, did.at_once, did.of_member) == ("login", "0123456789abcdef", 3, True)
    assert did.about == {"source": SOURCE}
    assert not line("warning", "refused", source=SOURCE, kind="password").of_member


def test_stay() -> None:
    assert stay(3723.4, Traffic(bytes_in=5120)) == "after 3723 s, 5120 bytes in, 0 out"
