# OpenSSL: the library that Python's ssl has loaded, its functions, its constants and the versions that will do. No
# other part knows where it comes from.
#
# Python's extension module _ssl is linked to libssl and libcrypto, so a look-up by its handle finds theirs: the
# machine's updates reach us as they reach Python, and nothing has to be there to build. A second libssl can't be loaded
# beside the first, for it would be bound to the first one's libcrypto. A Python that has OpenSSL within itself and
# shows none of its symbols leaves room for the system's.
#
# Declared as in OpenSSL 3.0, whose functions all later 3.x have; but for OSSL_PARAM every structure is opaque.

cdef enum:
    SSL_LEAST_MAJOR = 3
    SSL_FILETYPE_PEM = 1
    SSL_VERIFY_PEER = 1
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_WANT_WRITE = 3
    SSL_MODE_RELEASE_BUFFERS = 0x10
    SSL_CTRL_MODE = 33
    SSL_CTRL_SET_SESS_CACHE_MODE = 44       # 0 is off
    SSL_CTRL_SET_TLSEXT_SERVERNAME_CB = 53
    SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG = 54
    SSL_CTRL_SET_TLSEXT_HOSTNAME = 55
    SSL_CTRL_SET_GROUPS_LIST = 92
    SSL_CTRL_SET_MIN_PROTO_VERSION = 123
    TLS1_2_VERSION = 0x0303
    TLS1_3_VERSION = 0x0304
    SSL_OP_NO_TICKET = 1 << 14
    SSL_OP_NO_COMPRESSION = 1 << 17
    SSL_OP_CIPHER_SERVER_PREFERENCE = 1 << 22
    SSL_OP_NO_RENEGOTIATION = 1 << 30
    SSL_TLSEXT_ERR_OK = 0
    TLSEXT_NAMETYPE_HOST_NAME = 0
    CRYPTO_EX_INDEX_SSL_CTX = 1
    BIO_TYPE_SOURCE_SINK = 0x400
    BIO_FLAGS_READ = 1
    BIO_FLAGS_WRITE = 2
    BIO_FLAGS_SHOULD_RETRY = 8
    BIO_CTRL_FLUSH = 11
    ERR_CERTIFICATE_VERIFY_FAILED = 20 << 23 | 134      # of ERR_LIB_SSL
    X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS = 4
    NID_AES_128_GCM = 895
    NID_AES_256_GCM = 901
    NID_CHACHA20_POLY1305 = 1018
    NID_X25519 = 1034
    NID_ED25519 = 1087
    EVP_CTRL_AEAD_GET_TAG = 0x10
    EVP_CTRL_AEAD_SET_TAG = 0x11
    EVP_PKEY_KEYPAIR = 0x87
    OSSL_PARAM_OCTET_STRING = 5

cdef struct OsslParam:                      # OSSL_PARAM
    const char *name
    unsigned int kind
    void *data
    size_t size
    size_t returned

