"""A network's keys while it is served: passwords that are stretched once, and keys that can't be kept."""

import asyncio
import threading
from pathlib import Path
from random import Random

import pytest
from kit.login import WALL

from candy.errors import OperationalError
from candy.relay import keyring as module
from candy.relay.enrolment import Enrolment
from candy.relay.keyring import Keyring, keyring_of
from candy.relay.keys import RelayKeys
from candy.relay.passwords import Password

ONE, OTHER = Password(b"one"), Password(b"other")


class Stretching:
    """In place of scrypt: what was stretched, under which key, and on which threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[bytes, bytes]] = []
        self.threads: set[int] = set()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        monkeypatch.setattr(module, "of_password", self)

    def __call__(self, secret: bytes, network: bytes) -> bytes:
        self.may_go_on.wait(20)
        self.done.append((secret, network))
        self.threads.add(threading.get_ident())
        return secret.ljust(32)


@pytest.fixture
def stretching(monkeypatch: pytest.MonkeyPatch) -> Stretching:
    return Stretching(monkeypatch)


def made(folder: Path) -> tuple[Keyring, Enrolment]:
    draw = Random(1).randbytes
    enrolment = Enrolment(bytes(32), draw)
    keyring = keyring_of(RelayKeys(folder, "/", draw), enrolment, WALL, "")
    assert keyring is not None
    return keyring, enrolment


async def test_each_password_is_stretched_once_and_on_a_thread(tmp_path: Path, stretching: Stretching) -> None:
    keyring, enrolment = made(tmp_path)
    network = keyring.current.key.network
    assert not keyring.is_ready([ONE])
    await asyncio.gather(*(keyring.ready([ONE, OTHER]) for _ in range(5)))
    assert keyring.is_ready([ONE, OTHER])
    assert stretching.done == [(b"one", network), (b"other", network)]
    assert threading.get_ident() not in stretching.threads
    assert enrolment.stretched == {b"one": b"one".ljust(32), b"other": b"other".ljust(32)}
    await keyring.ready([ONE])
    assert len(stretching.done) == 2


async def test_another_network_key_has_them_stretched_anew(tmp_path: Path, stretching: Stretching) -> None:
    keyring, enrolment = made(tmp_path)
    stretching.may_go_on.clear()
    ready = asyncio.ensure_future(keyring.ready([ONE]))
    await asyncio.sleep(0)
    # What is under way is for a key that is none any more by then.
    enrolment.renew(keyring.rotate_network(WALL + 1).key)
    stretching.may_go_on.set()
    await ready
    assert enrolment.stretched == {}
    await keyring.ready([ONE])
    assert [network for _, network in stretching.done][-1] == keyring.current.key.network
    assert enrolment.stretched.keys() == {b"one"}
    # Another key of the relay's changes nothing about that.
    enrolment.renew(keyring.rotate(WALL + 2).key)
    assert enrolment.stretched.keys() == {b"one"}


async def test_a_log_in_that_is_under_way_keeps_its_key(tmp_path: Path, stretching: Stretching) -> None:
    keyring, _ = made(tmp_path)
    before = keyring.log_in(("candy.3",))
    after = keyring.rotate(WALL + 1)
    assert before.relay_key != after.key
    assert keyring.log_in(("candy.3",)).relay_key == after.key


async def test_keys_that_can_not_be_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").touch()
    enrolment = Enrolment(bytes(32), bytes)
    assert keyring_of(RelayKeys(tmp_path / "state", "/", bytes), enrolment, WALL, "/home: ") is None
    assert caplog.messages[0].startswith("/home: no log-ins with keys: cannot write ")
    assert "CANDY_STATE_DIR" in caplog.messages[0]


async def test_keys_that_are_damaged(tmp_path: Path) -> None:
    keyring, enrolment = made(tmp_path)
    del keyring
    (tmp_path / "keys" / "%2F" / "relay.key").write_text("nonsense\n")
    with pytest.raises(OperationalError, match=r"relay\.key is damaged"):
        keyring_of(RelayKeys(tmp_path, "/", bytes), enrolment, WALL, "")
