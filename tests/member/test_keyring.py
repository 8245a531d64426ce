"""What a member logs in by from one connection to the next: what is read, and when, and what is worked out where.

What it keeps, and what it does on a full disk, is in test_member_keyed.py.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.login import NETWORK, Talk, psk_of

from candy.errors import KeysUnusable, OperationalError
from candy.member.keyring import Keyring
from candy.member.keys import MemberKeys
from candy.member.login import Ticket
from candy.member.trust import Known
from candy.protocol.keys import fingerprint
from candy.protocol.login import Asked, Credential

KNOWN = Known(0, bytes([3]) * 32, 1, (bytes([4]) * 32, bytes([5]) * 32))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Keyring]:
    def make(**options: object) -> Keyring:
        given = {"password": b"correct horse", "randbytes": os.urandom, "stretch": lambda password, _: psk_of(password)}
        return Keyring(MemberKeys(tmp_path), **(given | options))  # type: ignore[arg-type]

    return make


def test_what_it_knows(make: Callable[..., Keyring], tmp_path: Path) -> None:
    keyring = make()
    assert (keyring.has_password, keyring.knows_network(), keyring.fingerprints()) == (True, False, (None, None))
    with_line = make(password=None, network=NETWORK)
    assert (with_line.has_password, with_line.knows_network()) == (False, True)
    assert with_line.fingerprints() == (fingerprint(NETWORK), None)
    # Another process may write, as candy-client join does.
    keys = MemberKeys(tmp_path)
    keys.keep_known(KNOWN)
    device = keys.device(os.urandom)
    assert keyring.knows_network()
    assert keyring.fingerprints() == (fingerprint(KNOWN.network), fingerprint(device.public))


async def test_the_files_are_read_anew_for_each_log_in(make: Callable[..., Keyring], tmp_path: Path) -> None:
    keyring, shown = make(), Talk().relay().shown
    for ticket, expected in ((None, Credential.PASSWORD), (Ticket(bytes(16), bytes(32)), Credential.DEVICE)):
        if ticket is not None:
            MemberKeys(tmp_path).keep_ticket(ticket)
        log_in = await keyring.log_in(shown)
        log_in.begin(shown, Asked())
        assert log_in.credential is expected


async def test_a_password_is_stretched_once_for_each_network(make: Callable[..., Keyring], tmp_path: Path) -> None:
    networks: list[bytes] = []

    def stretch(password: bytes, network: bytes) -> bytes:
        networks.append(network)
        return psk_of(password)

    keyring, shown = make(stretch=stretch), Talk().relay().shown
    for _ in range(2):
        await keyring.log_in(shown)
    assert networks == [NETWORK]
    MemberKeys(tmp_path).keep_ticket(Ticket(bytes(16), bytes(32)))
    await make(stretch=stretch).log_in(shown)
    assert networks == [NETWORK]


@pytest.mark.parametrize("kind", ["device", "credential", "network"])
async def test_a_damaged_file(make: Callable[..., Keyring], tmp_path: Path, kind: str) -> None:
    """Ends a start; one that runs is told so, and can't do without."""
    keyring = make()
    (tmp_path / kind).mkdir()
    (tmp_path / kind / "__noname__").write_text("AAAA\n")
    (tmp_path / kind / "__noname__").chmod(0o600)
    with pytest.raises(KeysUnusable, match="is damaged"):
        await keyring.log_in(Talk().relay().shown)
    with pytest.raises(OperationalError, match="is damaged"):
        make()
    assert (tmp_path / kind / "__noname__").read_text() == "AAAA\n"
