#define _GNU_SOURCE
#include "CBase.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#endif

// ---- Lock ----

enum { SPINS_MAX = 40 };  // about 1 us of pauses; a preempted holder then costs a futex call, not a time slice

static inline void cpu_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void apus_lock_slow(uint32_t *word) {
    for (int spin = 0; spin < SPINS_MAX; spin++) {
        cpu_pause();
        if (__atomic_load_n(word, __ATOMIC_RELAXED) == 0 && apus_try_lock(word)) return;
    }
    while (__atomic_exchange_n(word, 2, __ATOMIC_ACQUIRE) != 0) {
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    }
}

void apus_unlock_slow(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }

// ---- Bell ----

void apus_bell_ring(uint32_t *word) {
    if (__atomic_exchange_n(word, 1, __ATOMIC_RELEASE) == 0) syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void apus_bell_wait(uint32_t *word, int milliseconds) {
    struct timespec limit = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == 0) {
        long reason = syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 0, milliseconds < 0 ? NULL : &limit, NULL, 0);
        if (reason != 0 && errno == ETIMEDOUT) break;
    }
    __atomic_store_n(word, 0, __ATOMIC_RELEASE);
}

void apus_background_thread(const char *name, int niceness) {
    pthread_setname_np(pthread_self(), name);
    // A batch thread that wakes up does not push another one from its processor. On Linux both are the calling thread's
    // alone; a failure only costs politeness.
    struct sched_param none = {0};
    (void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
    (void)setpriority(PRIO_PROCESS, 0, niceness);
}

// ---- CRC32C ----

static uint32_t crc_table[256];

static void fill_crc_table(void) {
    for (uint32_t index = 0; index < 256; index++) {
        uint32_t crc = index;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
        crc_table[index] = crc;
    }
}

static uint32_t crc32c_portable(uint32_t crc, const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) crc = (crc >> 8) ^ crc_table[(crc ^ bytes[i]) & 0xFF];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_hardware(uint32_t crc, const uint8_t *bytes,
                                                                  size_t count) {
    uint64_t wide = crc;
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word;
        __builtin_memcpy(&word, bytes, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; count > 0; bytes++, count--) crc = _mm_crc32_u8(crc, *bytes);
    return crc;
}
static bool has_crc_instruction(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
__attribute__((target("+crc"))) static uint32_t crc32c_hardware(uint32_t crc, const uint8_t *bytes,
                                                                size_t count) {
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word;
        __builtin_memcpy(&word, bytes, 8);
        crc = __crc32cd(crc, word);
    }
    for (; count > 0; bytes++, count--) crc = __crc32cb(crc, *bytes);
    return crc;
}
static bool has_crc_instruction(void) { return getauxval(AT_HWCAP) & (1 << 7); }
#else
static uint32_t crc32c_hardware(uint32_t crc, const uint8_t *bytes, size_t count) {
    return crc32c_portable(crc, bytes, count);
}
static bool has_crc_instruction(void) { return false; }
#endif

static bool crc_in_hardware;

__attribute__((constructor)) static void choose_crc(void) {
    fill_crc_table();
    crc_in_hardware = has_crc_instruction();
}

uint32_t apus_crc32c(uint32_t seed, const void *bytes, size_t count) {
    uint32_t crc = ~seed;
    crc = crc_in_hardware ? crc32c_hardware(crc, bytes, count) : crc32c_portable(crc, bytes, count);
    return ~crc;
}

// ---- Memory ----

enum { HUGE_PAGE = 2 << 20 };

void *apus_pages_reserve(size_t byte_count, bool huge) {
    byte_count = (byte_count + 4095) & ~(size_t)4095;
    size_t padded = byte_count + HUGE_PAGE;
    uint8_t *base = mmap(NULL, padded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return NULL;
    uint8_t *aligned = (uint8_t *)(((uintptr_t)base + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
    if (aligned > base) munmap(base, (size_t)(aligned - base));
    size_t tail = (size_t)(base + padded - (aligned + byte_count));
    if (tail > 0) munmap(aligned + byte_count, tail);
    madvise(aligned, byte_count, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return aligned;
}

int apus_pages_discard(void *address, size_t byte_count) {
    return madvise(address, byte_count, MADV_DONTNEED) == 0 ? 0 : errno;
}

void apus_pages_release(void *address, size_t byte_count) { munmap(address, byte_count); }

int apus_pages_move(void *from, void *to, size_t byte_count) {
    return mremap(from, byte_count, byte_count, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED ? errno : 0;
}
