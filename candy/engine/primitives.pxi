# What keys are used with outside of TLS, for Python: X25519, Ed25519 and AES-256-GCM. No packet comes here.
#
# 1. Lengths are checked before a pointer is handed over.
# 2. OpenSSL's queue of errors is left empty, because Python's ssl would take what is in it for its own.

from cpython.bytes cimport PyBytes_FromStringAndSize

cdef enum:
    RAW_KEY_BYTES = 32
    SIGNATURE_BYTES = 64
    AES_MOST = 1 << 30        # bytes that are sealed, or opened, at once: OpenSSL counts them by an int


cdef key_failure():
    """What to raise when OpenSSL can't: it has no memory, or no such algorithm."""
    return OSError(f"{OpenSSL_version(0).decode()} fails with a key: {openssl_words()}")


cdef void *key_of(bytes private, int kind) except NULL:
    """A private key, with its public half."""
    cdef void *key
    libssl_load()
    if len(private) != RAW_KEY_BYTES:
        raise ValueError(f"a private key has {RAW_KEY_BYTES} bytes, not {len(private)}")
    key = EVP_PKEY_new_raw_private_key(kind, NULL, private, RAW_KEY_BYTES)
    if key == NULL:
        raise key_failure()
    return key


cdef void *key_for_exchange(const uint8_t *private, const uint8_t *public) noexcept nogil:
    """A private key of X25519, with any public half: to work out its own takes as long as an exchange, which does
    without. NULL: OpenSSL can't."""
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


cdef bytes key_public(bytes private, int kind):
    cdef uint8_t found[RAW_KEY_BYTES]
    cdef size_t size = RAW_KEY_BYTES
    cdef void *key = key_of(private, kind)
    cdef bint done = EVP_PKEY_get_raw_public_key(key, found, &size) == 1
    EVP_PKEY_free(key)
    if not done:
        raise key_failure()
    return (<char *>found)[:size]


def x25519_public(bytes private not None):
    return key_public(private, NID_X25519)


def x25519_exchange(bytes private not None, bytes public not None):
    cdef uint8_t shared[RAW_KEY_BYTES]
    cdef size_t size = RAW_KEY_BYTES
    cdef bint ready, done
    cdef void *own
    cdef void *peer
    cdef void *c
    libssl_load()
    if len(private) != RAW_KEY_BYTES or len(public) != RAW_KEY_BYTES:
        raise ValueError(f"keys have {RAW_KEY_BYTES} bytes, not {len(private)} and {len(public)}")
    own = key_for_exchange(private, public)
    peer = EVP_PKEY_new_raw_public_key(NID_X25519, NULL, public, RAW_KEY_BYTES)
    c = EVP_PKEY_CTX_new(own, NULL) if own != NULL and peer != NULL else NULL
    ready = c != NULL and EVP_PKEY_derive_init(c) == 1 and EVP_PKEY_derive_set_peer(c, peer) == 1
    done = ready and EVP_PKEY_derive(c, shared, &size) == 1
    EVP_PKEY_CTX_free(c)
    EVP_PKEY_free(peer)
    EVP_PKEY_free(own)
    if not ready:
        raise key_failure()
    ERR_clear_error()
    found = (<char *>shared)[:size] if done else None
    OPENSSL_cleanse(shared, sizeof(shared))
    return found


def ed25519_public(bytes seed not None):
    return key_public(seed, NID_ED25519)


def ed25519_sign(bytes seed not None, bytes message not None):
    cdef uint8_t signature[SIGNATURE_BYTES]
    cdef size_t size = SIGNATURE_BYTES
    cdef void *key = key_of(seed, NID_ED25519)
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