cdef:
    unsigned long (*OpenSSL_version_num)() noexcept nogil
    const char *(*OpenSSL_version)(int what) noexcept nogil
    unsigned long (*ERR_get_error)() noexcept nogil
    void (*ERR_clear_error)() noexcept nogil
    const char *(*ERR_reason_error_string)(unsigned long error) noexcept nogil
    int (*BIO_get_new_index)() noexcept nogil
    void *(*BIO_meth_new)(int kind, const char *name) noexcept nogil
    int (*BIO_meth_set_read)(void *method, void *read) noexcept nogil
    int (*BIO_meth_set_write)(void *method, void *write) noexcept nogil
    int (*BIO_meth_set_ctrl)(void *method, void *ctrl) noexcept nogil
    void *(*BIO_new)(const void *method) noexcept nogil
    void (*BIO_set_init)(void *bio, int init) noexcept nogil
    void (*BIO_set_data)(void *bio, void *data) noexcept nogil
    void *(*BIO_get_data)(void *bio) noexcept nogil
    void (*BIO_set_flags)(void *bio, int flags) noexcept nogil
    void (*BIO_clear_flags)(void *bio, int flags) noexcept nogil
    const void *(*TLS_server_method)() noexcept nogil
    const void *(*TLS_client_method)() noexcept nogil
    void *(*SSL_CTX_new)(const void *method) noexcept nogil
    int (*SSL_CTX_up_ref)(void *context) noexcept nogil
    void (*SSL_CTX_free)(void *context) noexcept nogil
    long (*SSL_CTX_ctrl)(void *context, int command, long number, void *data) noexcept nogil
    uint64_t (*SSL_CTX_set_options)(void *context, uint64_t options) noexcept nogil
    int (*SSL_CTX_set_cipher_list)(void *context, const char *ciphers) noexcept nogil
    int (*SSL_CTX_set_ciphersuites)(void *context, const char *suites) noexcept nogil
    int (*SSL_CTX_set_num_tickets)(void *context, size_t n) noexcept nogil
    int (*SSL_CTX_set_alpn_protos)(void *context, const uint8_t *names, unsigned int n) noexcept nogil
    void (*SSL_CTX_set_default_passwd_cb)(void *context, void *ask) noexcept nogil
    int (*SSL_CTX_use_certificate_chain_file)(void *context, const char *file) noexcept nogil
    int (*SSL_CTX_use_PrivateKey_file)(void *context, const char *file, int kind) noexcept nogil
    int (*SSL_CTX_check_private_key)(const void *context) noexcept nogil
    int (*SSL_CTX_load_verify_file)(void *context, const char *file) noexcept nogil
    int (*SSL_CTX_set_default_verify_paths)(void *context) noexcept nogil
    void (*SSL_CTX_set_verify)(void *context, int mode, void *callback) noexcept nogil
    void (*SSL_CTX_set_keylog_callback)(void *context, void *callback) noexcept nogil
    void *(*SSL_CTX_get0_param)(void *context) noexcept nogil
    long (*SSL_CTX_callback_ctrl)(void *context, int command, void *callback) noexcept nogil
    int (*SSL_CTX_set_ex_data)(void *context, int index, void *data) noexcept nogil
    void *(*SSL_CTX_get_ex_data)(const void *context, int index) noexcept nogil
    int (*CRYPTO_get_ex_new_index)(int kind, long number, void *pointer, void *new, void *dup,
                                   void *free) noexcept nogil
    int (*X509_VERIFY_PARAM_set1_host)(void *param, const char *name, size_t n) noexcept nogil
    int (*X509_VERIFY_PARAM_set1_ip_asc)(void *param, const char *address) noexcept nogil
    void (*X509_VERIFY_PARAM_set_hostflags)(void *param, unsigned int flags) noexcept nogil
    const char *(*X509_verify_cert_error_string)(long code) noexcept nogil
    void *(*X509_get_X509_PUBKEY)(const void *certificate) noexcept nogil
    int (*i2d_X509_PUBKEY)(const void *key, uint8_t **out) noexcept nogil
    int (*i2d_X509)(const void *certificate, uint8_t **out) noexcept nogil
    void *(*OPENSSL_sk_value)(const void *stack, int i) noexcept nogil
    const void *(*EVP_sha256)() noexcept nogil
    const void *(*EVP_sha384)() noexcept nogil
    int (*EVP_Digest)(const void *data, size_t n, uint8_t *digest, unsigned int *size, const void *kind,
                      void *engine) noexcept nogil
    uint8_t *(*HMAC)(const void *kind, const void *key, int key_size, const uint8_t *data, size_t n, uint8_t *digest,
                     unsigned int *size) noexcept nogil
    const void *(*EVP_aes_128_gcm)() noexcept nogil
    const void *(*EVP_aes_256_gcm)() noexcept nogil
    const void *(*EVP_chacha20_poly1305)() noexcept nogil
    void *(*EVP_CIPHER_CTX_new)() noexcept nogil
    void (*EVP_CIPHER_CTX_free)(void *c) noexcept nogil
    int (*EVP_CipherInit_ex)(void *c, const void *kind, void *engine, const uint8_t *key, const uint8_t *iv,
                             int seals) noexcept nogil
    int (*EVP_CipherUpdate)(void *c, uint8_t *out, int *size, const uint8_t *data, int n) noexcept nogil
    int (*EVP_CipherFinal_ex)(void *c, uint8_t *out, int *size) noexcept nogil
    int (*EVP_CIPHER_CTX_ctrl)(void *c, int command, int n, void *data) noexcept nogil
    void *(*EVP_PKEY_new_raw_private_key)(int kind, void *engine, const uint8_t *key, size_t n) noexcept nogil
    void *(*EVP_PKEY_new_raw_public_key)(int kind, void *engine, const uint8_t *key, size_t n) noexcept nogil
    int (*EVP_PKEY_get_raw_public_key)(const void *key, uint8_t *out, size_t *n) noexcept nogil
    void (*EVP_PKEY_free)(void *key) noexcept nogil
    void *(*EVP_PKEY_CTX_new)(void *key, void *engine) noexcept nogil
    void *(*EVP_PKEY_CTX_new_from_name)(void *library, const char *name, const char *query) noexcept nogil
    void (*EVP_PKEY_CTX_free)(void *c) noexcept nogil
    int (*EVP_PKEY_fromdata_init)(void *c) noexcept nogil
    int (*EVP_PKEY_fromdata)(void *c, void **key, int selection, OsslParam *parts) noexcept nogil
    int (*EVP_PKEY_derive_init)(void *c) noexcept nogil
    int (*EVP_PKEY_derive_set_peer)(void *c, void *peer) noexcept nogil
    int (*EVP_PKEY_derive)(void *c, uint8_t *out, size_t *n) noexcept nogil
    void *(*EVP_MD_CTX_new)() noexcept nogil
    void (*EVP_MD_CTX_free)(void *c) noexcept nogil
    int (*EVP_DigestSignInit)(void *c, void **key_context, const void *kind, void *engine, void *key) noexcept nogil
    int (*EVP_DigestSign)(void *c, uint8_t *out, size_t *size, const uint8_t *data, size_t n) noexcept nogil
    int (*EVP_DigestVerifyInit)(void *c, void **key_context, const void *kind, void *engine, void *key) noexcept nogil
    int (*EVP_DigestVerify)(void *c, const uint8_t *signature, size_t size, const uint8_t *data,
                            size_t n) noexcept nogil
    void (*OPENSSL_cleanse)(void *p, size_t n) noexcept nogil
    void (*CRYPTO_free)(void *p, const char *file, int line) noexcept nogil
    void *(*SSL_new)(void *context) noexcept nogil
    void (*SSL_free)(void *ssl) noexcept nogil
    void (*SSL_set_bio)(void *ssl, void *reading, void *writing) noexcept nogil
    long (*SSL_ctrl)(void *ssl, int command, long number, void *data) noexcept nogil
    void (*SSL_set_accept_state)(void *ssl) noexcept nogil
    void (*SSL_set_connect_state)(void *ssl) noexcept nogil
    int (*SSL_do_handshake)(void *ssl) noexcept nogil
    int (*SSL_get_error)(const void *ssl, int result) noexcept nogil
    void *(*SSL_get_rbio)(const void *ssl) noexcept nogil
    int (*SSL_version)(const void *ssl) noexcept nogil
    const void *(*SSL_get_current_cipher)(const void *ssl) noexcept nogil
    int (*SSL_CIPHER_get_cipher_nid)(const void *cipher) noexcept nogil
    void *(*SSL_get_session)(const void *ssl) noexcept nogil
    size_t (*SSL_SESSION_get_master_key)(const void *session, uint8_t *out, size_t n) noexcept nogil
    uint8_t (*SSL_SESSION_get_max_fragment_length)(const void *session) noexcept nogil
    size_t (*SSL_get_client_random)(const void *ssl, uint8_t *out, size_t n) noexcept nogil
    size_t (*SSL_get_server_random)(const void *ssl, uint8_t *out, size_t n) noexcept nogil
    const char *(*SSL_alert_desc_string_long)(int alert) noexcept nogil
    long (*SSL_get_verify_result)(const void *ssl) noexcept nogil
    void *(*SSL_get_peer_cert_chain)(const void *ssl) noexcept nogil
    void *(*SSL_set_SSL_CTX)(void *ssl, void *context) noexcept nogil
    const char *(*SSL_get_servername)(const void *ssl, int kind) noexcept nogil

