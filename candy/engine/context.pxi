# TLS contexts, made from files by Python. A connection counts its context, so a new one drops nobody.

import ipaddress

cdef enum:
    PIN_BYTES = 32                  # SHA-256

cdef const char *TLS13_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
cdef const char *TLS13_SUITES_WITHOUT_AES = (
    b"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384")
cdef const char *TLS12_CIPHERS = b"ECDHE+AES128+AESGCM:ECDHE+AESGCM:ECDHE+CHACHA20"
cdef const char *TLS12_CIPHERS_WITHOUT_AES = b"ECDHE+CHACHA20:ECDHE+AES128+AESGCM:ECDHE+AESGCM"
cdef const char *GROUPS = b"X25519:P-256:P-384:P-521"
cdef const char *ALPN = b"\x08http/1.1"


cdef int no_password(char *buffer, int size, int writing, void *data) noexcept nogil:
    """For an encrypted key. Without this OpenSSL would ask the terminal."""
    return 0


cdef class TlsContext:
    """See _fastpath.pyi."""
    cdef void *context
    cdef bint client
    cdef bytes name                 # for SNI; None: it is an address
    cdef bytes pin

    def __init__(self):
        raise TypeError("made by TlsContext.server() and TlsContext.connecting()")

    def __dealloc__(self):
        if self.context != NULL:
            SSL_CTX_free(self.context)

    @staticmethod
    def server(*certificates):
        cdef TlsContext self = context_make(False)
        if not certificates:
            raise ValueError("a server needs a certificate")
        for chain, key in certificates:
            if (SSL_CTX_use_certificate_chain_file(self.context, os.fsencode(chain)) != 1
                    or SSL_CTX_use_PrivateKey_file(self.context, os.fsencode(key), SSL_FILETYPE_PEM) != 1
                    or SSL_CTX_check_private_key(self.context) != 1):
                raise ValueError(openssl_words())
        return self

    @staticmethod
    def connecting(str name not None, *, ca_file=None, bint insecure=False, bytes pin=None):
        cdef TlsContext self
        cdef void *param
        if pin is not None and len(pin) != PIN_BYTES:
            raise ValueError(f"a pin has {PIN_BYTES} bytes, not {len(pin)}")
        self = context_make(True)
        self.pin = pin
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
        if not insecure and pin is None:
            SSL_CTX_set_verify(self.context, SSL_VERIFY_PEER, NULL)
        set_ok(SSL_CTX_set_alpn_protos(self.context, <const uint8_t *>ALPN, 9) == 0)
        return self


cdef TlsContext context_make(bint client):
    """A context of one side with all that no setting changes."""
    global bio_method
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
    self.client = client
    self.context = SSL_CTX_new(TLS_client_method() if client else TLS_server_method())
    if self.context == NULL:
        raise ValueError(openssl_words())
    SSL_CTX_ctrl(self.context, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, NULL)
    # A read comes back behind each record that carries no data, so that those can be counted.
    SSL_CTX_ctrl(self.context, SSL_CTRL_CLEAR_MODE, SSL_MODE_AUTO_RETRY, NULL)
    SSL_CTX_ctrl(self.context, SSL_CTRL_SET_SESS_CACHE_MODE, 0, NULL)
    SSL_CTX_set_options(self.context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET
                        | SSL_OP_CIPHER_SERVER_PREFERENCE)
    SSL_CTX_set_default_passwd_cb(self.context, <void *>no_password)
    set_ok(SSL_CTX_set_num_tickets(self.context, 0))
    set_ok(SSL_CTX_ctrl(self.context, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION, NULL) == 1)
    set_ok(SSL_CTX_set_ciphersuites(self.context, TLS13_SUITES if aes else TLS13_SUITES_WITHOUT_AES))
    set_ok(SSL_CTX_set_cipher_list(self.context, TLS12_CIPHERS if aes else TLS12_CIPHERS_WITHOUT_AES))
    set_ok(SSL_CTX_ctrl(self.context, SSL_CTRL_SET_GROUPS_LIST, 0, <void *>GROUPS) == 1)
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
