# TLS contexts, made from files by Python. A connection counts its context, so a new one drops nobody.

import ipaddress

cdef const char *TLS13_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
cdef const char *TLS13_SUITES_WITHOUT_AES = (
    b"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384")
cdef const char *TLS12_CIPHERS = b"ECDHE+AES128+AESGCM:ECDHE+AESGCM:ECDHE+CHACHA20"
cdef const char *TLS12_CIPHERS_WITHOUT_AES = b"ECDHE+CHACHA20:ECDHE+AES128+AESGCM:ECDHE+AESGCM"
cdef const char *GROUPS = b"X25519:P-256:P-384:P-521"
# OpenSSL 3.5's words: a client sends its half for both of the first two.
cdef const char *GROUPS_WITH_ML_KEM = b"*X25519MLKEM768:*X25519:P-256:P-384:P-521"
cdef const char *ALPN = b"\x08http/1.1"


cdef int no_password(char *buffer, int size, int writing, void *data) noexcept nogil:
    """For an encrypted key. Without this OpenSSL would ask the terminal."""
    return 0


cdef class TlsContext:
    """See _fastpath.pyi."""
    cdef void *context
    cdef bint client
    cdef bytes name                 # for SNI; None: it is an address

    def __init__(self):
        raise TypeError("made by TlsContext.server() and TlsContext.connecting()")

    def __dealloc__(self):
        if self.context != NULL:
            SSL_CTX_free(self.context)

    @staticmethod
    def server(*certificates, names=None, bint ml_kem=False):
        cdef TlsContext self = context_make(False, ml_kem)
        if not certificates:
            raise ValueError("a server needs a certificate")
        for chain, key in certificates:
            if (SSL_CTX_use_certificate_chain_file(self.context, os.fsencode(chain)) != 1
                    or SSL_CTX_use_PrivateKey_file(self.context, os.fsencode(key), SSL_FILETYPE_PEM) != 1
                    or SSL_CTX_check_private_key(self.context) != 1):
                raise ValueError(openssl_words())
        if names:
            context_name(self, names)
        return self

    @staticmethod
    def connecting(str name not None, *, ca_file=None, bint insecure=False, tuple pins not None=(),
                   bint ml_kem=False):
        cdef TlsContext self
        cdef void *param
        for pin in pins:
            if len(pin) != PIN_BYTES:
                raise ValueError(f"a pin has {PIN_BYTES} bytes, not {len(pin)}")
        self = context_make(True, ml_kem)
        if pins:
            context_pin(self, pins)
        param = SSL_CTX_get0_param(self.context)
        X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
        try:
            address = str(ipaddress.ip_address(name)).encode()
        except ValueError:
            self.name = name.encode("idna")
            set_ok(X509_VERIFY_PARAM_set1_host(param, self.name, len(self.name)))
        else:
            set_ok(X509_VERIFY_PARAM_set1_ip_asc(param, address))
        if ca_file is not None:
            set_ok(SSL_CTX_load_verify_file(self.context, os.fsencode(ca_file)))
        else:
            set_ok(SSL_CTX_set_default_verify_paths(self.context))
        if not insecure and (not pins or ca_file is not None):
            SSL_CTX_set_verify(self.context, SSL_VERIFY_PEER, NULL)
        set_ok(SSL_CTX_set_alpn_protos(self.context, <const uint8_t *>ALPN, 9) == 0)
        return self


cdef Additions *context_add(TlsContext self) except NULL:
    """A context's Additions, made."""
    cdef Additions *added = <Additions *>calloc(1, sizeof(Additions))
    if added == NULL:
        raise MemoryError
    if SSL_CTX_set_ex_data(self.context, additions_index, added) != 1:
        free(added)
        raise MemoryError
    return added


cdef context_pin(TlsContext self, tuple pins):
    """Have the peer's key be one of these."""
    cdef Additions *added = context_add(self)
    cdef bytes digests = b"".join(pins)
    added.pins = <uint8_t *>malloc(<size_t>len(digests))
    if added.pins == NULL:
        raise MemoryError
    memcpy(added.pins, <const char *>digests, <size_t>len(digests))
    added.pin_count = <uint32_t>len(pins)


cdef context_name(TlsContext self, dict names):
    """Let other contexts stand in for this one, each for clients that ask for its name."""
    cdef Additions *added = context_add(self)
    cdef TlsContext other
    cdef NamedContext *named
    added.names = <NamedContext *>calloc(<size_t>len(names), sizeof(NamedContext))
    if added.names == NULL:
        raise MemoryError
    for name, context in names.items():
        other = context
        named = &added.names[added.name_count]
        named.name = strdup(name.encode("ascii"))
        if named.name == NULL:
            raise MemoryError
        SSL_CTX_up_ref(other.context)
        named.context = other.context
        added.name_count += 1
    SSL_CTX_ctrl(self.context, SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG, 0, added)
    SSL_CTX_callback_ctrl(self.context, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, <void *>on_server_name)