cdef bint libssl_loaded = False


cdef libssl_load():
    """Find everything above, once. Raises OSError when this machine has no OpenSSL that will do."""
    global libssl_loaded
    cdef void *handle
    if libssl_loaded:
        return
    handle = libssl_handle()
    libssl_find_all(handle)
    if OpenSSL_version_num() >> 28 < SSL_LEAST_MAJOR:
        raise OSError(f"{OpenSSL_version(0).decode()} is too old: candy needs OpenSSL {SSL_LEAST_MAJOR}.0 or later")
    libssl_loaded = True


cdef void *libssl_handle() except NULL:
    """Where symbols of libssl and libcrypto are found."""
    import _ssl
    cdef void *handle = NULL
    cdef bytes name
    if hasattr(_ssl, "__file__"):
        name = os.fsencode(_ssl.__file__)
        handle = dlopen(name, RTLD_NOW | RTLD_NOLOAD)
    else:
        handle = dlopen(NULL, RTLD_NOW)
    if handle == NULL or dlsym(handle, b"SSL_new") == NULL:
        handle = dlopen(b"libssl.so.3", RTLD_NOW)
    if handle == NULL:
        raise OSError("this Python shows no OpenSSL, and there is no libssl.so.3: install OpenSSL 3")
    return handle


cdef libssl_find(void *handle, const char *name, void **place):
    place[0] = dlsym(handle, name)
    if place[0] == NULL:
        raise OSError(f"the OpenSSL that Python has loaded lacks {name.decode()}: candy needs OpenSSL 3.0 or later")


