# What the engine takes from the C library, the kernel and the compiler. Nothing here knows of candy.

from libc.stdint cimport UINT32_MAX, UINT64_MAX, UINTPTR_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t  # no-cython-lint
from libc.math cimport sqrt  # no-cython-lint
from libc.stdlib cimport calloc, free, malloc, realloc  # no-cython-lint
from libc.string cimport memcmp, memcpy, memmove, memset, strchr, strdup, strlen  # no-cython-lint

cdef extern from "engine/fastpath.h" nogil:
    uint64_t load_relaxed64 "candy_load_relaxed" (uint64_t *p)
    uint64_t load_acquire64 "candy_load_acquire" (uint64_t *p)
    uint64_t load_ordered64 "candy_load_ordered" (uint64_t *p)
    void store_relaxed64 "candy_store_relaxed" (uint64_t *p, uint64_t v)
    void store_release64 "candy_store_release" (uint64_t *p, uint64_t v)
    void store_ordered64 "candy_store_ordered" (uint64_t *p, uint64_t v)
    uint64_t add_relaxed64 "candy_add_relaxed" (uint64_t *p, uint64_t v)
    uint64_t or_ordered64 "candy_or_ordered" (uint64_t *p, uint64_t v)
    uint64_t take_ordered64 "candy_take_ordered" (uint64_t *p)
    bint replace64 "candy_replace64" (uint64_t *p, uint64_t before, uint64_t after)
    uint32_t load_relaxed32 "candy_load_relaxed" (uint32_t *p)
    void store_relaxed32 "candy_store_relaxed" (uint32_t *p, uint32_t v)
    uint32_t load_acquire32 "candy_load_acquire" (uint32_t *p)
    void store_release32 "candy_store_release" (uint32_t *p, uint32_t v)
    void count "candy_count" (uint64_t *p, uint64_t v)
    uint64_t fold "candy_fold" (uint64_t a, uint64_t b)
    void point "candy_point" (int point)
    void *load_pointer "candy_load_acquire" (void **p)
    void store_pointer "candy_store_release" (void **p, void *v)
    bint likely "candy_likely" (bint x)
    bint unlikely "candy_unlikely" (bint x)
    uint32_t load32 "candy_load32" (const void *p)
    uint64_t load64 "candy_load64" (const void *p)
    uint16_t load_le16 "candy_load_le16" (const void *p)
    void store_le16 "candy_store_le16" (void *p, uint16_t v)
    uint16_t load_be16 "candy_load_be16" (const void *p)
    uint32_t load_be32 "candy_load_be32" (const void *p)
    uint64_t load_be64 "candy_load_be64" (const void *p)
    void store_be16 "candy_store_be16" (void *p, uint16_t v)
    void store_be32 "candy_store_be32" (void *p, uint32_t v)
    void store_be64 "candy_store_be64" (void *p, uint64_t v)
    uint32_t swap32 "__builtin_bswap32" (uint32_t v)
    uint64_t now_ns "candy_now_ns" ()
    uint64_t boot_ns "candy_boot_ns" ()
    uint64_t siphash "candy_siphash" (uint64_t k0, uint64_t k1, uint64_t first, uint64_t second)
    uint32_t rotate_mask "candy_rotate" (uint32_t mask, size_t count)
    void choose_unmask "candy_choose_unmask" ()
    void unmask "candy_unmask" (uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef int clockid_t
    int pthread_create(pthread_t *thread, const void *attr, void *(*run)(void *) noexcept nogil, void *arg)
    int pthread_join(pthread_t thread, void **result)
    int pthread_getcpuclockid(pthread_t thread, clockid_t *clock)
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attr)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef extern from "engine/fastpath.h" nogil:
    void point_lock "candy_point_lock" (int point, pthread_mutex_t *lock)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    enum: SIG_SETMASK
    int sigfillset(sigset_t *signals)
    int pthread_sigmask(int how, const sigset_t *signals, sigset_t *old)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(clockid_t clock, timespec *t)

cdef extern from "<errno.h>" nogil:
    int errno
    enum: EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, ENFILE, ENOBUFS, ENOMEM, EPROTO, EPROTOTYPE, EUSERS

cdef extern from "engine/fastpath.h" nogil:
    void set_errno "candy_set_errno" (int error)
    bint has_aes "candy_has_aes" ()
    ssize_t sendto "candy_sendto" (int fd, const void *data, size_t n, int flags, const void *name, uint32_t name_size)

