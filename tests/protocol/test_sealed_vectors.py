"""candy.3 in bytes: one log-in, one session and what they carry, put together step by step after docs/protocol.md.

`sealed_vectors.json` holds what comes out, for those who build a part of it. Of the programs nothing is used here but
`candy.protocol.noise`, so it says what the document says: a part that gives other bytes is wrong, or all three change.
"""

import hashlib
import json
from ipaddress import IPv4Address
from pathlib import Path
from struct import pack

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from kit.primitives import PRIMITIVES, pair

from candy.protocol.noise import IKPSK1, IKPSK2, Handshake, KeyPair

VECTORS = json.loads((Path(__file__).parent / "sealed_vectors.json").read_text())

DEVICE, RELAY, PEER = (pair(bytes([number]) * 32) for number in range(0x11, 0x14))
LOGIN_EPHEMERAL, RELAY_EPHEMERAL, SESSION_EPHEMERAL, PEER_EPHEMERAL, REKEY_EPHEMERAL = (
    pair(bytes([number]) * 32) for number in range(0x14, 0x19)
)
NETWORK, NEXT_NETWORK = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (0x21, 0x22))
NETWORK_KEY = NETWORK.public_key().public_bytes_raw()
NONCE = bytes([0x31]) * 32
SELECTOR, SECRET = bytes([0x41]) * 16, bytes([0x42]) * 32
OURS, THEIRS = IPv4Address("10.0.0.1").packed, IPv4Address("10.0.0.2").packed
GROUP = IPv4Address("224.0.0.251").packed
OUR_NUMBER, THEIR_NUMBER, NEW_NUMBER = bytes([0x51]) * 4, bytes([0x52]) * 4, bytes([0x53]) * 4
EPOCH = pack(">q", 1_800_000_000) + bytes([0x61]) * 8
PACKET = bytes.fromhex("4500001c00004000400126df0a0000010a000002") + bytes.fromhex("0800f7ff00000000")
"""An echo request from OURS to THEIRS, behind no particular virtio header."""


def expand(key: bytes, label: str) -> bytes:
    return HKDFExpand(SHA256(), 32, label.encode()).derive(key)


def derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(secret)


