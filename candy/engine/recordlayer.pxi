# The record layer of TLS 1.3 (RFC 8446, 5), and of 1.2 with the suites that we offer (RFC 5246, 5288, 7905). Pure: keys
# and bytes, no socket and no clock.
#
#     | type 1 | version 2 | length 2 | nonce 8, TLS 1.2 with GCM | ciphertext | tag 16 |
#
# Of TLS 1.3 the type is APPLICATION_DATA; what the record really is comes behind its content, within the ciphertext,
# and zeros may follow. OpenSSL makes the handshake, and the cipher is its EVP; its own record layer would copy each
# byte twice on the way in and twice on the way out.
#
# What fails here is told as an alert: the number that the peer gets.

cdef enum:                          # of a record
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23

cdef enum:                          # of an alert
    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    ILLEGAL_PARAMETER = 47
    INTERNAL_ERROR = 80
    USER_CANCELED = 90
    ALERT_WARNING = 1               # and its levels
    ALERT_FATAL = 2

cdef enum:                          # of a message of handshakes
    HELLO_REQUEST = 0
    NEW_SESSION_TICKET = 4
    KEY_UPDATE = 24

cdef enum:
    RECORD_HEADER = 5
    RECORD_TAG = 16
    RECORD_EXPANSION = 256          # "the length MUST NOT exceed 2^14 + 256 bytes"
    NONCE_BYTES = 12
    SECRET_MAX = 48
    TICKET_MAX = 131072             # of a NewSessionTicket, which is passed over: two vectors of 2^16
    # "up to 2^24.5 full-size records may be encrypted on a given connection": new keys come before. Of a direction.
    RECORDS_MOST = 1 << 24

cdef enum MessageResult:
    NOTHING = 0                     # below: an alert, negative
    PEER_UPDATED = 1                # the peer's next record has new keys
    PEER_UPDATED_ASKING = 2         # and it asks for new ones of ours


cdef bint suite_choose(Suite *u, int version, int cipher) noexcept nogil:
    """What a version and a cipher, of OpenSSL's NIDs, come to; False: they are none of those that we offer."""
    u.tls12 = version == TLS1_2_VERSION
    u.explicit = 8 if u.tls12 and cipher != NID_CHACHA20_POLY1305 else 0
    u.fragment_most = RECORD_MAX
    u.key_bytes = 16 if cipher == NID_AES_128_GCM else 32
    u.secret_bytes = 48 if cipher == NID_AES_256_GCM else 32
    u.digest = EVP_sha384() if cipher == NID_AES_256_GCM else EVP_sha256()
    if cipher == NID_AES_128_GCM:
        u.cipher = EVP_aes_128_gcm()
    elif cipher == NID_AES_256_GCM:
        u.cipher = EVP_aes_256_gcm()
    elif cipher == NID_CHACHA20_POLY1305:
        u.cipher = EVP_chacha20_poly1305()
    else:
        return False
    return u.tls12 or version == TLS1_3_VERSION


# Keys.

cdef bint keys_set(const Suite *u, Keys *k, const uint8_t *key, bint seals) noexcept nogil:
    """Have a direction go on with this key."""
    cdef bint first = k.cipher == NULL
    if first:
        k.cipher = EVP_CIPHER_CTX_new()
    return k.cipher != NULL and EVP_CipherInit_ex(k.cipher, u.cipher if first else NULL, NULL, key, NULL, seals) == 1


cdef void keys_free(Keys *k) noexcept nogil:
    """Wipe a direction's keys."""
    EVP_CIPHER_CTX_free(k.cipher)
    OPENSSL_cleanse(k, sizeof(Keys))


cdef bint expand_label(const Suite *u, const uint8_t *secret, const char *label, uint8_t *out,
                       uint32_t size) noexcept nogil:
    """HKDF-Expand-Label without a context, of no more than one block."""
    cdef uint8_t info[32]
    cdef uint8_t block[64]
    cdef uint32_t n = <uint32_t>strlen(label)
    cdef unsigned int got = 0
    store_be16(info, <uint16_t>size)
    info[2] = <uint8_t>(6 + n)
    memcpy(info + 3, b"tls13 ", 6)
    memcpy(info + 9, label, n)
    info[9 + n] = 0                 # length of the context
    info[10 + n] = 1                # number of the block
    if HMAC(u.digest, secret, <int>u.secret_bytes, info, 11 + n, block, &got) == NULL:
        return False
    memcpy(out, block, size)
    OPENSSL_cleanse(block, sizeof(block))
    return True


