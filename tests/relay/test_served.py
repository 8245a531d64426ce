"""A network as it is served: which messages wait for a password to be stretched."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.login import psk_of

from candy._fastpath import Engine
from candy.protocol.login import NO_SELECTOR, Credential, Login
from candy.relay import keyring
from candy.relay.guessing import FailureLimiter
from candy.relay.networksettings import NetworkSettings
from candy.relay.served import Served, serve

OFFERED = ("candy.3", "candy.2")
WALL = 1_800_000_000


def login(credential: Credential) -> bytes:
    return Login(1, credential, NO_SELECTOR, bytes(165)).encode()


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.stop()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Served:
    monkeypatch.setattr(keyring, "of_password", lambda password, network: psk_of(password))
    made = serve(NetworkSettings(password=b"a password", path="/"), engine, FailureLimiter(60))
    made.load_keys(tmp_path, WALL)
    return made


async def test_the_upgrade_waits_for_no_password_and_a_log_in_by_one_does(served: Served) -> None:
    assert served.log_in(("candy.2",)) is None
    assert served.log_in(OFFERED) is not None
    assert served.has_to_stretch(login(Credential.PASSWORD))
    for other in (login(Credential.DEVICE), login(Credential.INVITATION), b"", bytes([21]), b"\x01" * 200):
        assert not served.has_to_stretch(other)
    await served.stretch()
    assert not served.has_to_stretch(login(Credential.PASSWORD))