def stretch(text: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(text, salt=salt, n=1 << 15, r=8, p=3, dklen=32, maxmem=1 << 26)


def label(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def candy_key() -> bytes:
    signed = bytes([1, 0]) + NETWORK_KEY + RELAY.public + pack(">H", 0) + (1_800_000_000).to_bytes(6, "big")
    return signed + NETWORK.sign(b"candy.3 relay key" + signed)


def succession() -> bytes:
    signed = NETWORK_KEY + NEXT_NETWORK.public_key().public_bytes_raw() + pack(">Q", 1)
    return signed + NETWORK.sign(b"candy.3 network key" + signed)


def shake(one: Handshake, other: Handshake, payloads: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """Both messages, as they were read by the other side."""
    first = one.write(payloads[0])
    assert other.read(first) == payloads[0]
    second = other.write(payloads[1])
    assert one.read(second) == payloads[1]
    assert one.hash == other.hash
    return first, second


def test_keys_before_the_log_in() -> None:
    assert candy_key().hex() == VECTORS["Candy-Key"]
    assert succession().hex() == VECTORS["Candy-Succession entry"]
    assert (len(candy_key()), len(succession())) == (138, 136)


def test_pre_shared_keys() -> None:
    text_salt = hashlib.sha256(b"candy.3 secret" + NETWORK_KEY).digest()
    found = {
        "password": stretch(b"correct horse battery staple", NETWORK_KEY),
        "invitation": derive(SECRET, NETWORK_KEY, b"candy.3 invitation"),
        "device": derive(SECRET, NETWORK_KEY, b"candy.3 device"),
        "pair": derive(SECRET, NETWORK_KEY, b"candy.3 pair"),
        "pair of a text": derive(stretch(b"a text", text_salt), NETWORK_KEY, b"candy.3 pair"),
    }
    assert {name: psk.hex() for name, psk in found.items()} == VECTORS["psk"]


def test_log_in() -> None:
    header = bytes([21, 1, 1, 3]) + SELECTOR
    offered = hashlib.sha256(b"candy.3,candy.2").digest()
    prologue = label("candy.3 log-in") + candy_key()[:74] + NONCE + offered + header[1:]
    assert len(prologue) == 173
    psk = derive(SECRET, NETWORK_KEY, b"candy.3 device")
    one = Handshake(
        IKPSK1,
        PRIMITIVES,
        is_initiator=True,
        prologue=prologue,
        static=DEVICE,
        ephemeral=LOGIN_EPHEMERAL,
        remote=RELAY.public,
        psk=psk,
    )
    other = Handshake(
        IKPSK1, PRIMITIVES, is_initiator=False, prologue=prologue, static=RELAY, ephemeral=RELAY_EPHEMERAL, psk=psk
    )
    texts = b"".join(bytes([len(text)]) + text for text in (b"linux", b"7.0", b"laptop"))
    asked = bytes(32 + 16) + bytes(5) + bytes([2]) + pack(">I", 65535) + bytes([0x71]) * 8 + texts
    told = pack(">HB", 0, 4) + OURS + bytes([24]) + bytes(4) + bytes([0x72]) * 8 + pack(">q", 1_800_000_001) + bytes(49)
    assert (len(asked), len(told)) == (66 + len(texts), 77)
    first, second = shake(one, other, (asked, told))
    assert (header + first).hex() == VECTORS["LOGIN 1"]
    assert (bytes([21, 1, 2, 0]) + bytes(16) + second).hex() == VECTORS["LOGIN 2"]
    assert one.hash.hex() == VECTORS["log-in hash"]
    sends, receives = (expand(cipher.key, "candy.3 control") for cipher in one.split())
    assert (sends.hex(), receives.hex()) == (VECTORS["control of member"], VECTORS["control of relay"])
    data = bytes([22, 0, 0, 0]) + pack(">Q", 0)
    confirm = data + AESGCM(sends).encrypt(bytes(12), bytes([40]), data)
    assert confirm.hex() == VECTORS["CONFIRM"]


def session() -> tuple[Handshake, list[bytes]]:
    """The initiator, and both HANDSHAKEs."""
    header = bytes([20, 1, 0, 0]) + OURS + THEIRS + OUR_NUMBER + bytes(4)
    answer = bytes([20, 2, 0, 0]) + THEIRS + OURS + THEIR_NUMBER + OUR_NUMBER
    prologue = label("candy.3 session") + NETWORK_KEY + OURS + THEIRS + header
    assert len(prologue) == 76
    psk = derive(SECRET, NETWORK_KEY, b"candy.3 pair")
    one, other = between(prologue, psk, SESSION_EPHEMERAL)
    time = pack(">QI", 2**62 + 10 + 1_800_000_002, 5)
    asked = time + bytes([3, 2]) + pack(">I", 65535) + bytes(14)
    told = answer[4:] + bytes([1, 2]) + pack(">I", 65535) + bytes(10)
    first, second = shake(one, other, (asked, told))
    return one, [header + first, answer + second]


def between(prologue: bytes, psk: bytes, ephemeral: KeyPair) -> tuple[Handshake, Handshake]:
    one = Handshake(
        IKPSK2,
        PRIMITIVES,
        is_initiator=True,
        prologue=prologue,
        static=DEVICE,
        ephemeral=ephemeral,
        remote=PEER.public,
        psk=psk,
    )
    other = Handshake(
        IKPSK2, PRIMITIVES, is_initiator=False, prologue=prologue, static=PEER, ephemeral=PEER_EPHEMERAL, psk=psk
    )
    return one, other


def test_session_of_two_members() -> None:
    one, messages = session()
    assert [message.hex() for message in messages] == VECTORS["HANDSHAKE"]
    assert [len(message) for message in messages] == [148, 100]
    sends, receives = (cipher.key for cipher in one.split())
    found = {
        "relay path, of initiator": expand(sends, "candy.3 relay path"),
        "relay path, of responder": expand(receives, "candy.3 relay path"),
        "direct path, of initiator": expand(sends, "candy.3 direct path"),
        "direct path, of responder": expand(receives, "candy.3 direct path"),
    }
    assert {name: key.hex() for name, key in found.items()} == VECTORS["keys"]


def test_sealed_packets() -> None:
    key = bytes.fromhex(VECTORS["keys"]["relay path, of initiator"])
    data = bytes([18, 0]) + bytes([0x81, 0x82]) + OURS + THEIRS + THEIR_NUMBER + pack(">Q", 258)
    plain = bytes(10) + PACKET
    found = {
        "AES-256-GCM": AESGCM(key).encrypt(bytes(4) + pack(">Q", 258), plain, data),
        "ChaCha20-Poly1305": ChaCha20Poly1305(key).encrypt(bytes(4) + pack("<Q", 258), plain, data),
    }
    assert {name: (data + sealed).hex() for name, sealed in found.items()} == VECTORS["SEALED"]


def test_rekeying() -> None:
    old, _ = session()
    prologue = label("candy.3 rekey") + OURS + THEIRS + NEW_NUMBER + old.hash
    assert len(prologue) == 60
    one, _ = between(prologue, derive(SECRET, NETWORK_KEY, b"candy.3 pair"), REKEY_EPHEMERAL)
    asked = pack(">QI", 2**62 + 10 + 1_800_000_122, 0) + bytes([3, 2]) + pack(">I", 65535) + bytes(14)
    note = bytes([0x80, 1]) + NEW_NUMBER + bytes(4) + one.write(asked)
    assert (len(note), note.hex()) == (138, VECTORS["note 1"])


def test_sealed_group_packet() -> None:
    key = derive(SECRET, EPOCH, b"candy.3 group" + NETWORK_KEY + OURS + DEVICE.public)
    data = bytes([19, 0, 0x81, 0x82]) + OURS + GROUP + EPOCH + pack(">Q", 0)
    assert key.hex() == VECTORS["group key"]
    assert (data + AESGCM(key).encrypt(bytes(12), bytes(10) + PACKET, data)).hex() == VECTORS["SEALED_GROUP"]


def test_a_frame_whose_mask_passes_through() -> None:
    payload, mask = bytes([1]) + PACKET, bytes.fromhex("81020304")
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    sent = bytes([0x82, 0x80 | len(payload)]) + mask + masked
    forwarded = bytes([0x82, len(payload) + 4]) + mask + masked
    assert [frame.hex() for frame in (sent, forwarded)] == VECTORS["frames"]
    assert sent[2:] == forwarded[2:]