cdef bint keys_follow(const Suite *u, Keys *k, bint seals) noexcept nogil:
    """TLS 1.3: key and nonce that follow from the direction's secret."""
    cdef uint8_t key[32]
    cdef bint done = (expand_label(u, k.secret, b"key", key, u.key_bytes)
                      and expand_label(u, k.secret, b"iv", k.nonce, NONCE_BYTES) and keys_set(u, k, key, seals))
    OPENSSL_cleanse(key, sizeof(key))
    k.number = 0
    return done


cdef bint keys_renew(const Suite *u, Keys *k, bint seals) noexcept nogil:
    """TLS 1.3: the keys behind a KeyUpdate."""
    cdef uint8_t secret[SECRET_MAX]
    cdef bint done = expand_label(u, k.secret, b"traffic upd", secret, u.secret_bytes)
    memcpy(k.secret, secret, u.secret_bytes)
    OPENSSL_cleanse(secret, sizeof(secret))
    return done and keys_follow(u, k, seals)


cdef bint expand_master(const Suite *u, const uint8_t *master, const uint8_t *seed, uint32_t n, uint8_t *out,
                        uint32_t size) noexcept nogil:
    """PRF of TLS 1.2 (RFC 5246, 5), of a seed of at most 96 bytes that has the label."""
    cdef uint8_t step[SECRET_MAX + 96]      # A(i), and the seed
    cdef uint8_t block[64]
    cdef unsigned int got = 0
    cdef uint32_t part
    cdef bint done = HMAC(u.digest, master, 48, seed, n, step, &got) != NULL
    memcpy(step + u.secret_bytes, seed, n)
    while done and size != 0:
        done = HMAC(u.digest, master, 48, step, u.secret_bytes + n, block, &got) != NULL
        part = min(size, u.secret_bytes)
        memcpy(out, block, part)
        out += part
        size -= part
        done = done and HMAC(u.digest, master, 48, step, u.secret_bytes, block, &got) != NULL
        memcpy(step, block, u.secret_bytes)
    OPENSSL_cleanse(step, sizeof(step))
    OPENSSL_cleanse(block, sizeof(block))
    return done


cdef bint keys_of_master(const Suite *u, Keys *client, Keys *server, bint client_seals, const uint8_t *master,
                         const uint8_t *randoms) noexcept nogil:
    """TLS 1.2: both directions' keys behind the handshake, in which each has sealed one record. `randoms` are the
    server's and the client's."""
    cdef uint8_t seed[13 + 64]
    cdef uint8_t keys[2 * (32 + NONCE_BYTES)]
    cdef uint32_t salt = NONCE_BYTES - u.explicit
    cdef uint8_t *salts = keys + 2 * u.key_bytes
    cdef bint done
    memcpy(seed, b"key expansion", 13)
    memcpy(seed + 13, randoms, 64)
    done = (expand_master(u, master, seed, sizeof(seed), keys, 2 * (u.key_bytes + salt))
            and keys_set(u, client, keys, client_seals) and keys_set(u, server, keys + u.key_bytes, not client_seals))
    memset(client.nonce, 0, NONCE_BYTES)
    memset(server.nonce, 0, NONCE_BYTES)
    memcpy(client.nonce, salts, salt)
    memcpy(server.nonce, salts + salt, salt)
    OPENSSL_cleanse(keys, sizeof(keys))
    client.number = server.number = 1
    return done


# Records.

cdef inline uint32_t record_bytes(const uint8_t *p) noexcept nogil:
    """Size of a TLS record, from its header."""
    return RECORD_HEADER + load_be16(p + 3)


cdef inline int layer_whole(const uint8_t *p, uint32_t have) noexcept nogil:
    """Size of the record that begins here; 0 when it is not whole."""
    if have < RECORD_HEADER:
        return 0
    if record_bytes(p) > RECORD_HEADER + RECORD_MAX + RECORD_EXPANSION:
        return -RECORD_OVERFLOW
    return <int>record_bytes(p) if have >= record_bytes(p) else 0


cdef inline bint layer_begin(const Suite *u, Keys *k, const uint8_t *p, uint32_t n, bint seals) noexcept nogil:
    """Begin with the record that has this header, and `n` bytes of content: its nonce, and what is authenticated with
    it. Of TLS 1.2 with GCM half of the nonce stands in the record."""
    cdef uint8_t nonce[NONCE_BYTES]
    cdef uint8_t beside[13]
    cdef int size
    memcpy(nonce, k.nonce, NONCE_BYTES)
    if u.explicit != 0:
        memcpy(nonce + 4, p + RECORD_HEADER, 8)
    else:
        store_be64(nonce + 4, load_be64(nonce + 4) ^ k.number)
    if EVP_CipherInit_ex(k.cipher, NULL, NULL, NULL, nonce, seals) != 1:
        return False
    if not u.tls12:
        return EVP_CipherUpdate(k.cipher, NULL, &size, p, RECORD_HEADER) == 1
    store_be64(beside, k.number)
    memcpy(beside + 8, p, 3)
    store_be16(beside + 11, <uint16_t>n)
    return EVP_CipherUpdate(k.cipher, NULL, &size, beside, sizeof(beside)) == 1


