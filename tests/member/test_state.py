"""What the member keeps: what is made once, what is never used twice, what garbage does."""

import logging
import os
import stat
import tempfile
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candy.errors import ConfigError
from candy.member.state import MemberState


def counting(count: int) -> bytes:
    return bytes(range(count))


def other(count: int) -> bytes:
    return b"\xff" * count


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_that_cannot_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All is in memory then, and one warning says so."""
    (tmp_path / "file").touch()
    state = MemberState(tmp_path / "file" / "candy", "home")
    assert [state.vmac(counting), state.vmac(other)] == [b"0001020304050607"] * 2
    assert state.renew_vmac(other) == state.vmac(counting) == b"ff" * 8
    assert state.address() is None
    state.keep_address(IPv4Interface("10.0.0.1/8"))
    assert state.address() == IPv4Interface("10.0.0.1/8")
    assert [state.next_timestamp(1000), state.next_timestamp(1000)] == [1000, 1001]
    state.keep_reached("relay.test", ("203.0.113.5",))
    state.keep_segment("relay.test", 1220)
    assert (state.reached("relay.test"), state.segment("relay.test")) == (("203.0.113.5",), 1220)
    [warning] = caplog.messages
    assert warning.startswith(f"cannot read {tmp_path}/file/candy/vmac/home: Not a directory: ")


def test_vmac_is_made_once(tmp_path: Path) -> None:
    assert MemberState(tmp_path, "home").vmac(counting) == b"0001020304050607"
    assert MemberState(tmp_path, "home").vmac(other) == b"0001020304050607"
    assert (tmp_path / "vmac" / "home").read_bytes() == b"0001020304050607"
    assert mode_of(tmp_path / "vmac" / "home") == 0o600
    assert mode_of(tmp_path / "vmac") == 0o700


def test_vmac_of_the_original(tmp_path: Path) -> None:
    (tmp_path / "vmac").mkdir()
    (tmp_path / "vmac" / "__noname__").write_bytes(b"4510e588d451970f")
    (tmp_path / "vmac" / "own").write_bytes(b"AAAAAAAAAAAAAAAA\n")
    assert MemberState(tmp_path).vmac(other) == b"4510e588d451970f"
    assert MemberState(tmp_path, "").vmac(other) == b"4510e588d451970f"
    assert MemberState(tmp_path, "own").vmac(other) == b"AAAAAAAAAAAAAAAA"


def test_members_of_several_names_have_nothing_in_common(tmp_path: Path) -> None:
    """field: a second client on one host had the VMAC of the first, asked for its address, and replaced it."""
    first, second, third = (MemberState(tmp_path, name) for name in (None, "second", "third"))
    assert first.vmac(counting) == b"0001020304050607"
    first.keep_address(IPv4Interface("192.168.202.7/24"))
    assert second.vmac(other) == b"ff" * 8
    assert second.address() is None
    assert third.vmac(lambda count: b"\xee" * count) == b"ee" * 8
    assert [state.vmac(other) for state in (first, second, third)] == [b"0001020304050607", b"ff" * 8, b"ee" * 8]


@pytest.mark.parametrize("garbage", [b"", b"4510e588", b"4510e588d451970fff", b"4510e588d451970g", b"\0" * 16])
def test_vmac_that_is_garbled(tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "vmac" / "__noname__"
    path.parent.mkdir()
    path.write_bytes(garbage)
    assert MemberState(tmp_path).vmac(counting) == b"0001020304050607"
    assert path.read_bytes() == b"0001020304050607"
    assert caplog.record_tuples[0][1:] == (
        logging.WARNING,
        f"{path} holds no VMAC (16 hex characters): not used",
    )


def test_address(tmp_path: Path) -> None:
    state = MemberState(tmp_path)
    assert state.address() is None
    state.keep_address(IPv4Interface("192.168.202.7/24"))
    state.keep_address(IPv4Interface("192.168.202.8/24"))
    assert (tmp_path / "address" / "__noname__").read_bytes() == b"192.168.202.8/24"
    assert MemberState(tmp_path).address() == IPv4Interface("192.168.202.8/24")
    assert [path.name for path in (tmp_path / "address").iterdir()] == ["__noname__"]


def test_address_of_ones_own_first(tmp_path: Path) -> None:
    MemberState(tmp_path).keep_address(IPv4Interface("192.168.202.7/24"))
    MemberState(tmp_path, "home").keep_address(IPv4Interface("10.0.0.2/8"))
    assert MemberState(tmp_path, "home").address() == IPv4Interface("10.0.0.2/8")


@pytest.mark.parametrize("garbage", [b"", b"192.168.202.7/33", b"192.168.202/24", b"\xff\xfe", b"x" * 5000])
def test_address_that_is_garbled(tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "address").mkdir()
    (tmp_path / "address" / "__noname__").write_bytes(garbage)
    assert MemberState(tmp_path).address() is None
    assert caplog.messages == [f"{tmp_path}/address/__noname__ holds no address: not used"]


def test_address_that_asks_for_any(tmp_path: Path) -> None:
    (tmp_path / "address").mkdir()
    (tmp_path / "address" / "__noname__").write_bytes(b"0.0.0.0/0")
    assert MemberState(tmp_path).address() is None


def test_timestamp_never_twice(tmp_path: Path) -> None:
    state = MemberState(tmp_path)
    assert [state.next_timestamp(now) for now in (1000, 1000, 1001, 1005)] == [1000, 1001, 1002, 1005]
    assert MemberState(tmp_path).next_timestamp(1005) == 1006
    assert (tmp_path / "timestamp" / "__noname__").read_bytes() == b"1006"
    assert MemberState(tmp_path, "home").next_timestamp(1005) == 1005


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=30))
def test_timestamp_across_restarts(steps: list[tuple[int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state, now, used = MemberState(Path(folder)), 1_795_333_712, []
        for step, restart in steps:
            now += step
            state = MemberState(Path(folder)) if restart else state
            used.append(state.next_timestamp(now))
            assert used[-1] >= now
    assert used == sorted(set(used))


def test_timestamp_of_a_clock_that_was_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = MemberState(tmp_path)
    assert state.next_timestamp(5000) == 5000
    assert state.next_timestamp(4700) == 5001
    assert state.next_timestamp(4700) == 4700
    assert caplog.messages == [f"{tmp_path}/timestamp/__noname__ is 301 s ahead of the clock: not used"]


@pytest.mark.parametrize("garbage", [b"", b"-5", b"1e9", b"9" * 5000, b"\xff"])
def test_timestamp_that_is_garbled(tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "timestamp").mkdir()
    (tmp_path / "timestamp" / "__noname__").write_bytes(garbage)
    assert MemberState(tmp_path).next_timestamp(1000) == 1000
    assert caplog.messages == [f"{tmp_path}/timestamp/__noname__ holds no timestamp: not used"]


@pytest.mark.parametrize("name", ["a/b", "/etc/passwd", "..", ".", "a\0b"])
def test_name_that_is_no_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="can't be used as a file name"):
        MemberState(tmp_path, name)


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = MemberState(tmp_path)
    state.keep_address(IPv4Interface("10.0.0.1/8"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    state.keep_address(IPv4Interface("10.0.0.2/8"))
    assert state.address() == IPv4Interface("10.0.0.2/8")
    assert MemberState(tmp_path).address() == IPv4Interface("10.0.0.1/8")
    assert [path.name for path in (tmp_path / "address").iterdir()] == ["__noname__"]


def test_a_new_vmac_is_kept(tmp_path: Path) -> None:
    """It was made because a copy has the one before."""
    state = MemberState(tmp_path, "home")
    assert state.vmac(counting) == b"0001020304050607"
    assert state.renew_vmac(other) == b"ff" * 8
    assert MemberState(tmp_path, "home").vmac(counting) == b"ff" * 8
    assert mode_of(tmp_path / "vmac" / "home") == 0o600


def test_addresses_by_which_hosts_were_reached(tmp_path: Path) -> None:
    state = MemberState(tmp_path, "home")
    assert state.reached("relay.test") == ()
    state.keep_reached("relay.test", ("203.0.113.5", "2001:db8::5"))
    state.keep_reached("proxy.test", ("10.0.0.1",))
    assert (tmp_path / "relay" / "home").read_text() == "proxy.test 10.0.0.1\nrelay.test 203.0.113.5 2001:db8::5\n"
    again = MemberState(tmp_path, "home")
    assert again.reached("relay.test") == ("203.0.113.5", "2001:db8::5")
    assert again.reached("other.test") == ()
    assert MemberState(tmp_path).reached("relay.test") == ()


def test_no_more_hosts_and_addresses_than_eight_each(tmp_path: Path) -> None:
    state = MemberState(tmp_path)
    for number in range(10):
        state.keep_reached(f"relay{number}.test", [f"10.0.{number}.{last}" for last in range(10)])
    kept = [state.reached(f"relay{number}.test") for number in range(10)]
    assert [len(addresses) for addresses in kept] == [0, 0, *[8] * 8]
    assert len((tmp_path / "relay" / "__noname__").read_text().splitlines()) == 8


def test_the_same_again_is_not_written(tmp_path: Path) -> None:
    state = MemberState(tmp_path)
    state.keep_reached("relay.test", ("203.0.113.5",))
    before = (tmp_path / "relay" / "__noname__").stat().st_ino
    state.keep_reached("relay.test", ("203.0.113.5",))
    assert (tmp_path / "relay" / "__noname__").stat().st_ino == before


@pytest.mark.parametrize(
    "garbage", [b"\xff\xfe\x00", b"relay.test", b"relay.test 1.2.3", b"relay.test 10.0.0.1 x", b" \n\n"]
)
def test_garbage_among_addresses(tmp_path: Path, caplog: pytest.LogCaptureFixture, garbage: bytes) -> None:
    (tmp_path / "relay").mkdir()
    (tmp_path / "relay" / "__noname__").write_bytes(garbage + b"\nother.test 10.0.0.9\n")
    state = MemberState(tmp_path)
    assert state.reached("relay.test") == ()
    assert state.reached("other.test") == ("10.0.0.9",)
    assert "a line holds no host and what is kept of it: not used" in caplog.text
    state.keep_reached("relay.test", ("10.0.0.1",))
    assert state.reached("relay.test") == ("10.0.0.1",)


def test_the_longest_segments_by_host(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = MemberState(tmp_path, "home")
    assert state.segment("relay.test") is None
    state.keep_segment("relay.test", 1220)
    state.keep_segment("2001:db8::5", 536)
    assert (tmp_path / "segment" / "home").read_text() == "2001:db8::5 536\nrelay.test 1220\n"
    again = MemberState(tmp_path, "home")
    assert [again.segment(host) for host in ("relay.test", "2001:db8::5", "other.test")] == [1220, 536, None]
    assert caplog.messages == []


@pytest.mark.parametrize("garbage", ["0", "9", "01220", "123456", "-536", "x", ""])
def test_garbage_among_segments(tmp_path: Path, caplog: pytest.LogCaptureFixture, garbage: str) -> None:
    (tmp_path / "segment").mkdir()
    (tmp_path / "segment" / "__noname__").write_text(f"relay.test {garbage}\n")
    assert MemberState(tmp_path).segment("relay.test") is None
    assert "not used" in caplog.text


def test_how_much_was_sealed_with_each_password(tmp_path: Path) -> None:
    state = MemberState(tmp_path, "home")
    assert state.sealed(b"one") == 0
    state.keep_sealed(b"one", 17)
    state.keep_sealed(b"two", 2**32)
    state.keep_sealed(b"one", 18)
    again = MemberState(tmp_path, "home")
    assert [again.sealed(each) for each in (b"one", b"two", b"three")] == [18, 2**32, 0]
    assert MemberState(tmp_path, "other").sealed(b"one") == 0
    # Two digits are too few to try passwords on.
    assert (tmp_path / "sealed" / "home").read_bytes() == b"3f 4294967296\n76 18\n"


@pytest.mark.parametrize("garbage", [b"17\n", b"76 -1\n", b"76\n", b"\xff\xff 1\n", b"7 6 1\n"])
def test_garbage_among_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture, garbage: bytes) -> None:
    MemberState(tmp_path, "home").keep_sealed(b"two", 5)
    path = tmp_path / "sealed" / "home"
    path.write_bytes(garbage + path.read_bytes())
    state = MemberState(tmp_path, "home")
    assert (state.sealed(b"one"), state.sealed(b"two")) == (0, 5)
    assert caplog.messages[0] == f"{path}: a line holds no count of datagrams: not used"


def test_relays_that_were_told(tmp_path: Path) -> None:
    state, network, urls = MemberState(tmp_path), bytes([1]) * 32, [f"wss://{number}/" for number in range(20)]
    assert state.relays(network) == ()
    state.keep_relays(network, urls)
    assert MemberState(tmp_path).relays(network) == tuple(urls[:16])
    # They are one network's.
    assert state.relays(bytes(32)) == ()
    state.keep_relays(network, [])
    assert state.relays(network) == ()
    (tmp_path / "relays" / "__noname__").write_bytes(b"\xff\nwss://a/\n")
    assert state.relays(network) == ()