cdef libssl_find_all(void *handle):
    libssl_find(handle, b"OpenSSL_version_num", <void **>&OpenSSL_version_num)
    libssl_find(handle, b"OpenSSL_version", <void **>&OpenSSL_version)
    libssl_find(handle, b"ERR_get_error", <void **>&ERR_get_error)
    libssl_find(handle, b"ERR_clear_error", <void **>&ERR_clear_error)
    libssl_find(handle, b"ERR_reason_error_string", <void **>&ERR_reason_error_string)
    libssl_find(handle, b"BIO_get_new_index", <void **>&BIO_get_new_index)
    libssl_find(handle, b"BIO_meth_new", <void **>&BIO_meth_new)
    libssl_find(handle, b"BIO_meth_set_read", <void **>&BIO_meth_set_read)
    libssl_find(handle, b"BIO_meth_set_write", <void **>&BIO_meth_set_write)
    libssl_find(handle, b"BIO_meth_set_ctrl", <void **>&BIO_meth_set_ctrl)
    libssl_find(handle, b"BIO_new", <void **>&BIO_new)
    libssl_find(handle, b"BIO_set_init", <void **>&BIO_set_init)
    libssl_find(handle, b"BIO_set_data", <void **>&BIO_set_data)
    libssl_find(handle, b"BIO_get_data", <void **>&BIO_get_data)
    libssl_find(handle, b"BIO_set_flags", <void **>&BIO_set_flags)
    libssl_find(handle, b"BIO_clear_flags", <void **>&BIO_clear_flags)
    libssl_find(handle, b"TLS_server_method", <void **>&TLS_server_method)
    libssl_find(handle, b"TLS_client_method", <void **>&TLS_client_method)
    libssl_find(handle, b"SSL_CTX_new", <void **>&SSL_CTX_new)
    libssl_find(handle, b"SSL_CTX_up_ref", <void **>&SSL_CTX_up_ref)
    libssl_find(handle, b"SSL_CTX_free", <void **>&SSL_CTX_free)
    libssl_find(handle, b"SSL_CTX_ctrl", <void **>&SSL_CTX_ctrl)
    libssl_find(handle, b"SSL_CTX_set_options", <void **>&SSL_CTX_set_options)
    libssl_find(handle, b"SSL_CTX_set_cipher_list", <void **>&SSL_CTX_set_cipher_list)
    libssl_find(handle, b"SSL_CTX_set_ciphersuites", <void **>&SSL_CTX_set_ciphersuites)
    libssl_find(handle, b"SSL_CTX_set_num_tickets", <void **>&SSL_CTX_set_num_tickets)
    libssl_find(handle, b"SSL_CTX_set_alpn_protos", <void **>&SSL_CTX_set_alpn_protos)
    libssl_find(handle, b"SSL_CTX_set_default_passwd_cb", <void **>&SSL_CTX_set_default_passwd_cb)
    libssl_find(handle, b"SSL_CTX_use_certificate_chain_file", <void **>&SSL_CTX_use_certificate_chain_file)
    libssl_find(handle, b"SSL_CTX_use_PrivateKey_file", <void **>&SSL_CTX_use_PrivateKey_file)
    libssl_find(handle, b"SSL_CTX_check_private_key", <void **>&SSL_CTX_check_private_key)
    libssl_find(handle, b"SSL_CTX_load_verify_file", <void **>&SSL_CTX_load_verify_file)
    libssl_find(handle, b"SSL_CTX_set_default_verify_paths", <void **>&SSL_CTX_set_default_verify_paths)
    libssl_find(handle, b"SSL_CTX_set_verify", <void **>&SSL_CTX_set_verify)
    libssl_find(handle, b"SSL_CTX_set_keylog_callback", <void **>&SSL_CTX_set_keylog_callback)
    libssl_find(handle, b"SSL_CTX_get0_param", <void **>&SSL_CTX_get0_param)
    libssl_find(handle, b"SSL_CTX_callback_ctrl", <void **>&SSL_CTX_callback_ctrl)
    libssl_find(handle, b"SSL_CTX_set_ex_data", <void **>&SSL_CTX_set_ex_data)
    libssl_find(handle, b"SSL_CTX_get_ex_data", <void **>&SSL_CTX_get_ex_data)
    libssl_find(handle, b"CRYPTO_get_ex_new_index", <void **>&CRYPTO_get_ex_new_index)
    libssl_find(handle, b"X509_VERIFY_PARAM_set1_host", <void **>&X509_VERIFY_PARAM_set1_host)
    libssl_find(handle, b"X509_VERIFY_PARAM_set1_ip_asc", <void **>&X509_VERIFY_PARAM_set1_ip_asc)
    libssl_find(handle, b"X509_VERIFY_PARAM_set_hostflags", <void **>&X509_VERIFY_PARAM_set_hostflags)
    libssl_find(handle, b"X509_verify_cert_error_string", <void **>&X509_verify_cert_error_string)
    libssl_find(handle, b"X509_get_X509_PUBKEY", <void **>&X509_get_X509_PUBKEY)
    libssl_find(handle, b"i2d_X509_PUBKEY", <void **>&i2d_X509_PUBKEY)
    libssl_find(handle, b"i2d_X509", <void **>&i2d_X509)
    libssl_find(handle, b"OPENSSL_sk_value", <void **>&OPENSSL_sk_value)
    libssl_find(handle, b"EVP_sha256", <void **>&EVP_sha256)
    libssl_find(handle, b"EVP_sha384", <void **>&EVP_sha384)
    libssl_find(handle, b"EVP_Digest", <void **>&EVP_Digest)
    libssl_find(handle, b"HMAC", <void **>&HMAC)
    libssl_find(handle, b"EVP_aes_128_gcm", <void **>&EVP_aes_128_gcm)
    libssl_find(handle, b"EVP_aes_256_gcm", <void **>&EVP_aes_256_gcm)
    libssl_find(handle, b"EVP_chacha20_poly1305", <void **>&EVP_chacha20_poly1305)
    libssl_find(handle, b"EVP_CIPHER_CTX_new", <void **>&EVP_CIPHER_CTX_new)
    libssl_find(handle, b"EVP_CIPHER_CTX_free", <void **>&EVP_CIPHER_CTX_free)
    libssl_find(handle, b"EVP_CipherInit_ex", <void **>&EVP_CipherInit_ex)
    libssl_find(handle, b"EVP_CipherUpdate", <void **>&EVP_CipherUpdate)
    libssl_find(handle, b"EVP_CipherFinal_ex", <void **>&EVP_CipherFinal_ex)
    libssl_find(handle, b"EVP_CIPHER_CTX_ctrl", <void **>&EVP_CIPHER_CTX_ctrl)
    libssl_find(handle, b"EVP_PKEY_new_raw_private_key", <void **>&EVP_PKEY_new_raw_private_key)
    libssl_find(handle, b"EVP_PKEY_new_raw_public_key", <void **>&EVP_PKEY_new_raw_public_key)
    libssl_find(handle, b"EVP_PKEY_get_raw_public_key", <void **>&EVP_PKEY_get_raw_public_key)
    libssl_find(handle, b"EVP_PKEY_free", <void **>&EVP_PKEY_free)
    libssl_find(handle, b"EVP_PKEY_CTX_new", <void **>&EVP_PKEY_CTX_new)
    libssl_find(handle, b"EVP_PKEY_CTX_new_from_name", <void **>&EVP_PKEY_CTX_new_from_name)
    libssl_find(handle, b"EVP_PKEY_CTX_free", <void **>&EVP_PKEY_CTX_free)
    libssl_find(handle, b"EVP_PKEY_fromdata_init", <void **>&EVP_PKEY_fromdata_init)
    libssl_find(handle, b"EVP_PKEY_fromdata", <void **>&EVP_PKEY_fromdata)
    libssl_find(handle, b"EVP_PKEY_derive_init", <void **>&EVP_PKEY_derive_init)
    libssl_find(handle, b"EVP_PKEY_derive_set_peer", <void **>&EVP_PKEY_derive_set_peer)
    libssl_find(handle, b"EVP_PKEY_derive", <void **>&EVP_PKEY_derive)
    libssl_find(handle, b"EVP_MD_CTX_new", <void **>&EVP_MD_CTX_new)
    libssl_find(handle, b"EVP_MD_CTX_free", <void **>&EVP_MD_CTX_free)
    libssl_find(handle, b"EVP_DigestSignInit", <void **>&EVP_DigestSignInit)
    libssl_find(handle, b"EVP_DigestSign", <void **>&EVP_DigestSign)
    libssl_find(handle, b"EVP_DigestVerifyInit", <void **>&EVP_DigestVerifyInit)
    libssl_find(handle, b"EVP_DigestVerify", <void **>&EVP_DigestVerify)
    libssl_find(handle, b"OPENSSL_cleanse", <void **>&OPENSSL_cleanse)
    libssl_find(handle, b"CRYPTO_free", <void **>&CRYPTO_free)
    libssl_find(handle, b"SSL_new", <void **>&SSL_new)
    libssl_find(handle, b"SSL_free", <void **>&SSL_free)
    libssl_find(handle, b"SSL_set_bio", <void **>&SSL_set_bio)
    libssl_find(handle, b"SSL_ctrl", <void **>&SSL_ctrl)
    libssl_find(handle, b"SSL_set_accept_state", <void **>&SSL_set_accept_state)
    libssl_find(handle, b"SSL_set_connect_state", <void **>&SSL_set_connect_state)
    libssl_find(handle, b"SSL_do_handshake", <void **>&SSL_do_handshake)
    libssl_find(handle, b"SSL_get_error", <void **>&SSL_get_error)
    libssl_find(handle, b"SSL_get_rbio", <void **>&SSL_get_rbio)
    libssl_find(handle, b"SSL_version", <void **>&SSL_version)
    libssl_find(handle, b"SSL_get_current_cipher", <void **>&SSL_get_current_cipher)
    libssl_find(handle, b"SSL_CIPHER_get_cipher_nid", <void **>&SSL_CIPHER_get_cipher_nid)
    libssl_find(handle, b"SSL_get_session", <void **>&SSL_get_session)
    libssl_find(handle, b"SSL_SESSION_get_master_key", <void **>&SSL_SESSION_get_master_key)
    libssl_find(handle, b"SSL_SESSION_get_max_fragment_length", <void **>&SSL_SESSION_get_max_fragment_length)
    libssl_find(handle, b"SSL_get_client_random", <void **>&SSL_get_client_random)
    libssl_find(handle, b"SSL_get_server_random", <void **>&SSL_get_server_random)
    libssl_find(handle, b"SSL_alert_desc_string_long", <void **>&SSL_alert_desc_string_long)
    libssl_find(handle, b"SSL_get_verify_result", <void **>&SSL_get_verify_result)
    libssl_find(handle, b"SSL_get_peer_cert_chain", <void **>&SSL_get_peer_cert_chain)
    libssl_find(handle, b"SSL_set_SSL_CTX", <void **>&SSL_set_SSL_CTX)
    libssl_find(handle, b"SSL_get_servername", <void **>&SSL_get_servername)