cdef void additions_free(void *context, void *data, void *extra, int index, long number, void *pointer) noexcept nogil:
    """The SSL_CTX goes: by its last connection, whatever thread that is, or by Python."""
    cdef Additions *added = <Additions *>data
    cdef uint32_t i
    if added == NULL:
        return
    for i in range(added.name_count):
        free(added.names[i].name)
        SSL_CTX_free(added.names[i].context)
    free(added.names)
    free(added.pins)
    free(added)


cdef int on_server_name(void *ssl, int *alert, void *data) noexcept nogil:
    """In each handshake of a server that has several contexts: go on with the one for the name that is asked for. One
    that nobody has is no error (RFC 6066 lets us go on), for a client by an address has no name to say."""
    cdef const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_HOST_NAME)
    cdef const Additions *added = <const Additions *>data
    cdef uint32_t i
    if name == NULL:
        return SSL_TLSEXT_ERR_OK
    for i in range(added.name_count):
        if strcasecmp(name, added.names[i].name) == 0:
            SSL_set_SSL_CTX(ssl, added.names[i].context)
            return SSL_TLSEXT_ERR_OK
    name = strchr(name, c".")
    if name == NULL:
        return SSL_TLSEXT_ERR_OK
    for i in range(added.name_count):
        if added.names[i].name[0] == c"*" and strcasecmp(name, added.names[i].name + 1) == 0:
            SSL_set_SSL_CTX(ssl, added.names[i].context)
            return SSL_TLSEXT_ERR_OK
    return SSL_TLSEXT_ERR_OK


cdef TlsContext context_make(bint client, bint ml_kem):
    """A context of one side with all that no further setting changes."""
    global bio_method, additions_index
    cdef TlsContext self = TlsContext.__new__(TlsContext)
    cdef bint aes = has_aes()
    libssl_load()
    ERR_clear_error()
    if bio_method == NULL:
        bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, b"candy")
        if bio_method == NULL:
            raise MemoryError
        BIO_meth_set_read(bio_method, <void *>bio_read)
        BIO_meth_set_write(bio_method, <void *>bio_write)
        BIO_meth_set_ctrl(bio_method, <void *>bio_ctrl)
    if additions_index < 0:
        additions_index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, NULL, NULL, <void *>additions_free)
        if additions_index < 0:
            raise MemoryError
    self.client = client
    self.context = SSL_CTX_new(TLS_client_method() if client else TLS_server_method())
    if self.context == NULL:
        raise ValueError(openssl_words())
    SSL_CTX_ctrl(self.context, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, NULL)
    SSL_CTX_ctrl(self.context, SSL_CTRL_SET_SESS_CACHE_MODE, 0, NULL)
    SSL_CTX_set_options(self.context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET
                        | SSL_OP_CIPHER_SERVER_PREFERENCE)
    SSL_CTX_set_default_passwd_cb(self.context, <void *>no_password)
    SSL_CTX_set_keylog_callback(self.context, <void *>tls_note_secret)
    set_ok(SSL_CTX_set_num_tickets(self.context, 0))
    set_ok(SSL_CTX_ctrl(self.context, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, NULL) == 1)
    set_ok(SSL_CTX_set_ciphersuites(self.context, TLS13_SUITES if aes else TLS13_SUITES_WITHOUT_AES))
    set_ok(SSL_CTX_set_cipher_list(self.context, TLS12_CIPHERS if aes else TLS12_CIPHERS_WITHOUT_AES))
    if SSL_CTX_ctrl(self.context, SSL_CTRL_SET_GROUPS_LIST, 0, <void *>(GROUPS_WITH_ML_KEM if ml_kem else GROUPS)) != 1:
        ERR_clear_error()
        raise OSError(f"{OpenSSL_version(0).decode()} has no X25519MLKEM768: it takes OpenSSL 3.5 or later")
    return self


cdef set_ok(bint done):
    if not done:
        raise ValueError(openssl_words())


cdef str openssl_words():
    """What OpenSSL says was wrong. Empties its queue of errors, which Python's ssl reads as well."""
    cdef unsigned long error = ERR_get_error()
    cdef const char *words = ERR_reason_error_string(error)
    ERR_clear_error()
    return words.decode() if words != NULL else f"OpenSSL error {error:#x}"


def openssl_version():
    libssl_load()
    return OpenSSL_version(0).decode()
