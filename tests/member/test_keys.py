"""A member's key files: what is in them, and that they come back as they were."""

from base64 import b64decode
from pathlib import Path

import pytest

from candy.errors import OperationalError
from candy.member.keys import MemberKeys
from candy.member.login import Ticket
from candy.member.trust import Known
from candy.primitives import key_pair

TICKET = Ticket(bytes([1]) * 16, bytes([2]) * 32)
KNOWN = Known(0, bytes([3]) * 32, 1_800_000_000, (bytes([4]) * 32,))


def draw(length: int) -> bytes:
    return bytes([9]) * length


def test_a_device_has_one_key(tmp_path: Path) -> None:
    device = MemberKeys(tmp_path).device(draw)
    assert device == key_pair(bytes([9]) * 32)
    assert MemberKeys(tmp_path).device(bytes) == device
    assert MemberKeys(tmp_path, "other").device(bytes) != device
    assert (tmp_path / "device" / "__noname__").stat().st_mode & 0o777 == 0o600


def test_what_a_log_in_gives_is_kept(tmp_path: Path) -> None:
    keys = MemberKeys(tmp_path, "laptop")
    assert keys.ticket() is None
    assert keys.known() is None
    keys.keep_ticket(TICKET)
    keys.keep_known(KNOWN)
    again = MemberKeys(tmp_path, "laptop")
    assert (again.ticket(), again.known()) == (TICKET, KNOWN)
    assert b64decode((tmp_path / "credential" / "laptop").read_bytes()) == TICKET.selector + TICKET.secret
    held = b64decode((tmp_path / "network" / "laptop").read_bytes())
    assert held == b"\0\0" + bytes([3]) * 32 + (1_800_000_000).to_bytes(6, "big") + bytes([4]) * 32


def test_the_same_is_not_written_again(tmp_path: Path) -> None:
    keys = MemberKeys(tmp_path)
    keys.keep_known(KNOWN)
    written = (tmp_path / "network" / "__noname__").stat().st_ino
    keys.keep_known(KNOWN)
    assert (tmp_path / "network" / "__noname__").stat().st_ino == written


@pytest.mark.parametrize("kind", ["device", "credential", "network"])
def test_a_damaged_file_ends_the_start(tmp_path: Path, kind: str) -> None:
    keys = MemberKeys(tmp_path)
    (tmp_path / kind).mkdir()
    (tmp_path / kind / "__noname__").write_text("AAAA\n")
    (tmp_path / kind / "__noname__").chmod(0o600)
    read = {"device": lambda: keys.device(draw), "credential": keys.ticket, "network": keys.known}
    with pytest.raises(OperationalError, match="is damaged"):
        read[kind]()


def test_secrets_are_in_no_repr() -> None:
    assert str(TICKET.secret) not in repr(TICKET)
