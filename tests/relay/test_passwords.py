"""Several passwords of one network: which one a digest was made from, and until when it holds."""

from math import inf

from kit.talk import WALL

from candy.protocol.auth import vmac_digest
from candy.relay.passwords import Password, Passwords

OLD = Password(b"old", "old", WALL + 100.0)
NEW = Password(b"new", "new")


def digest_of(secret: bytes) -> bytes:
    return vmac_digest(secret, b"1" * 16, WALL)


def test_a_digest_tells_its_password() -> None:
    both = Passwords([OLD, NEW])
    assert both.prove(digest_of, digest_of(b"old")) == OLD
    assert both.prove(digest_of, digest_of(b"new")) == NEW
    assert both.prove(digest_of, digest_of(b"other")) is None
    assert Passwords([]).prove(digest_of, digest_of(b"")) is None


def test_an_end_is_the_first_second_without_it() -> None:
    both = Passwords([OLD, NEW])
    assert both.holds(OLD, WALL + 99)
    assert not both.holds(OLD, WALL + 100)
    assert both.holds(NEW, WALL + 10**9)
    assert (both.next_end(WALL), both.next_end(WALL + 100)) == (WALL + 100, inf)
    assert (both.holding(WALL), both.holding(WALL + 100)) == (2, 1)


def test_what_holds_is_what_the_list_says_now() -> None:
    """Of a password that a session proved under an earlier list: its bytes count, not the name or end it had then."""
    assert Passwords([Password(b"old", "renamed")]).holds(OLD, WALL + 1000)
    assert not Passwords([NEW]).holds(OLD, WALL)
    assert not Passwords([Password(b"old", until=WALL - 1.0)]).holds(OLD, WALL)


def test_its_bytes_are_in_no_repr() -> None:
    assert "new" not in repr(Password(b"new"))


def test_old_clients_log_in_by_legacy_passwords_once_there_is_one() -> None:
    legacy = Password(b"legacy", legacy=True)
    mixed = Passwords([OLD, NEW, legacy])
    assert [mixed.prove(digest_of, digest_of(each)) for each in (b"old", b"new", b"legacy")] == [None, None, legacy]
    # Members that came by another one before may stay.
    assert mixed.holds(NEW, WALL)


def test_by_a_key_nobody_logs_in_with_a_legacy_password() -> None:
    mixed = Passwords([OLD, NEW, Password(b"legacy", legacy=True)])
    assert mixed.with_keys(WALL) == [OLD, NEW]
    assert mixed.with_keys(WALL + 100) == [NEW]
