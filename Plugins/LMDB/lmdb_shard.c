// One shard, used by one storage thread. Appends and removes of a round are kept until poll and written in one
// transaction: no lock is held between two calls, and a round costs one sync. Invariants:
// 1. operations[0, handed) were handed over, [handed, ended) are done and wait for poll, [ended, count) are not written yet.
// 2. `buffer` holds the images of the operations that are not written yet, and nothing else.
// 3. Bytes lent to the node lie in the map under `lending`, which is not reset before the turn ends, or in `copies`.
#include "lmdb_backend.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

// A batch is written early when it holds more: memory for it, and dirty pages in LMDB, are bounded.
#define BATCH_BYTES_MAX (16 * MIB)

enum kind { APPEND, REMOVE };

struct operation {
    uint64_t tag;
    enum kind kind;
    uint8_t digest[APUS_DIGEST_SIZE];
    uint64_t offset;
    uint64_t size;
    uint64_t location;
    // 0, or why it failed.
    int reason;
};

struct copy {
    struct copy *next;
    unsigned char bytes[];
};

struct shard {
    struct backend *backend;
    struct operation *operations;
    size_t operation_capacity;
    size_t handed;
    size_t ended;
    size_t count;
    unsigned char *buffer;
    uint64_t buffer_capacity;
    uint64_t buffer_size;
    // Read transactions, reset between uses; NULL before the first.
    MDB_txn *lending;
    MDB_txn *fresh;
    bool is_lending;
    // `written` when the snapshot of `lending` was taken.
    uint64_t lending_since;
    struct copy *copies;
};

int32_t shard_make(void *handle, const struct apus_shard_request *request, void **made, struct apus_error *error) {
    (void)request;
    struct shard *shard = calloc(1, sizeof *shard);
    if (shard == NULL) return lmdb_answer(ENOMEM, "make a shard", error);
    shard->backend = handle;
    *made = shard;
    return APUS_DONE;
}

void shard_end(void *handle) {
    struct shard *shard = handle;
    shard_turn_ended(shard, 1);
    if (shard->lending != NULL) mdb_txn_abort(shard->lending);
    if (shard->fresh != NULL) mdb_txn_abort(shard->fresh);
    free(shard->operations);
    free(shard->buffer);
    free(shard);
}

// ---- Writing ----

// Adds one operation to the transaction. An image that does not fit in fails alone.
static int apply(struct shard *shard, MDB_txn *transaction, struct operation *operation, uint64_t *room, int64_t *live) {
    struct backend *backend = shard->backend;
    MDB_val key = digest_key(operation->digest);
    MDB_val old = {0, NULL};
    int reason = mdb_get(transaction, backend->records, &key, &old);
    if (reason != 0 && reason != MDB_NOTFOUND) return reason;
    if (operation->kind == REMOVE) {
        if (reason == MDB_NOTFOUND) return 0;
        *live -= (int64_t)stored_size(old.mv_size);
        return mdb_del(transaction, backend->records, &key, NULL);
    }
    if (operation->size > *room) {
        operation->reason = MDB_MAP_FULL;
        return 0;
    }
    *room -= operation->size;
    *live += (int64_t)stored_size(operation->size) - (int64_t)(reason == 0 ? stored_size(old.mv_size) : 0);
    MDB_val image = {operation->size, shard->buffer + operation->offset};
    operation->location = lmdb_next_version(backend);
    return mdb_put(transaction, backend->records, &key, &image, 0);
}

// Writes some operations in one transaction; each is told what came of it.
static int write_range(struct shard *shard, size_t first, size_t end) {
    MDB_txn *transaction = NULL;
    int64_t live = 0;
    for (size_t number = first; number < end; number++) shard->operations[number].reason = 0;
    int reason = lmdb_begin_write(shard->backend, &transaction);
    if (reason == 0) {
        uint64_t room = lmdb_available(shard->backend);
        for (size_t number = first; number < end && reason == 0; number++)
            reason = apply(shard, transaction, &shard->operations[number], &room, &live);
        reason = lmdb_end_write(shard->backend, transaction, reason, live);
    }
    if (reason != 0)
        for (size_t number = first; number < end; number++) shard->operations[number].reason = reason;
    return reason;
}

// Writes what is not written yet. If the batch does not fit in, each operation tries alone: the small ones and the
// removes may.
static void write_batch(struct shard *shard) {
    if (shard->ended == shard->count) return;
    int reason = write_range(shard, shard->ended, shard->count);
    if (lmdb_is_full(reason) && shard->count - shard->ended > 1)
        for (size_t number = shard->ended; number < shard->count; number++) write_range(shard, number, number + 1);
    shard->ended = shard->count;
    shard->buffer_size = 0;
}

// Makes room for one more operation and `size` bytes; false if there is no memory.
static bool make_room(struct shard *shard, uint64_t size) {
    if (shard->buffer_size > 0 && shard->buffer_size + size > BATCH_BYTES_MAX) write_batch(shard);
    if (shard->count == shard->operation_capacity) {
        size_t capacity = shard->operation_capacity == 0 ? 64 : 2 * shard->operation_capacity;
        struct operation *larger = realloc(shard->operations, capacity * sizeof *larger);
        if (larger == NULL) return false;
        shard->operations = larger;
        shard->operation_capacity = capacity;
    }
    if (shard->buffer_size + size > shard->buffer_capacity) {
        uint64_t capacity = 2 * (shard->buffer_size + size);
        unsigned char *larger = realloc(shard->buffer, capacity);
        if (larger == NULL) return false;
        shard->buffer = larger;
        shard->buffer_capacity = capacity;
    }
    return true;
}

