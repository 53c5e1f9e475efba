// The few machine primitives that Swift has no word for: ordered access to plain memory, prefetch, CRC32C,
// a futex lock and page-grained anonymous memory. Everything is inline except the slow paths in CBase.c.
#ifndef APUS_CBASE_H
#define APUS_CBASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- Ordered access to memory shared between threads (and, for arenas, with a later process). ----

static inline uint32_t apus_load_acquire_u32(const void *address) {
    return __atomic_load_n((const uint32_t *)address, __ATOMIC_ACQUIRE);
}
static inline uint64_t apus_load_acquire_u64(const void *address) {
    return __atomic_load_n((const uint64_t *)address, __ATOMIC_ACQUIRE);
}
static inline uint32_t apus_load_relaxed_u32(const void *address) {
    return __atomic_load_n((const uint32_t *)address, __ATOMIC_RELAXED);
}
static inline uint64_t apus_load_relaxed_u64(const void *address) {
    return __atomic_load_n((const uint64_t *)address, __ATOMIC_RELAXED);
}
static inline void apus_store_release_u8(void *address, uint8_t value) {
    __atomic_store_n((uint8_t *)address, value, __ATOMIC_RELEASE);
}
static inline void apus_store_release_u32(void *address, uint32_t value) {
    __atomic_store_n((uint32_t *)address, value, __ATOMIC_RELEASE);
}
static inline void apus_store_release_u64(void *address, uint64_t value) {
    __atomic_store_n((uint64_t *)address, value, __ATOMIC_RELEASE);
}
static inline void apus_store_relaxed_u64(void *address, uint64_t value) {
    __atomic_store_n((uint64_t *)address, value, __ATOMIC_RELAXED);
}
static inline uint32_t apus_fetch_add_u32(void *address, uint32_t value) {
    return __atomic_fetch_add((uint32_t *)address, value, __ATOMIC_ACQ_REL);
}
static inline uint64_t apus_fetch_add_u64(void *address, uint64_t value) {
    return __atomic_fetch_add((uint64_t *)address, value, __ATOMIC_ACQ_REL);
}
static inline uint64_t apus_exchange_u64(void *address, uint64_t value) {
    return __atomic_exchange_n((uint64_t *)address, value, __ATOMIC_ACQ_REL);
}
static inline bool apus_compare_exchange_u32(void *address, uint32_t expected, uint32_t desired) {
    return __atomic_compare_exchange_n((uint32_t *)address, &expected, desired, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}
static inline bool apus_compare_exchange_u64(void *address, uint64_t expected, uint64_t desired) {
    return __atomic_compare_exchange_n((uint64_t *)address, &expected, desired, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}
// Orders every earlier store before every later load (sleep/wake handshakes).
static inline void apus_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// A bit for each of the first 12 bytes at `line` that equals `tag`; `line` is 16-byte aligned.
static inline uint32_t apus_match_tags(const void *line, uint8_t tag) {
#if defined(__SSE2__)
    // Without the header of the intrinsics: it brings in stdlib.h, whose types then differ from those of the shims
    // that ask for all of the system.
    typedef char apus_line __attribute__((vector_size(16)));
    apus_line wanted = (apus_line){0} + (char)tag;
    return (uint32_t)__builtin_ia32_pmovmskb128(*(const apus_line *)line == wanted) & 0xFFF;
#else
    uint32_t mask = 0;
    for (int i = 0; i < 12; i++) mask |= (uint32_t)(((const uint8_t *)line)[i] == tag) << i;
    return mask;
#endif
}
static inline uint64_t apus_reverse_bits(uint64_t value) { return __builtin_bitreverse64(value); }

static inline void apus_prefetch(const void *address) { __builtin_prefetch(address, 0, 3); }

// ---- Lock: one 32-bit word; 0 free, 1 held, 2 held with sleepers. Spins at most about 1 us, then sleeps.
// ----

void apus_lock_slow(uint32_t *word);
void apus_unlock_slow(uint32_t *word);

static inline bool apus_try_lock(uint32_t *word) {
    uint32_t free_word = 0;
    return __atomic_compare_exchange_n(word, &free_word, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}
static inline void apus_lock(uint32_t *word) {
    if (!apus_try_lock(word)) apus_lock_slow(word);
}
static inline void apus_unlock(uint32_t *word) {
    if (__atomic_exchange_n(word, 0, __ATOMIC_RELEASE) == 2) apus_unlock_slow(word);
}

// ---- Bell: one 32-bit word; 0 silent, 1 rung. One thread waits, any thread rings. ----

void apus_bell_ring(uint32_t *word);
// Returns when the bell has rung, or after `milliseconds` (negative: no limit), and silences it.
void apus_bell_wait(uint32_t *word, int milliseconds);

// Names the calling thread and lets others go first: `niceness` 0 to 19.
void apus_background_thread(const char *name, int niceness);

// ---- CRC32C (Castagnoli). `seed` 0 to start; pass a result to go on. ----

uint32_t apus_crc32c(uint32_t seed, const void *bytes, size_t count);

// ---- Memory: address space is reserved at once, pages come with the first touch. ----

// NULL on failure. `huge` asks for transparent huge pages; alignment is 2 MiB.
void *apus_pages_reserve(size_t byte_count, bool huge);
// Gives the pages back to the system; they read as zero afterwards. Returns 0 or errno.
int apus_pages_discard(void *address, size_t byte_count);
void apus_pages_release(void *address, size_t byte_count);
// Moves a mapping of whole pages over what is mapped at `to`, in one step. Returns 0 or errno.
int apus_pages_move(void *from, void *to, size_t byte_count);

#endif
