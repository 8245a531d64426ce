# What keys are used with outside of TLS, for Python: X25519, Ed25519, HKDF and AES-256-GCM. No packet comes here.
#
# 1. Lengths are checked before a pointer is handed over.
# 2. OpenSSL's queue of errors is left empty, because Python's ssl would take what is in it for its own.

from cpython.bytes cimport PyBytes_FromStringAndSize

cdef bytes X25519_BASE = b"\x09" + bytes(31)   # the point that public keys are multiples of (RFC 7748, section 6.1)

cdef enum:
    RAW_KEY_BYTES = 32
    SIGNATURE_BYTES = 64
    SHA_BYTES = 32            # of a digest
    SHA_BLOCK = 64
    HKDF_MOST = 255           # digests
    AES_MOST = 1 << 30        # bytes that are sealed, or opened, at once: OpenSSL counts them by an int


cdef key_failure():
    """What to raise when OpenSSL can't: it has no memory, or no such algorithm."""
    return OSError(f"{OpenSSL_version(0).decode()} fails with a key: {openssl_words()}")


cdef void *signing_key(bytes seed) except NULL:
    """With its public half."""
    cdef void *key
    libssl_load()
    if len(seed) != RAW_KEY_BYTES:
        raise ValueError(f"a private key has {RAW_KEY_BYTES} bytes, not {len(seed)}")
    key = EVP_PKEY_new_raw_private_key(NID_ED25519, NULL, seed, RAW_KEY_BYTES)
    if key == NULL:
        raise key_failure()
    return key


cdef void *key_for_exchange(const uint8_t *private, const uint8_t *public) noexcept nogil:
    """Our private half of X25519, and the peer's public one: it stands for both in an exchange. To work out our own
    takes as long as an exchange, which does without. NULL: OpenSSL can't."""
    cdef OsslParam parts[3]
    cdef void *key = NULL
    cdef void *c = EVP_PKEY_CTX_new_from_name(NULL, b"X25519", NULL)
    memset(parts, 0, sizeof(parts))
    parts[0].name = b"priv"
    parts[0].data = <void *>private
    parts[1].name = b"pub"
    parts[1].data = <void *>public
    parts[0].kind = parts[1].kind = OSSL_PARAM_OCTET_STRING
    parts[0].size = parts[1].size = RAW_KEY_BYTES
    if c != NULL and EVP_PKEY_fromdata_init(c) == 1:
        EVP_PKEY_fromdata(c, &key, EVP_PKEY_KEYPAIR, parts)
    EVP_PKEY_CTX_free(c)
    return key


def x25519_public(bytes private not None):
    # As RFC 7748 defines it, which takes less than OpenSSL's own way to a public key.
    if len(private) != RAW_KEY_BYTES:
        raise ValueError(f"a private key has {RAW_KEY_BYTES} bytes, not {len(private)}")
    return x25519_exchange(private, X25519_BASE)


def x25519_exchange(bytes private not None, bytes public not None):
    cdef uint8_t shared[RAW_KEY_BYTES]
    cdef size_t size = RAW_KEY_BYTES
    cdef bint ready, done
    cdef void *key
    cdef void *c
    libssl_load()
    if len(private) != RAW_KEY_BYTES or len(public) != RAW_KEY_BYTES:
        raise ValueError(f"keys have {RAW_KEY_BYTES} bytes, not {len(private)} and {len(public)}")
    key = key_for_exchange(private, public)
    c = EVP_PKEY_CTX_new(key, NULL) if key != NULL else NULL
    ready = c != NULL and EVP_PKEY_derive_init(c) == 1 and EVP_PKEY_derive_set_peer(c, key) == 1
    done = ready and EVP_PKEY_derive(c, shared, &size) == 1
    EVP_PKEY_CTX_free(c)
    EVP_PKEY_free(key)
    if not ready:
        raise key_failure()
    ERR_clear_error()
    found = (<char *>shared)[:size] if done else None
    OPENSSL_cleanse(shared, sizeof(shared))
    return found


cdef bint hmac_sha256(const uint8_t *key, const uint8_t *data, uint32_t n, uint8_t *out) noexcept nogil:
    """HMAC (RFC 2104) under a key of SHA_BYTES of at most SHA_BYTES + 1 bytes. False: OpenSSL can't."""
    cdef uint8_t block[SHA_BLOCK + SHA_BYTES + 1]
    cdef uint32_t i
    cdef bint done
    memset(block, 0x36, SHA_BLOCK)
    for i in range(SHA_BYTES):
        block[i] ^= key[i]
    memcpy(block + SHA_BLOCK, data, n)
    done = EVP_Digest(block, SHA_BLOCK + n, out, NULL, EVP_sha256(), NULL) == 1
    for i in range(SHA_BLOCK):
        block[i] ^= 0x36 ^ 0x5C
    memcpy(block + SHA_BLOCK, out, SHA_BYTES)
    done = done and EVP_Digest(block, SHA_BLOCK + SHA_BYTES, out, NULL, EVP_sha256(), NULL) == 1
    OPENSSL_cleanse(block, sizeof(block))
    return done


