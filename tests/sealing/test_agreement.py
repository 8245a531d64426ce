"""What two members agree on: the bytes of the vectors, and whatever one of them must not take."""

import json
from ipaddress import IPv4Address
from pathlib import Path
from struct import pack

import pytest
from kit.primitives import PRIMITIVES, pair

from candy.protocol.handshake import Answer, Cipher, Message
from candy.protocol.keys import of_pair
from candy.protocol.login import Asks
from candy.protocol.noise import KeyPair, NoiseError
from candy.sealing import agreement
from candy.sealing.agreement import Agreed, Party

VECTORS = json.loads((Path(__file__).parents[1] / "protocol" / "sealed_vectors.json").read_text())
ONE, TWO = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
DEVICE, PEER = pair(bytes([0x11]) * 32), pair(bytes([0x13]) * 32)
NETWORK = bytes.fromhex(VECTORS["Candy-Key"])[2:34]
PSK = of_pair(bytes([0x42]) * 32, NETWORK)
STAMP = pack(">QI", 2**62 + 10 + 1_800_000_002, 5)
FIRST = Message(1, ONE, TWO, 0x51515151, 0)


def party(device: KeyPair, address: IPv4Address, psk: bytes = PSK, ciphers: int = 3) -> Party:
    return Party(
        device=device,
        address=address,
        network=NETWORK,
        psk=psk,
        flags=Asks.HAS_AES,
        commit_bytes=65535,
        ciphers=ciphers,
        primitives=PRIMITIVES,
        key_pair=pair,
    )


A, B = party(DEVICE, ONE), party(PEER, TWO)


def shake(within: bytes | None = None) -> tuple[Message, Message, Agreed, Agreed]:
    offered = agreement.offered(A, FIRST, PEER.public, STAMP, bytes([0x16]) * 32, within)
    heard = agreement.heard(B, offered.message, bytes([0x17]) * 32, within)
    assert (heard.key, heard.offer.stamp) == (DEVICE.public, STAMP)
    second, other = agreement.answered(B, heard, 0x52525252)
    return offered.message, second, offered.agreed(A, second), other


def test_the_bytes_of_the_vectors() -> None:
    first, second, one, other = shake()
    assert [first.encode().hex(), second.encode().hex()] == VECTORS["HANDSHAKE"]
    keys = VECTORS["keys"]
    ours, theirs = keys["relay path, of initiator"], keys["relay path, of responder"]
    assert (one.sends.hex(), one.receives.hex()) == (ours, theirs)
    assert (other.sends.hex(), other.receives.hex()) == (theirs, ours)
    assert (one.local, one.remote) == (other.remote, other.local) == (0x51515151, 0x52525252)
    assert one.hash == other.hash
    assert one.cipher is other.cipher is Cipher.AES_256_GCM


def test_the_bytes_of_a_note() -> None:
    _, _, one, _ = shake()
    stamp = pack(">QI", 2**62 + 10 + 1_800_000_122, 0)
    first = Message(1, ONE, TWO, 0x53535353, 0)
    offered = agreement.offered(A, first, PEER.public, stamp, bytes([0x18]) * 32, one.hash)
    assert offered.message.encode_note().hex() == VECTORS["note 1"]
    with pytest.raises(NoiseError):
        agreement.heard(B, offered.message, bytes(32), None)
    with pytest.raises(NoiseError):
        agreement.heard(B, offered.message, bytes(32), bytes(32))


def test_a_hash_is_of_no_other_handshake() -> None:
    _, _, one, _ = shake()
    _, _, inside, _ = shake(one.hash)
    assert one.hash != inside.hash


def test_another_secret_shows_in_message_2() -> None:
    offered = agreement.offered(A, FIRST, PEER.public, STAMP, bytes([0x16]) * 32, None)
    stranger = party(PEER, TWO, bytes(32))
    second, _ = agreement.answered(stranger, agreement.heard(stranger, offered.message, bytes([1]) * 32, None), 7)
    with pytest.raises(NoiseError):
        offered.agreed(A, second)
    # And the true answer is taken after it.
    true, _ = agreement.answered(B, agreement.heard(B, offered.message, bytes([2]) * 32, None), 7)
    assert offered.agreed(A, true).remote == 7


def answer_with(answer: Answer) -> None:
    """A peer that has the keys, and answers what it likes."""
    offered = agreement.offered(A, FIRST, PEER.public, STAMP, bytes([0x16]) * 32, None)
    heard = agreement.heard(B, offered.message, bytes([1]) * 32, None)
    second = Message(2, TWO, ONE, 7, FIRST.sender, heard.handshake.write(answer.encode()))
    offered.agreed(party(DEVICE, ONE, ciphers=1), second)


ENDS = Message(2, TWO, ONE, 7, FIRST.sender).ends


def test_an_answer_that_a_peer_may_give() -> None:
    answer_with(Answer(ENDS, 1, Asks(0), 0))


@pytest.mark.parametrize("at", range(16))
def test_an_answer_repeats_its_header(at: int) -> None:
    ends = ENDS[:at] + bytes([ENDS[at] ^ 1]) + ENDS[at + 1 :]
    with pytest.raises(NoiseError, match="another message"):
        answer_with(Answer(ends, 1, Asks(0), 0))


@pytest.mark.parametrize("cipher", [0, 2, 3, 4])
def test_an_answer_names_one_cipher_of_those_offered(cipher: int) -> None:
    with pytest.raises(NoiseError, match="cipher"):
        answer_with(Answer(ENDS, cipher, Asks(0), 0))


def test_a_key_of_low_order() -> None:
    with pytest.raises(NoiseError, match="low order"):
        agreement.offered(A, FIRST, bytes(32), STAMP, bytes([0x16]) * 32, None)


def test_what_is_secret_is_in_no_repr() -> None:
    offered = agreement.offered(A, FIRST, PEER.public, STAMP, bytes([0x16]) * 32, None)
    heard = agreement.heard(B, offered.message, bytes([0x17]) * 32, None)
    shown = repr((A, offered, heard, agreement.answered(B, heard, 9)))
    assert str(PSK) not in shown
    assert str(DEVICE.private) not in shown
    assert "sends" not in shown
