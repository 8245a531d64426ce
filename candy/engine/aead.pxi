# Sealed packets, over bytes: one AEAD call for each, whatever its length, together with the mask that is over it on the
# wire. Pure. AES-256-GCM by the processor's own instructions where it has them, all else by OpenSSL.
#
#     | 18 | 0 | label 2 | source 4 | destination 4 | receiver's session 4 | counter 8 | ciphertext | tag 16 |
#
# The clear bytes, of which a packet for a group has more, are authenticated, and their last 8 are the counter. A mask
# goes over all of it. With OpenSSL it is put on, or taken off, chunk by chunk, while what the cipher has read or
# written is in the first-level cache.

cdef enum:
    SEAL_CHUNK = 8192               # a multiple of a cipher's block, and of a mask
    CIPHER_AES_256_GCM = 1          # numbers of the wire
    CIPHER_CHACHA20_POLY1305 = 2
    SEAL_KEY_BYTES = 32


cdef bint seal_key_set(SealKey *k, int cipher, const uint8_t *key, bint seals, bint own) noexcept nogil:
    """Make a key ready, once for all: `own` for the processor's instructions (gcm.h), where it has them, else for
    OpenSSL. False when that has no memory."""
    pthread_mutex_init(&k.lock, NULL)
    k.little_endian = cipher == CIPHER_CHACHA20_POLY1305
    k.own = own and cipher == CIPHER_AES_256_GCM and gcm_here()
    if k.own:
        gcm_set(&k.gcm, key)
    else:
        k.cipher = EVP_CIPHER_CTX_new()
        if k.cipher == NULL or EVP_CipherInit_ex(
                k.cipher, EVP_chacha20_poly1305() if k.little_endian else EVP_aes_256_gcm(), NULL, key, NULL,
                seals) != 1:
            return False
    k.ready = True
    return True


cdef void seal_key_wipe(SealKey *k) noexcept nogil:
    """Overwrite a key: nothing is sealed or opened with it any more."""
    pthread_mutex_lock(&k.lock)
    EVP_CIPHER_CTX_free(k.cipher)
    k.cipher = NULL
    OPENSSL_cleanse(&k.gcm, sizeof(Gcm))
    k.ready = False
    pthread_mutex_unlock(&k.lock)


cdef inline void seal_nonce(const SealKey *k, const uint8_t *header, uint32_t clear, uint8_t *nonce) noexcept nogil:
    """That of the packet that has this header, of `clear` bytes."""
    cdef uint64_t number = load_be64(header + clear - 8)
    memset(nonce, 0, 4)
    if k.little_endian:
        memcpy(nonce + 4, &number, 8)
    else:
        store_be64(nonce + 4, number)


cdef inline bint seal_begin(SealKey *k, const uint8_t *header, uint32_t clear, bint seals) noexcept nogil:
    """Have OpenSSL begin with the packet that has this header."""
    cdef uint8_t nonce[NONCE_BYTES]
    cdef int size
    seal_nonce(k, header, clear, nonce)
    return (EVP_CipherInit_ex(k.cipher, NULL, NULL, NULL, nonce, seals) == 1
            and EVP_CipherUpdate(k.cipher, NULL, &size, header, <int>clear) == 1)


cdef bint evp_seal(SealKey *k, const uint8_t *header, uint32_t clear, const uint8_t *payload, uint8_t *out,
                   uint32_t end, uint32_t mask) noexcept nogil:
    """Seal and mask what lies from `clear` to `end`, and put the tag behind it, without a mask."""
    cdef uint32_t at = clear
    cdef uint32_t part
    cdef int size
    if not seal_begin(k, header, clear, True):
        return False
    while at < end:
        part = min(end - at, <uint32_t>SEAL_CHUNK)
        if EVP_CipherUpdate(k.cipher, out + at, &size, payload + at, <int>part) != 1:
            return False
        if mask != 0:
            unmask(out + at, out + at, part, mask)
        at += part
    return (EVP_CipherFinal_ex(k.cipher, out + end, &size) == 1
            and EVP_CIPHER_CTX_ctrl(k.cipher, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG, out + end) == 1)


cdef bint aead_seal(SealKey *k, const uint8_t *header, uint32_t clear, const uint8_t *payload, uint8_t *out,
                    uint32_t n, uint32_t mask) noexcept nogil:
    """Seal a payload of `n` bytes behind this header of `clear` bytes, a multiple of a mask's, and mask both, into
    `out`: the payload itself, or memory apart from it. Of the payload the header's place and the last SEAL_TAG bytes
    are room. False when OpenSSL failed."""
    cdef uint32_t end = n - SEAL_TAG
    cdef uint8_t nonce[NONCE_BYTES]
    if k.own:
        seal_nonce(k, header, clear, nonce)
        gcm_seal(&k.gcm, nonce, header, clear, payload + clear, out + clear, end - clear, mask, out + end)
    elif not evp_seal(k, header, clear, payload, out, end, mask):
        return False
    unmask(out, header, clear, mask)
    unmask(out + end, out + end, SEAL_TAG, rotate_mask(mask, end))
    return True


cdef bint evp_open(SealKey *k, const uint8_t *header, uint32_t clear, uint8_t *payload, uint32_t end, uint32_t mask,
                   uint8_t *tag) noexcept nogil:
    """Take the mask off what lies from `clear` to `end`, and open it if this is its tag."""
    cdef uint32_t at = clear
    cdef uint32_t part
    cdef int size
    if (not seal_begin(k, header, clear, False)
            or EVP_CIPHER_CTX_ctrl(k.cipher, EVP_CTRL_AEAD_SET_TAG, SEAL_TAG, tag) != 1):
        return False
    while at < end:
        part = min(end - at, <uint32_t>SEAL_CHUNK)
        if mask != 0:
            unmask(payload + at, payload + at, part, mask)
        if EVP_CipherUpdate(k.cipher, payload + at, &size, payload + at, <int>part) != 1:
            return False
        at += part
    return EVP_CipherFinal_ex(k.cipher, payload + end, &size) == 1


cdef bint aead_open(SealKey *k, const uint8_t *header, uint32_t clear, uint8_t *payload, uint32_t n,
                    uint32_t mask) noexcept nogil:
    """Take the mask off a payload that has room for header and tag, and open it where it lies; `header` are its first
    `clear` bytes without the mask. False: it is not authentic, and what lies there is worth nothing."""
    cdef uint32_t end = n - SEAL_TAG
    cdef uint8_t nonce[NONCE_BYTES]
    cdef uint8_t tag[SEAL_TAG]
    unmask(tag, payload + end, SEAL_TAG, rotate_mask(mask, end))
    if not k.own:
        return evp_open(k, header, clear, payload, end, mask, tag)
    seal_nonce(k, header, clear, nonce)
    return gcm_open(&k.gcm, nonce, header, clear, payload + clear, end - clear, mask, tag)