cdef extern from "engine/gcm.h" nogil:
    ctypedef struct Gcm "candy_gcm":
        pass
    bint gcm_here "candy_gcm_here" ()
    void gcm_set "candy_gcm_set" (Gcm *g, const uint8_t *key)
    void gcm_seal "candy_gcm_seal" (const Gcm *g, const uint8_t *nonce, const uint8_t *header, uint32_t clear,
                                    const uint8_t *data, uint8_t *out, uint32_t n, uint32_t mask, uint8_t *tag)
    bint gcm_open "candy_gcm_open" (const Gcm *g, const uint8_t *nonce, const uint8_t *header, uint32_t clear,
                                    uint8_t *data, uint32_t n, uint32_t mask, const uint8_t *tag)

cdef extern from "<dlfcn.h>" nogil:
    enum: RTLD_NOW, RTLD_NOLOAD
    void *dlopen(const char *file, int flags)
    void *dlsym(void *handle, const char *name)

cdef extern from "<unistd.h>" nogil:
    int close_fd "close" (int fd)
    ssize_t read_fd "read" (int fd, void *data, size_t n)
    ssize_t write_fd "write" (int fd, const void *data, size_t n)

cdef extern from "<fcntl.h>" nogil:
    enum: F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, O_NONBLOCK
    int fcntl(int fd, int command, ...)

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *data, size_t n, unsigned int flags)

cdef extern from "<sys/mman.h>" nogil:
    enum: PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
    void *MAP_FAILED
    void *mmap(void *where, size_t n, int protection, int flags, int fd, int64_t offset)
    int munmap(void *where, size_t n)

cdef extern from "<strings.h>" nogil:
    int strcasecmp(const char *one, const char *other)

cdef extern from "<sys/eventfd.h>" nogil:
    enum: EFD_NONBLOCK, EFD_CLOEXEC
    int eventfd(unsigned int initial, int flags)

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL
    enum: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLET
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int ep, int operation, int fd, epoll_event *event)
    int epoll_wait(int ep, epoll_event *events, int most, int timeout_ms)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev(int fd, const iovec *pieces, int n)

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    enum: MSG_DONTWAIT, MSG_NOSIGNAL, MSG_EOR, MSG_PEEK, SHUT_WR, SHUT_RDWR, SOL_SOCKET, SO_TYPE, SO_RCVLOWAT
    enum: SO_RCVBUF, SO_RCVBUFFORCE
    enum: SOCK_STREAM, SOCK_DGRAM, AF_INET, AF_INET6, SO_DOMAIN, SO_ATTACH_FILTER, MSG_TRUNC
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cmsghdr *CMSG_FIRSTHDR(msghdr *message)
    cmsghdr *CMSG_NXTHDR(msghdr *message, cmsghdr *before)
    uint8_t *CMSG_DATA(cmsghdr *control)
    size_t CMSG_LEN(size_t n)
    size_t CMSG_SPACE(size_t n)
    int recvmmsg(int fd, mmsghdr *messages, unsigned int n, int flags, void *timeout)
    ssize_t recv(int fd, void *data, size_t n, int flags)
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    ssize_t send(int fd, const void *data, size_t n, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int n, int flags)
    int shutdown(int fd, int how)
    int getsockopt(int fd, int level, int option, void *value, socklen_t *n)
    int setsockopt(int fd, int level, int option, const void *value, socklen_t n)

cdef extern from "<linux/filter.h>" nogil:
    struct sock_filter:
        uint16_t code
        uint8_t jt
        uint8_t jf
        uint32_t k
    struct sock_fprog:
        unsigned short len
        sock_filter *filter
    enum: BPF_LD, BPF_JMP, BPF_RET, BPF_B, BPF_H, BPF_W, BPF_ABS, BPF_JEQ, BPF_K

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<linux/sockios.h>" nogil:
    enum: SIOCOUTQ

cdef extern from "<netinet/in.h>" nogil:
    enum: IPPROTO_TCP, IPPROTO_UDP

cdef extern from "<netinet/tcp.h>" nogil:
    enum: TCP_NODELAY, TCP_USER_TIMEOUT, TCP_NOTSENT_LOWAT, TCP_INFO, TCP_WINDOW_CLAMP
    cdef struct tcp_info:
        uint32_t tcpi_rtt               # microseconds
