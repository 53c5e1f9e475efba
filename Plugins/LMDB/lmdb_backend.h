// What the two files of the plugin share.
#ifndef LMDB_BACKEND_H
#define LMDB_BACKEND_H

#define _POSIX_C_SOURCE 200809L
#include <apus_backend.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdbool.h>

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)

// One open namespace. Invariants:
// 1. Every write transaction runs under write_lock, and what it changes in the figures is stored before the lock is
//    given back.
// 2. `written` counts write transactions that have ended well; `synced` is a value of `written` up to which all is durable.
// 3. live_bytes is what stands under the key "live" in the metadata: it changes in the same transaction as the records.
struct backend {
    MDB_env *env;
    MDB_dbi records;
    MDB_dbi metadata;
    pthread_mutex_t write_lock;
    pthread_mutex_t sync_lock;
    // errno of the first sync that failed; from then on nothing is promised any more. Under sync_lock.
    int sync_failure;
    void (*log)(void *log_context, const char *line);
    void *log_context;
    uint64_t map_size;
    // Read and written with atomic operations: any thread.
    uint64_t written;
    uint64_t synced;
    uint64_t last_version;
    uint64_t live_bytes;
    uint64_t record_count;
    uint64_t used_bytes;
    uint64_t allocated_bytes;
};

static inline uint64_t load_figure(const uint64_t *figure) { return __atomic_load_n(figure, __ATOMIC_ACQUIRE); }
static inline void store_figure(uint64_t *figure, uint64_t value) { __atomic_store_n(figure, value, __ATOMIC_RELEASE); }

// What a stored image counts: whole units of 16 bytes.
static inline uint64_t stored_size(uint64_t size) { return (size + 15) / 16 * 16; }

static inline MDB_val digest_key(const uint8_t *digest) {
    MDB_val key = {APUS_DIGEST_SIZE, (void *)digest};
    return key;
}

// Turns what LMDB answered into an answer of the contract; `doing` says what was tried.
int32_t lmdb_answer(int reason, const char *doing, struct apus_error *error);

// Whether LMDB said that there is no room.
bool lmdb_is_full(int reason);

// The next version: the location of an image that is written or met.
uint64_t lmdb_next_version(struct backend *backend);

// How many bytes of images fit in yet. What is held back lets deletes and metadata go on when images are refused.
uint64_t lmdb_available(const struct backend *backend);

// Begins a write transaction; holds write_lock if it answers 0.
int lmdb_begin_write(struct backend *backend, MDB_txn **transaction);

// Ends it and gives write_lock back: aborted if `reason` is not 0, else committed with live_bytes changed by
// `live_change`. Returns `reason`, or why it could not be committed.
int lmdb_end_write(struct backend *backend, MDB_txn *transaction, int reason, int64_t live_change);

// Makes durable what was written before; one sync serves all threads that ask meanwhile.
int lmdb_sync(struct backend *backend);

// The data plane, in lmdb_shard.c.
int32_t shard_make(void *backend, const struct apus_shard_request *request, void **shard, struct apus_error *error);
void shard_end(void *shard);
int32_t shard_append(
    void *shard, const uint8_t *digest, const void *image, uint64_t size, uint32_t stream, uint64_t tag,
    uint64_t *location, struct apus_error *error);
int32_t shard_read(
    void *shard, const uint8_t *digest, uint64_t location, uint64_t size, uint64_t tag, struct apus_bytes *image,
    struct apus_error *error);
int32_t shard_remove(void *shard, const uint8_t *digest, uint64_t location, uint64_t tag, struct apus_error *error);
int32_t shard_commit(void *shard, const uint8_t *digest, uint64_t tag, struct apus_error *error);
uint32_t shard_poll(void *shard, struct apus_completion *completions, uint32_t capacity);
void shard_turn_ended(void *shard, uint32_t sleeping);

#endif
