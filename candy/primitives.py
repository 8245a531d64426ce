"""What the keys of candy.3 are used with: X25519, Ed25519 and AES-256-GCM, for programs that need them.

The parts that decide take primitives as arguments (candy.protocol.noise, candy.protocol.keys); this is where those of
the programs come from, and the only place. SHA-256, HMAC and scrypt are the standard library's. The library behind it
is loaded at the first use, for most starts need none.
"""

from candy.protocol.noise import KeyPair, Primitives


def exchange(private: bytes, public: bytes) -> bytes | None:
    """X25519; None for a point of low order."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return None


def key_pair(private: bytes) -> KeyPair:
    """Of X25519, from 32 random bytes."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return KeyPair(private, X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw())


def seal(key: bytes, nonce: bytes, data: bytes, plaintext: bytes) -> bytes:
    """AES-256-GCM."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).encrypt(nonce, plaintext, data)


def opened(key: bytes, nonce: bytes, data: bytes, ciphertext: bytes) -> bytes | None:
    """AES-256-GCM; None if the tag is wrong."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(nonce, ciphertext, data)
    except InvalidTag:
        return None


def signing_public(seed: bytes) -> bytes:
    """Ed25519: the public key of a seed of 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, message: bytes) -> bytes:
    """Ed25519."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Ed25519."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


NOISE = Primitives(exchange, seal, opened)
