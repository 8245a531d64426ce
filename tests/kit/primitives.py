"""What Noise is made of (candy.protocol.noise), by the library `cryptography`."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from candy.protocol.noise import KeyPair, Primitives


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


PRIMITIVES = Primitives(exchange, seal, opened)
