"""What the keys of candy.3 are used with, for programs that need them.

The parts that decide take primitives as arguments (candy.protocol.noise, candy.protocol.keys); this is where those of
the programs come from, and the only place. SHA-256, HMAC and scrypt are the standard library's, the rest is the
engine's: all of the OpenSSL that Python has loaded. The library `cryptography` has another within it, of ten megabytes.
"""

from candy import _fastpath
from candy.protocol.noise import KeyPair, Primitives

exchange = _fastpath.x25519_exchange
seal = _fastpath.aes_seal
opened = _fastpath.aes_open
hkdf = _fastpath.hkdf
signing_public = _fastpath.ed25519_public
sign = _fastpath.ed25519_sign
verify = _fastpath.ed25519_verify


def key_pair(private: bytes) -> KeyPair:
    """Of X25519, from 32 random bytes."""
    return KeyPair(private, _fastpath.x25519_public(private))


NOISE = Primitives(exchange, seal, opened, hkdf)
