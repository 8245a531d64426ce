"""What Noise is made of (candy.protocol.noise), by the library `cryptography`."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from candy.protocol.noise import KEY_BYTES, KeyPair, Primitives


def exchange(private: bytes, public: bytes) -> bytes | None:
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return None


def pair(private: bytes) -> KeyPair:
    return KeyPair(private, X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


def seal(key: bytes, nonce: bytes, data: bytes, plaintext: bytes) -> bytes:
    return AESGCM(key).encrypt(nonce, plaintext, data)


def opened(key: bytes, nonce: bytes, data: bytes, ciphertext: bytes) -> bytes | None:
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, data)
    except InvalidTag:
        return None


def hkdf(chaining: bytes, material: bytes, outputs: int) -> list[bytes]:
    found = HKDF(SHA256(), KEY_BYTES * outputs, salt=chaining, info=b"").derive(material)
    return [found[at : at + KEY_BYTES] for at in range(0, len(found), KEY_BYTES)]


PRIMITIVES = Primitives(exchange, seal, opened, hkdf)