static struct operation *add(struct shard *shard, enum kind kind, const uint8_t *digest, uint64_t tag) {
    assert(shard->count < shard->operation_capacity);
    struct operation *operation = &shard->operations[shard->count++];
    memset(operation, 0, sizeof *operation);
    operation->kind = kind;
    operation->tag = tag;
    memcpy(operation->digest, digest, APUS_DIGEST_SIZE);
    return operation;
}

int32_t shard_append(
    void *handle, const uint8_t *digest, const void *image, uint64_t size, uint32_t stream, uint64_t tag,
    uint64_t *location, struct apus_error *error) {
    (void)stream;
    (void)location;
    struct shard *shard = handle;
    if (!make_room(shard, size)) return lmdb_answer(ENOMEM, "keep an image", error);
    struct operation *operation = add(shard, APPEND, digest, tag);
    operation->offset = shard->buffer_size;
    operation->size = size;
    memcpy(shard->buffer + shard->buffer_size, image, size);
    shard->buffer_size += size;
    return APUS_PENDING;
}

int32_t shard_remove(void *handle, const uint8_t *digest, uint64_t location, uint64_t tag, struct apus_error *error) {
    (void)location;
    struct shard *shard = handle;
    if (!make_room(shard, 0)) return lmdb_answer(ENOMEM, "keep a remove", error);
    add(shard, REMOVE, digest, tag);
    return APUS_PENDING;
}

uint32_t shard_poll(void *handle, struct apus_completion *completions, uint32_t capacity) {
    struct shard *shard = handle;
    write_batch(shard);
    uint32_t filled = 0;
    while (filled < capacity && shard->handed < shard->ended) {
        const struct operation *operation = &shard->operations[shard->handed++];
        struct apus_completion *completion = &completions[filled++];
        completion->tag = operation->tag;
        completion->location = operation->location;
        completion->status = lmdb_answer(
            operation->reason, operation->kind == APPEND ? "write an image" : "remove an image", &completion->error);
    }
    if (shard->handed == shard->count) shard->handed = shard->ended = shard->count = 0;
    return filled;
}

int32_t shard_commit(void *handle, const uint8_t *digest, uint64_t tag, struct apus_error *error) {
    (void)digest;
    (void)tag;
    struct shard *shard = handle;
    write_batch(shard);
    return lmdb_answer(lmdb_sync(shard->backend), "sync", error);
}

// ---- Reading ----

// A snapshot of now in *transaction, made at its first use.
static int renew(struct shard *shard, MDB_txn **transaction) {
    if (*transaction != NULL) return mdb_txn_renew(*transaction);
    return mdb_txn_begin(shard->backend->env, NULL, MDB_RDONLY, transaction);
}

// Lends the image from the map: the snapshot stays for the rest of the turn.
static int lend(struct shard *shard, MDB_val *key, MDB_val *image) {
    if (!shard->is_lending) {
        shard->lending_since = load_figure(&shard->backend->written);
        int reason = renew(shard, &shard->lending);
        if (reason != 0) return reason;
        shard->is_lending = true;
    }
    return mdb_get(shard->lending, shard->backend->records, key, image);
}

// Somebody has written since this turn's snapshot, and what is placed must be found at once: the image comes from a
// snapshot of now, as a copy, because bytes from the older snapshot are still lent.
static int copy_newer(struct shard *shard, MDB_val *key, MDB_val *image) {
    int reason = renew(shard, &shard->fresh);
    if (reason != 0) return reason;
    reason = mdb_get(shard->fresh, shard->backend->records, key, image);
    if (reason == 0) {
        struct copy *copy = malloc(sizeof *copy + image->mv_size);
        if (copy != NULL) {
            memcpy(copy->bytes, image->mv_data, image->mv_size);
            copy->next = shard->copies;
            shard->copies = copy;
            image->mv_data = copy->bytes;
        } else {
            reason = ENOMEM;
        }
    }
    mdb_txn_reset(shard->fresh);
    return reason;
}

int32_t shard_read(
    void *handle, const uint8_t *digest, uint64_t location, uint64_t size, uint64_t tag, struct apus_bytes *image,
    struct apus_error *error) {
    (void)location;
    (void)size;
    (void)tag;
    struct shard *shard = handle;
    MDB_val key = digest_key(digest);
    MDB_val found = {0, NULL};
    bool is_stale = shard->is_lending && shard->lending_since != load_figure(&shard->backend->written);
    int reason = is_stale ? copy_newer(shard, &key, &found) : lend(shard, &key, &found);
    if (reason == MDB_NOTFOUND) return APUS_ABSENT;
    if (reason == MDB_CORRUPTED || reason == MDB_PAGE_NOTFOUND) return APUS_CORRUPT;
    image->bytes = found.mv_data;
    image->size = found.mv_size;
    return lmdb_answer(reason, "read an image", error);
}

void shard_turn_ended(void *handle, uint32_t sleeping) {
    (void)sleeping;
    struct shard *shard = handle;
    if (shard->is_lending) mdb_txn_reset(shard->lending);
    shard->is_lending = false;
    while (shard->copies != NULL) {
        struct copy *copy = shard->copies;
        shard->copies = copy->next;
        free(copy);
    }
}
