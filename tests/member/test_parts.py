"""What a member's settings make of its parts."""

from ipaddress import IPv4Interface
from pathlib import Path
from typing import cast

import pytest

from candy import __version__
from candy._fastpath import Engine
from candy.checked import checked
from candy.member import parts
from candy.member.acceptance import Acceptance
from candy.member.keys import MemberKeys
from candy.member.settings import MemberSettings
from candy.member.state import MemberState
from candy.protocol.keys import fingerprint
from candy.protocol.login import Asks
from candy.protocol.secret import Secret
from candy.sealing.seals import Seal

NETWORK = bytes([1]) * 32


@pytest.mark.parametrize("host", ["vm", "h" * 200, "hôte" * 50])
def test_hello(host: str) -> None:
    text = parts.hello(host)
    assert text.startswith(f"candy::linux::{__version__}::{host[:2]}".encode())
    assert len(text) <= 125


def test_a_member_without_a_password(tmp_path: Path) -> None:
    settings = checked(
        MemberSettings,
        {"password": None, "state_dir": tmp_path, "urls": "ws://relay/", "network_key": NETWORK, "tun": "10.0.0.5/24"},
    )
    identity = parts.identity(settings, MemberState(tmp_path), Acceptance(()))
    assert (identity.password, identity.address) == (b"", IPv4Interface("10.0.0.5/24"))
    keyring = parts.keyring(settings)
    assert not keyring.has_password
    assert keyring.fingerprints() == (fingerprint(NETWORK), None)
    # It is made when a relay asks for it.
    assert MemberKeys(tmp_path).device_if_made() is None
    assert parts.dialer(settings).relay == "ws://relay/"


@pytest.mark.parametrize(
    ("given", "seal", "flags"),
    [
        ({}, Seal.PREFER, Asks(0)),
        ({"seal": "require"}, Seal.REQUIRE, Asks.REQUIRES_SEALING),
        ({"secret": Secret(bytes(32))}, Seal.REQUIRE, Asks.REQUIRES_SEALING),
        ({"seal": "off"}, Seal.OFF, Asks.SEALS_NOTHING),
    ],
)
@pytest.mark.parametrize("has_aes", [True, False])
def test_how_it_seals(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, object],
    seal: Seal,
    flags: Asks,
    has_aes: bool,
) -> None:
    monkeypatch.setattr(parts, "has_aes", lambda: has_aes)
    settings = checked(MemberSettings, {"password": b"x", "state_dir": tmp_path, "urls": "ws://relay/"} | given)
    sealing = parts.sealing(settings, MemberState(tmp_path), cast(Engine, None), 1)(lambda said: None)
    assert (sealing.seal, sealing.flags) == (seal, flags | (Asks.HAS_AES if has_aes else Asks(0)))


def test_a_certificate_that_is_not_verified_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = {"password": b"x", "state_dir": tmp_path, "insecure": True}
    parts.dialer(checked(MemberSettings, given | {"urls": "ws://relay/"}))
    assert caplog.messages == []
    parts.dialer(checked(MemberSettings, given | {"urls": "wss://relay/"}))
    assert caplog.messages == ["the relay's certificate is not verified (--insecure)"]
