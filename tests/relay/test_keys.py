"""A network's keys on the relay: made once, rotated, and what members make of that."""

import os
from base64 import b64encode
from pathlib import Path

import pytest

from candy.errors import OperationalError, RequestError
from candy.member.trust import judge
from candy.primitives import verify
from candy.protocol.keys import Shown
from candy.relay.keys import ALONE, RelayKeys, number_of
from candy.relay.login import RelayKeyPair

NOW = 1_800_000_000


def keys(folder: Path, path: str = "/") -> RelayKeys:
    return RelayKeys(folder, path, os.urandom)


def shown(current: RelayKeyPair) -> Shown:
    return Shown(current.key, bytes(32), current.successions)


def test_keys_are_made_once_for_each_network(tmp_path: Path) -> None:
    one = keys(tmp_path).current(NOW)
    assert one.key.is_signed(verify)
    assert one.key.relay == one.pair.public
    assert one.key.generation == NOW
    assert keys(tmp_path).current(NOW + 9) == one
    other = keys(tmp_path, "/home").current(NOW)
    assert other.key.network != one.key.network
    assert sorted(each.name for each in (tmp_path / "keys").iterdir()) == ["%2F", "%2Fhome"]


def test_a_path_is_one_folder(tmp_path: Path) -> None:
    keys(tmp_path, "/a/..b").current(NOW)
    assert [each.name for each in (tmp_path / "keys").iterdir()] == ["%2Fa%2F%2E%2Eb"]


def test_a_rotated_key_is_of_the_next_generation(tmp_path: Path) -> None:
    one = keys(tmp_path).current(NOW)
    # The clock was set back.
    two = keys(tmp_path).rotate(NOW - 100)
    assert two.key.generation == NOW + 1
    assert two.key.relay != one.key.relay
    assert keys(tmp_path).current(NOW) == two
    known = judge(shown(one), None, None, verify)
    assert judge(shown(two), None, known, verify).relay == two.key.relay
    assert known.renewed(two.key, verify).relay == two.key.relay


def test_a_rotated_network_is_reached_from_the_old(tmp_path: Path) -> None:
    one = keys(tmp_path).current(NOW)
    known = judge(shown(one), None, None, verify)
    last = one
    for _ in range(8):
        last = keys(tmp_path).rotate_network(NOW)
    assert judge(shown(last), None, known, verify).network == last.key.network
    assert keys(tmp_path).current(NOW) == last
    keys(tmp_path).rotate(NOW)
    last = keys(tmp_path).rotate_network(NOW)
    assert len(last.successions) == 8
    assert (tmp_path / "keys" / "%2F" / "network.key.next").exists() is False


def test_a_rotation_that_is_cut_short_loses_no_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = keys(tmp_path).current(NOW)
    with monkeypatch.context() as patched:
        patched.setattr("candy.relay.keys.RelayKeys._keep", lambda *_: (_ for _ in ()).throw(OperationalError("full")))
        with pytest.raises(OperationalError, match="full"):
            keys(tmp_path).rotate_network(NOW)
    assert keys(tmp_path).current(NOW) == one
    two = keys(tmp_path).rotate_network(NOW)
    os.rename(tmp_path / "keys" / "%2F" / "network.key", tmp_path / "keys" / "%2F" / "network.key.next")
    assert keys(tmp_path).rotate(NOW).key.network == two.key.network


def test_without_the_networks_key_it_goes_on_but_does_not_rotate(tmp_path: Path) -> None:
    one = keys(tmp_path).current(NOW)
    (tmp_path / "keys" / "%2F" / "network.key").unlink()
    assert keys(tmp_path).current(NOW) == one
    for rotate in (keys(tmp_path).rotate, keys(tmp_path).rotate_network):
        with pytest.raises(RequestError, match="is not there"):
            rotate(NOW)
    assert not (tmp_path / "keys" / "%2F" / "network.key").exists()


def test_another_networks_key_signs_nothing(tmp_path: Path) -> None:
    keys(tmp_path).current(NOW)
    (tmp_path / "keys" / "%2F" / "network.key").write_bytes(b64encode(bytes(32)))
    with pytest.raises(RequestError, match="another network's key"):
        keys(tmp_path).rotate(NOW)


def test_a_relay_key_whose_parts_do_not_fit_ends_the_start(tmp_path: Path) -> None:
    one = keys(tmp_path).current(NOW)
    path = tmp_path / "keys" / "%2F" / "relay.key"
    path.write_bytes(b64encode(bytes(32) + one.key.encode()))
    with pytest.raises(OperationalError, match="its parts do not fit"):
        keys(tmp_path).current(NOW)


def test_the_interface_has_a_key_of_its_own(tmp_path: Path) -> None:
    assert keys(tmp_path).own_device() == keys(tmp_path).own_device() != keys(tmp_path, "/home").own_device()


def test_one_relay_of_several_has_a_number_of_its_own(tmp_path: Path) -> None:
    """By its name, so that members count its generations and no other's; also if it was alone before."""
    alone = keys(tmp_path).current(NOW)
    number = number_of("eu")
    assert alone.key.number == ALONE
    one = keys(tmp_path).current(NOW, number)
    assert (one.key.number, one.key.network, one.key.generation) == (number, alone.key.network, NOW + 1)
    assert one.key.is_signed(verify)
    assert keys(tmp_path).current(NOW, number) == one == keys(tmp_path).current(NOW)
    # A rotation keeps it.
    assert keys(tmp_path).rotate(NOW).key.number == number
    made = keys(tmp_path, "/home").current(NOW, number)
    assert (made.key.number, made.key.generation) == (number, NOW)
    next(tmp_path.glob("keys/*/network.key")).unlink()
    missing = [path for path in ("/", "/home") if not _has_seed(tmp_path, path)]
    with pytest.raises(OperationalError, match=r"needs a key with its own number among others: .* is not there"):
        keys(tmp_path, missing[0]).current(NOW, number_of("us"))


def _has_seed(folder: Path, path: str) -> bool:
    return (folder / "keys" / path.replace("/", "%2F") / "network.key").exists()


def test_numbers_by_names() -> None:
    numbers = {number_of(name) for name in ("eu", "us", "ap", "eu-1", "eu-2")}
    assert len(numbers) == 5
    assert all(0 < number < 1 << 16 for number in numbers)