cdef inline uint32_t layer_seal(const Suite *u, Keys *k, uint8_t kind, const uint8_t *data, uint32_t n,
                                uint8_t *out) noexcept nogil:
    """Seal at most u.fragment_most bytes as one record; returns its size, 0 when OpenSSL failed."""
    cdef uint8_t *body = out + RECORD_HEADER + u.explicit
    cdef uint32_t length = n + (not u.tls12)
    cdef int size
    out[0] = kind if u.tls12 else APPLICATION_DATA
    store_be16(out + 1, TLS1_2_VERSION)
    store_be16(out + 3, <uint16_t>(u.explicit + length + RECORD_TAG))
    if u.explicit != 0:
        store_be64(out + RECORD_HEADER, k.number)
    if (not layer_begin(u, k, out, n, True) or EVP_CipherUpdate(k.cipher, body, &size, data, <int>n) != 1
            or (not u.tls12 and EVP_CipherUpdate(k.cipher, body + n, &size, &kind, 1) != 1)
            or EVP_CipherFinal_ex(k.cipher, body + length, &size) != 1
            or EVP_CIPHER_CTX_ctrl(k.cipher, EVP_CTRL_AEAD_GET_TAG, RECORD_TAG, body + length) != 1):
        return 0
    k.number += 1
    return RECORD_HEADER + u.explicit + length + RECORD_TAG


cdef inline int layer_open(const Suite *u, Keys *k, const uint8_t *record, uint8_t *out, uint8_t *kind) noexcept nogil:
    """Open a whole record into `out`, which has room for all of it; returns the bytes of its content. What is written
    there is worth nothing if this fails."""
    cdef const uint8_t *body = record + RECORD_HEADER + u.explicit
    cdef uint32_t length = load_be16(record + 3)
    cdef uint32_t n
    cdef int size
    if length < u.explicit + RECORD_TAG:
        return -BAD_RECORD_MAC
    n = length - u.explicit - RECORD_TAG
    kind[0] = record[0]
    if not u.tls12 and kind[0] != APPLICATION_DATA:
        return -UNEXPECTED_MESSAGE
    if (not layer_begin(u, k, record, n, False) or EVP_CipherUpdate(k.cipher, out, &size, body, <int>n) != 1
            or EVP_CIPHER_CTX_ctrl(k.cipher, EVP_CTRL_AEAD_SET_TAG, RECORD_TAG, <void *>(body + n)) != 1
            or EVP_CipherFinal_ex(k.cipher, out + n, &size) != 1):
        return -BAD_RECORD_MAC
    k.number += 1
    if n > <uint32_t>RECORD_MAX + (not u.tls12):
        return -RECORD_OVERFLOW
    if u.tls12:
        return <int>n
    while n != 0 and out[n - 1] == 0:
        n -= 1
    if n == 0:
        return -UNEXPECTED_MESSAGE
    kind[0] = out[n - 1]
    return <int>(n - 1)


cdef int layer_messages(const Suite *u, Messages *m, bint client, const uint8_t *data, uint32_t n) noexcept nogil:
    """Messages of handshakes behind the handshake, whole ones and pieces: tickets, which are passed over, and
    KeyUpdates. A client of TLS 1.2 need not follow a HelloRequest; all else would be another handshake."""
    cdef uint32_t part, length
    if n == 0:
        return -UNEXPECTED_MESSAGE
    while n != 0:
        if m.skip != 0:
            part = min(n, m.skip)
            m.skip -= part
            data += part
            n -= part
            continue
        m.head[m.have] = data[0]
        m.have += 1
        data += 1
        n -= 1
        if m.have < 4:
            continue
        length = load_be32(m.head) & 0xFFFFFF
        if m.head[0] == KEY_UPDATE and not u.tls12 and length == 1:
            if m.have < 5:
                continue
            m.have = 0
            if n != 0:
                return -UNEXPECTED_MESSAGE      # what follows would have had to have the new keys
            return -ILLEGAL_PARAMETER if m.head[4] > 1 else PEER_UPDATED_ASKING if m.head[4] else PEER_UPDATED
        if m.head[0] == NEW_SESSION_TICKET and not u.tls12 and client and length <= TICKET_MAX:
            m.skip = length
        elif m.head[0] != HELLO_REQUEST or not u.tls12 or not client or length != 0:
            return -HANDSHAKE_FAILURE if u.tls12 else -UNEXPECTED_MESSAGE
        m.have = 0
    return NOTHING
