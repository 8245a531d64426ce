/* What Cython can't spell: atomics, unaligned loads and the unmasking loop. Nothing here knows of candy.
 *
 * Memory order is named by use: "relaxed" for counters and flags whose readers tolerate age, "acquire"/"release" for
 * what publishes other memory, "ordered" (sequentially consistent) where two flags are checked crosswise.
 */
#ifndef CANDY_FASTPATH_H
#define CANDY_FASTPATH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stddef.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "candy's engine reads masks and addresses as little-endian words; this machine is big-endian"
#endif

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#define candy_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define candy_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define candy_load_ordered(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define candy_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define candy_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define candy_store_ordered(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
#define candy_add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#define candy_or_ordered(p, v) __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
#define candy_take_ordered(p) __atomic_exchange_n((p), 0, __ATOMIC_SEQ_CST)
/* Put `after` in the place of `before`; 0: there is something else by now. */
static inline int candy_replace64(uint64_t *p, uint64_t before, uint64_t after) {
    return __atomic_compare_exchange_n(p, &before, after, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
/* A counter with a single writer: no locked instruction, but no torn read either. */
#define candy_count(p, v) __atomic_store_n((p), __atomic_load_n((p), __ATOMIC_RELAXED) + (v), __ATOMIC_RELAXED)

#define candy_likely(x) __builtin_expect(!!(x), 1)
#define candy_unlikely(x) __builtin_expect(!!(x), 0)

static inline uint32_t candy_load32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t candy_load64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline uint16_t candy_load_le16(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline void candy_store_le16(void *p, uint16_t v) { memcpy(p, &v, 2); }
static inline uint16_t candy_load_be16(const void *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static inline uint32_t candy_load_be32(const void *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline uint64_t candy_load_be64(const void *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
static inline void candy_store_be16(void *p, uint16_t v) { v = __builtin_bswap16(v); memcpy(p, &v, 2); }
static inline void candy_store_be32(void *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static inline void candy_store_be64(void *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }

static inline uint64_t candy_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The clock that goes on while the machine is suspended. */
static inline uint64_t candy_boot_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Cython can't spell the type of a socket's name. */
static inline ssize_t candy_sendto(int fd, const void *data, size_t n, int flags, const void *name, uint32_t name_size) {
    return sendto(fd, data, n, flags, (const struct sockaddr *)name, name_size);
}

/* Cython can't assign to what the C library defines as a macro. */
static inline void candy_set_errno(int error) { errno = error; }

/* Whether the processor does AES itself: without, ChaCha20 is several times as fast. */
static inline int candy_has_aes(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("aes");
#elif defined(__aarch64__)
    return (getauxval(AT_HWCAP) >> 3) & 1; /* HWCAP_AES */
#else
    return 0;
#endif
}

/* A hash's step: both halves of the product of two words. Its caller mixes a key into each. */
static inline uint64_t candy_fold(uint64_t a, uint64_t b) {
    const __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* SipHash-2-4 of two words under a key of two: who does not have the key can't foretell it, whatever he has seen. */
#define CANDY_SIP_ROUND                                                                                          \
    do {                                                                                                         \
        a += b, c += d, b = b << 13 | b >> 51, d = d << 16 | d >> 48, b ^= a, d ^= c, a = a << 32 | a >> 32;     \
        c += b, a += d, b = b << 17 | b >> 47, d = d << 21 | d >> 43, b ^= c, d ^= a, c = c << 32 | c >> 32;     \
    } while (0)
static inline uint64_t candy_siphash(uint64_t k0, uint64_t k1, uint64_t first, uint64_t second) {
    const uint64_t words[3] = {first, second, (uint64_t)16 << 56};
    uint64_t a = k0 ^ 0x736f6d6570736575u, b = k1 ^ 0x646f72616e646f6du;
    uint64_t c = k0 ^ 0x6c7967656e657261u, d = k1 ^ 0x7465646279746573u;
    for (int i = 0; i < 3; i++) {
        d ^= words[i];
        CANDY_SIP_ROUND;
        CANDY_SIP_ROUND;
        a ^= words[i];
    }
    c ^= 0xff;
    for (int i = 0; i < 4; i++)
        CANDY_SIP_ROUND;
    return a ^ b ^ c ^ d;
}

/* Where a build for tests may hold a thread: see tests/engine/test_interleavings.py. Nothing in any other build.
 * The first thread that reaches an armed point disarms it and stays there until it is released, or CANDY_HELD_S are
 * over: a test that fails must not leave a worker standing. */
enum { CANDY_POINTS_COUNT = 24, CANDY_HELD_S = 60 };
#ifdef CANDY_POINTS
#include <pthread.h>

static struct {
    int armed, held;
} candy_points[CANDY_POINTS_COUNT];
static pthread_mutex_t candy_points_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t candy_points_changed = PTHREAD_COND_INITIALIZER;

/* Wait, with the lock, while a thread's being held there is `held`; 0 when so many milliseconds were too few. */
static inline int candy_points_wait(int point, int held, uint64_t milliseconds) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    const uint64_t ns = (uint64_t)until.tv_nsec + milliseconds * 1000000u;
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    while (candy_points[point].held == held)
        if (pthread_cond_timedwait(&candy_points_changed, &candy_points_lock, &until) != 0)
            return candy_points[point].held != held;
    return 1;
}

static inline void candy_point(int point) {
    if (!candy_load_relaxed(&candy_points[point].armed))
        return;
    pthread_mutex_lock(&candy_points_lock);
    if (candy_points[point].armed) {
        candy_store_relaxed(&candy_points[point].armed, 0);
        candy_points[point].held = 1;
        pthread_cond_broadcast(&candy_points_changed);
        candy_points_wait(point, 1, CANDY_HELD_S * 1000u);
        candy_points[point].held = 0;
    }
    pthread_mutex_unlock(&candy_points_lock);
}

/* Take a lock; a thread that finds it taken is at this point before it waits. */
static inline void candy_point_lock(int point, pthread_mutex_t *lock) {
    if (pthread_mutex_trylock(lock) != 0) {
        candy_point(point);
        pthread_mutex_lock(lock);
    }
}

/* Arm a point (1), or release who is held there and disarm it (0); 0 in a build without points. */
static inline int candy_point_set(int point, int armed) {
    pthread_mutex_lock(&candy_points_lock);
    candy_store_relaxed(&candy_points[point].armed, armed);
    candy_points[point].held = 0;
    pthread_cond_broadcast(&candy_points_changed);
    pthread_mutex_unlock(&candy_points_lock);
    return 1;
}

/* Whether a thread is held there, at the latest in so many milliseconds. */
static inline int candy_point_held(int point, uint64_t milliseconds) {
    pthread_mutex_lock(&candy_points_lock);
    const int held = candy_points_wait(point, 0, milliseconds);
    pthread_mutex_unlock(&candy_points_lock);
    return held;
}
#else
#define candy_point(point) ((void)0)
#define candy_point_lock(point, lock) pthread_mutex_lock(lock)
static inline int candy_point_set(int point, int armed) { (void)point; (void)armed; return 0; }
static inline int candy_point_held(int point, uint64_t milliseconds) { (void)point; (void)milliseconds; return 0; }
#endif

/* XOR n bytes with the 4-byte mask (in memory order, starting at mask byte 0) from src to dst.
 * dst may equal src or lie anywhere before it: every load happens before a store can reach it. Touches exactly n bytes
 * of each. Short runs are done in place; longer ones by the widest vectors that pay.
 */
typedef uint32_t candy_v32 __attribute__((vector_size(32), aligned(1), may_alias));
typedef uint32_t candy_v16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint32_t candy_v4 __attribute__((aligned(1), may_alias));

static inline uint32_t candy_rotate(uint32_t mask, size_t bytes) {
    unsigned s = (unsigned)(bytes & 3u) * 8u;
    return s ? (mask >> s) | (mask << (32u - s)) : mask;
}

/* The body for vectors V and n >= sizeof(V); a macro, so that it is compiled once for each instruction set. V is no wider
 * than a register of that set: the compiler fills a wider one through the stack, and stalls. The last vector is loaded
 * before the loop can overwrite it; n - sizeof(V) and n rotate the mask alike. */
#define CANDY_UNMASK_WIDE(V, dst, src, n, mask)                                                                 \
    do {                                                                                                        \
        enum { W_ = sizeof(V) };                                                                                \
        const uint32_t r_ = candy_rotate((mask), (n));                                                          \
        /* Zero plus a scalar is a shuffle; equal elements, listed, would go through the stack too. */          \
        const V m_ = (V){0} + (mask);                                                                           \
        const V t_ = *(const V *)((src) + (n) - W_) ^ ((V){0} + r_);                                            \
        size_t i_ = 0;                                                                                          \
        for (; i_ + 4 * W_ <= (n); i_ += 4 * W_) {                                                              \
            /* What was received lies in the second-level cache; fetched ahead, it is there in time. */         \
            __builtin_prefetch((src) + i_ + 16 * W_, 1);                                                        \
            __builtin_prefetch((src) + i_ + 18 * W_, 1);                                                        \
            const V a_ = *(const V *)((src) + i_), b_ = *(const V *)((src) + i_ + W_);                          \
            const V c_ = *(const V *)((src) + i_ + 2 * W_), d_ = *(const V *)((src) + i_ + 3 * W_);             \
            *(V *)((dst) + i_) = a_ ^ m_;                                                                       \
            *(V *)((dst) + i_ + W_) = b_ ^ m_;                                                                  \
            *(V *)((dst) + i_ + 2 * W_) = c_ ^ m_;                                                              \
            *(V *)((dst) + i_ + 3 * W_) = d_ ^ m_;                                                              \
        }                                                                                                       \
        for (; i_ + W_ <= (n); i_ += W_)                                                                        \
            *(V *)((dst) + i_) = *(const V *)((src) + i_) ^ m_;                                                 \
        if (i_ < (n))                                                                                           \
            *(V *)((dst) + (n) - W_) = t_;                                                                      \
    } while (0)

static void candy_unmask_any(uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask) {
    CANDY_UNMASK_WIDE(candy_v16, dst, src, n, mask);
}

#if defined(__x86_64__)
__attribute__((target("avx2")))
static void candy_unmask_avx2(uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask) {
    CANDY_UNMASK_WIDE(candy_v32, dst, src, n, mask);
}
#endif

static void (*candy_unmask_long)(uint8_t *, const uint8_t *, size_t, uint32_t) = candy_unmask_any;

/* Choose by what the processor has; before any worker runs. */
static inline void candy_choose_unmask(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        candy_unmask_long = candy_unmask_avx2;
#endif
}

static inline void candy_unmask(uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask) {
    if (n >= 32) {
        candy_unmask_long(dst, src, n, mask);
    } else if (n >= 16) {
        const uint32_t r = candy_rotate(mask, n);
        const candy_v16 m = (candy_v16){0} + mask, mt = (candy_v16){0} + r;
        const candy_v16 head = *(const candy_v16 *)src ^ m, tail = *(const candy_v16 *)(src + n - 16) ^ mt;
        *(candy_v16 *)dst = head;
        *(candy_v16 *)(dst + n - 16) = tail;
    } else {
        size_t i = 0;
        for (; i + 4 <= n; i += 4)
            *(candy_v4 *)(dst + i) = *(const candy_v4 *)(src + i) ^ mask;
        for (; i < n; i++)
            dst[i] = src[i] ^ (uint8_t)(mask >> (8u * (i & 3u)));
    }
}

/* The Internet checksum (RFC 1071), which does not care for byte order until the end: words are summed as they lie.
 * `total` is the sum so far, over an even number of bytes. */
static inline uint64_t candy_checksum_add(const uint8_t *data, size_t n, uint64_t total) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        total += candy_load32(data + i);
    if (i + 2 <= n) {
        total += candy_load_le16(data + i);
        i += 2;
    }
    if (i < n)
        total += data[i];
    return total;
}

/* Fold to 16 bits, in host order; not yet inverted. */
static inline uint16_t candy_checksum_fold(uint64_t total) {
    total = (total & 0xFFFFFFFFu) + (total >> 32);
    total = (total & 0xFFFFFFFFu) + (total >> 32);
    total = (total & 0xFFFFu) + (total >> 16);
    total = (total & 0xFFFFu) + (total >> 16);
    return __builtin_bswap16((uint16_t)total);
}

#endif
