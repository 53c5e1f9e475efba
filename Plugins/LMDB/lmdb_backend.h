// What the files of the plugin share.
#ifndef LMDB_BACKEND_H
#define LMDB_BACKEND_H

#define _POSIX_C_SOURCE 200809L
#include <apus_backend.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdbool.h>

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)

// Most segments of a scan that are counted, and read transactions that are kept for them.
#define SEGMENTS_MAX 256

// What the segments of one scan have met, as long as all of them see the same snapshot.
struct scan_count {
    size_t snapshot;
    uint32_t count;
    uint32_t ended;
    uint64_t visited;
    bool has_ended[SEGMENTS_MAX];
};

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
    pthread_mutex_t scan_lock;
    // Under scan_lock.
    struct scan_count scan_count;
    void (*log)(void *log_context, const char *line);
    void *log_context;
    uint64_t map_size;
    // errno of the first sync that failed, whether in a commit or in a write transaction; from then on nothing is
    // promised any more. It never goes back to 0. Written under sync_lock, read atomically.
    int sync_failure;
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

// Refuses to open: what LMDB answered about which file of the directory, in words.
int32_t lmdb_refuse(
    int32_t status, int reason, const char *doing, const char *directory, const char *file, struct apus_error *error);

// Whether LMDB said that there is no room.
bool lmdb_is_full(int reason);

// The next version: the location of an image that is written or met.
uint64_t lmdb_next_version(struct backend *backend);

// Reads the figures that a transaction leaves behind. Pages that are free count as free, wherever they lie.
int lmdb_read_figures(const struct backend *backend, MDB_txn *transaction, uint64_t *used, uint64_t *records);

// Makes them the figures of now. Under write_lock, or before the backend serves.
void lmdb_store_figures(struct backend *backend, uint64_t used, uint64_t records, uint64_t live);

// How many bytes of images fit in yet. What is held back lets deletes and metadata go on when images are refused.
uint64_t lmdb_available(const struct backend *backend);

// Begins a write transaction; holds write_lock if it answers 0.
int lmdb_begin_write(struct backend *backend, MDB_txn **transaction);

// Ends it and gives write_lock back: aborted if `reason` is not 0, else committed with live_bytes changed by
// `live_change`. Returns `reason`, or why it could not be committed.
int lmdb_end_write(struct backend *backend, MDB_txn *transaction, int reason, int64_t live_change);

// A name as a key of the metadata.
MDB_val lmdb_text_key(const char *text);

// Makes durable what was written before; one sync serves all threads that ask meanwhile.
// After a failure, of this or of the sync in a write transaction, it always fails.
int lmdb_sync(struct backend *backend);

// Opening and closing, in lmdb_open.c.
int32_t lmdb_open(const struct apus_open_request *request, void **handle, struct apus_error *error);
int32_t lmdb_close(void *handle, struct apus_error *error);

// The scan, in lmdb_scan.c.
int32_t lmdb_scan(
    void *handle, uint32_t segment, uint32_t count, apus_visit visit, void *visit_context, struct apus_error *error);

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