def hkdf(bytes chaining not None, bytes material not None, int outputs):
    cdef uint8_t secret[SHA_BYTES]
    cdef uint8_t step[SHA_BYTES + 1]
    cdef bint done
    cdef uint32_t n = 0
    cdef int number
    cdef list found = []
    libssl_load()
    if len(chaining) != SHA_BYTES or len(material) > SHA_BYTES:
        raise ValueError(f"HKDF takes {SHA_BYTES} bytes and at most as many, not {len(chaining)} and {len(material)}")
    if not 1 <= outputs <= HKDF_MOST:
        raise ValueError(f"HKDF has 1 to {HKDF_MOST} outputs, not {outputs}")
    done = hmac_sha256(chaining, material, <uint32_t>len(material), secret)
    for number in range(1, outputs + 1):
        step[n] = <uint8_t>number
        done = done and hmac_sha256(secret, step, n + 1, step)
        found.append((<char *>step)[:SHA_BYTES])
        n = SHA_BYTES
    OPENSSL_cleanse(secret, sizeof(secret))
    OPENSSL_cleanse(step, sizeof(step))
    if not done:
        raise key_failure()
    return found


def ed25519_public(bytes seed not None):
    cdef uint8_t found[RAW_KEY_BYTES]
    cdef size_t size = RAW_KEY_BYTES
    cdef void *key = signing_key(seed)
    cdef bint done = EVP_PKEY_get_raw_public_key(key, found, &size) == 1
    EVP_PKEY_free(key)
    if not done:
        raise key_failure()
    return (<char *>found)[:size]


def ed25519_sign(bytes seed not None, bytes message not None):
    cdef uint8_t signature[SIGNATURE_BYTES]
    cdef size_t size = SIGNATURE_BYTES
    cdef void *key = signing_key(seed)
    cdef void *c = EVP_MD_CTX_new()
    cdef bint done = (c != NULL and EVP_DigestSignInit(c, NULL, NULL, NULL, key) == 1
                      and EVP_DigestSign(c, signature, &size, message, len(message)) == 1)
    EVP_MD_CTX_free(c)
    EVP_PKEY_free(key)
    if not done:
        raise key_failure()
    return (<char *>signature)[:size]


def ed25519_verify(bytes public not None, bytes signature not None, bytes message not None):
    cdef bint ready, right
    cdef void *key
    cdef void *c
    libssl_load()
    if len(public) != RAW_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    key = EVP_PKEY_new_raw_public_key(NID_ED25519, NULL, public, RAW_KEY_BYTES)
    c = EVP_MD_CTX_new()
    ready = key != NULL and c != NULL and EVP_DigestVerifyInit(c, NULL, NULL, NULL, key) == 1
    right = ready and EVP_DigestVerify(c, signature, SIGNATURE_BYTES, message, len(message)) == 1
    EVP_MD_CTX_free(c)
    EVP_PKEY_free(key)
    if not ready:
        raise key_failure()
    ERR_clear_error()
    return right


cdef void *aes_begin(bytes key, bytes nonce, bytes data, bint seals) except NULL:
    """A context that has taken the associated data."""
    cdef void *c
    cdef int size = 0
    if len(key) != RAW_KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError(f"a key has {RAW_KEY_BYTES} bytes and a nonce {NONCE_BYTES}, not {len(key)} and {len(nonce)}")
    if len(data) > AES_MOST:
        raise ValueError(f"associated data has at most {AES_MOST} bytes, not {len(data)}")
    libssl_load()
    c = EVP_CIPHER_CTX_new()
    if c == NULL or (EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, key, nonce, seals) != 1
                     or EVP_CipherUpdate(c, NULL, &size, data, <int>len(data)) != 1):
        EVP_CIPHER_CTX_free(c)
        raise key_failure()
    return c


def aes_seal(bytes key not None, bytes nonce not None, bytes data not None, bytes plaintext not None):
    cdef uint32_t n
    cdef bytes sealed
    cdef uint8_t *out
    cdef void *c
    cdef int size = 0
    cdef bint done
    if len(plaintext) > AES_MOST:
        raise ValueError(f"at most {AES_MOST} bytes are sealed at once, not {len(plaintext)}")
    n = <uint32_t>len(plaintext)
    sealed = PyBytes_FromStringAndSize(NULL, n + RECORD_TAG)
    out = <uint8_t *><char *>sealed
    c = aes_begin(key, nonce, data, True)
    done = (EVP_CipherUpdate(c, out, &size, plaintext, <int>n) == 1 and EVP_CipherFinal_ex(c, out + n, &size) == 1
            and EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, RECORD_TAG, out + n) == 1)
    EVP_CIPHER_CTX_free(c)
    if not done:
        raise key_failure()
    return sealed


def aes_open(bytes key not None, bytes nonce not None, bytes data not None, bytes sealed not None):
    cdef uint32_t n
    cdef bytes plaintext
    cdef uint8_t *out
    cdef const uint8_t *p = sealed
    cdef void *c
    cdef int size = 0
    cdef bint done
    if len(sealed) < RECORD_TAG:
        return None
    if len(sealed) > AES_MOST:
        raise ValueError(f"at most {AES_MOST} bytes are opened at once, not {len(sealed)}")
    n = <uint32_t>len(sealed) - RECORD_TAG
    plaintext = PyBytes_FromStringAndSize(NULL, n)
    out = <uint8_t *><char *>plaintext
    c = aes_begin(key, nonce, data, False)
    done = (EVP_CipherUpdate(c, out, &size, p, <int>n) == 1
            and EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, RECORD_TAG, <void *>(p + n)) == 1
            and EVP_CipherFinal_ex(c, out + n, &size) == 1)
    EVP_CIPHER_CTX_free(c)
    ERR_clear_error()
    return plaintext if done else None
