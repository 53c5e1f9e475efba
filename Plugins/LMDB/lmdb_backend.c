// `storage-engine lmdb`: one LMDB environment for each namespace, in a directory that the node has made. Two
// databases in it: "records", digest -> image as it was appended, and "metadata" with the keys "blob", "partitions"
// and "live". README.md says how it is used.
#include "lmdb_backend.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

// A disk with less free is full if a write has failed.
#define DISK_FREE_MIN MIB
// Part of the map that is held back for deletes and metadata, and its bounds.
#define HELD_BACK_PART 32
#define HELD_BACK_MIN (256 * KIB)
#define HELD_BACK_MAX (64 * MIB)

// ---- Answers ----

bool lmdb_is_full(int reason) {
    return reason == MDB_MAP_FULL || reason == MDB_TXN_FULL || reason == ENOSPC || reason == EDQUOT;
}

int32_t lmdb_answer(int reason, const char *doing, struct apus_error *error) {
    if (reason == 0) return APUS_DONE;
    if (lmdb_is_full(reason)) return APUS_OUT_OF_SPACE;
    error->number = reason > 0 ? reason : EIO;
    snprintf(error->text, sizeof error->text, "lmdb: %s (%s)", doing, mdb_strerror(reason));
    return APUS_DEVICE;
}

int32_t lmdb_refuse(
    int32_t status, int reason, const char *doing, const char *directory, const char *file, struct apus_error *error) {
    error->number = reason > 0 ? reason : EIO;
    snprintf(error->text, sizeof error->text, "lmdb: %s '%s%s' (%s)", doing, directory, file, mdb_strerror(reason));
    return status;
}

// ---- Figures ----

uint64_t lmdb_next_version(struct backend *backend) {
    uint64_t version = __atomic_add_fetch(&backend->last_version, 1, __ATOMIC_RELAXED);
    return version & (((uint64_t)1 << APUS_LOCATION_BITS) - 1);
}

static uint64_t held_back(const struct backend *backend) {
    uint64_t part = backend->map_size / HELD_BACK_PART;
    return part < HELD_BACK_MIN ? HELD_BACK_MIN : part > HELD_BACK_MAX ? HELD_BACK_MAX : part;
}

uint64_t lmdb_available(const struct backend *backend) {
    uint64_t taken = load_figure(&backend->used_bytes) + held_back(backend);
    return taken < backend->map_size ? backend->map_size - taken : 0;
}

int lmdb_read_figures(const struct backend *backend, MDB_txn *transaction, uint64_t *used, uint64_t *records) {
    // LMDB's own two databases, of free pages and of names, have the handles 0 and 1.
    MDB_dbi databases[] = {0, 1, backend->records, backend->metadata};
    *used = 0;
    for (size_t number = 0; number < sizeof databases / sizeof *databases; number++) {
        MDB_stat figures;
        int reason = mdb_stat(transaction, databases[number], &figures);
        if (reason != 0) return reason;
        uint64_t pages = figures.ms_branch_pages + figures.ms_leaf_pages + figures.ms_overflow_pages;
        *used += pages * figures.ms_psize;
        if (databases[number] == backend->records) *records = figures.ms_entries;
    }
    return 0;
}

void lmdb_store_figures(struct backend *backend, uint64_t used, uint64_t records, uint64_t live) {
    MDB_envinfo info;
    MDB_stat sizes;
    store_figure(&backend->used_bytes, used);
    store_figure(&backend->record_count, records);
    store_figure(&backend->live_bytes, live);
    if (mdb_env_info(backend->env, &info) == 0 && mdb_env_stat(backend->env, &sizes) == 0)
        store_figure(&backend->allocated_bytes, (info.me_last_pgno + 1) * sizes.ms_psize);
}

static void backend_statistics(void *handle, struct apus_statistics *statistics) {
    struct backend *backend = handle;
    statistics->total_bytes = backend->map_size;
    statistics->used_bytes = load_figure(&backend->live_bytes);
    statistics->available_bytes = lmdb_available(backend);
    statistics->allocated_bytes = load_figure(&backend->allocated_bytes);
    statistics->detail_count = 2;
    snprintf(statistics->details[0].name, sizeof statistics->details[0].name, "records");
    snprintf(statistics->details[0].value, sizeof statistics->details[0].value, "%llu",
             (unsigned long long)load_figure(&backend->record_count));
    snprintf(statistics->details[1].name, sizeof statistics->details[1].name, "page-bytes");
    snprintf(statistics->details[1].value, sizeof statistics->details[1].value, "%llu",
             (unsigned long long)load_figure(&backend->used_bytes));
}

// ---- Write transactions and syncs ----

MDB_val lmdb_text_key(const char *text) {
    MDB_val key = {strlen(text), (void *)text};
    return key;
}

// A file system that fills up in the middle of a write takes part of it, and LMDB calls that EIO.
static bool is_disk_full(const struct backend *backend) {
    int file;
    struct statvfs figures;
    if (mdb_env_get_fd(backend->env, &file) != 0 || fstatvfs(file, &figures) != 0) return false;
    return (uint64_t)figures.f_bavail * figures.f_frsize < DISK_FREE_MIN;
}

// From now on every sync fails.
static void fail_syncs(struct backend *backend, int reason) {
    pthread_mutex_lock(&backend->sync_lock);
    if (backend->sync_failure == 0) __atomic_store_n(&backend->sync_failure, reason, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&backend->sync_lock);
}

int lmdb_begin_write(struct backend *backend, MDB_txn **transaction) {
    pthread_mutex_lock(&backend->write_lock);
    int reason = mdb_txn_begin(backend->env, NULL, 0, transaction);
    if (reason != 0) pthread_mutex_unlock(&backend->write_lock);
    return reason;
}

int lmdb_end_write(struct backend *backend, MDB_txn *transaction, int reason, int64_t live_change) {
    uint64_t used = 0, records = 0;
    uint64_t live = load_figure(&backend->live_bytes) + (uint64_t)live_change;
    if (reason == 0 && live_change != 0) {
        MDB_val key = lmdb_text_key("live");
        MDB_val value = {sizeof live, &live};
        reason = mdb_put(transaction, backend->metadata, &key, &value, 0);
    }
    if (reason == 0) reason = lmdb_read_figures(backend, transaction, &used, &records);
    if (reason != 0) {
        mdb_txn_abort(transaction);
    } else {
        reason = mdb_txn_commit(transaction);
        if (reason == EIO && is_disk_full(backend)) reason = ENOSPC;
        // The kernel may have dropped pages of earlier transactions too. If there is no room, it is only this one's.
        if (reason == EIO) fail_syncs(backend, reason);
    }
    if (reason == 0) {
        lmdb_store_figures(backend, used, records, live);
        __atomic_add_fetch(&backend->written, 1, __ATOMIC_ACQ_REL);
    }
    pthread_mutex_unlock(&backend->write_lock);
    return reason;
}

int lmdb_sync(struct backend *backend) {
    int failure = __atomic_load_n(&backend->sync_failure, __ATOMIC_ACQUIRE);
    uint64_t wanted = load_figure(&backend->written);
    if (failure != 0 || load_figure(&backend->synced) >= wanted) return failure;
    pthread_mutex_lock(&backend->sync_lock);
    if (load_figure(&backend->synced) < wanted && backend->sync_failure == 0) {
        uint64_t covered = load_figure(&backend->written);
        // What a failed sync has dropped, a later one would not write: the failure stays.
        int reason = mdb_env_sync(backend->env, 1);
        __atomic_store_n(&backend->sync_failure, reason, __ATOMIC_RELEASE);
        if (reason == 0) store_figure(&backend->synced, covered);
    }
    failure = backend->sync_failure;
    pthread_mutex_unlock(&backend->sync_lock);
    return failure;
}

// ---- Blob and metadata ----

// Stores one value and makes it durable.
static int store_value(struct backend *backend, const char *name, const void *bytes, uint64_t size) {
    MDB_txn *transaction = NULL;
    MDB_val key = lmdb_text_key(name), value = {size, (void *)bytes};
    int reason = lmdb_begin_write(backend, &transaction);
    if (reason != 0) return reason;
    reason = mdb_put(transaction, backend->metadata, &key, &value, 0);
    reason = lmdb_end_write(backend, transaction, reason, 0);
    return reason != 0 ? reason : lmdb_sync(backend);
}

// Begins a read transaction and finds one value in it; MDB_NOTFOUND if there is none or it is empty.
static int find_value(struct backend *backend, const char *name, MDB_txn **transaction, MDB_val *value) {
    MDB_val key = lmdb_text_key(name);
    int reason = mdb_txn_begin(backend->env, NULL, MDB_RDONLY, transaction);
    if (reason != 0) return reason;
    reason = mdb_get(*transaction, backend->metadata, &key, value);
    if (reason == 0 && value->mv_size == 0) reason = MDB_NOTFOUND;
    if (reason != 0) mdb_txn_abort(*transaction);
    return reason;
}

static int32_t backend_store_blob(void *handle, const void *bytes, uint64_t size, struct apus_error *error) {
    return lmdb_answer(store_value(handle, "blob", bytes, size), "store the blob", error);
}

static int32_t backend_load_blob(void *handle, apus_sink sink, void *sink_context, struct apus_error *error) {
    MDB_txn *transaction = NULL;
    MDB_val value;
    int reason = find_value(handle, "blob", &transaction, &value);
    if (reason == MDB_NOTFOUND) return APUS_DONE;
    if (reason != 0) return lmdb_answer(reason, "load the blob", error);
    sink(sink_context, value.mv_data, value.mv_size);
    mdb_txn_abort(transaction);
    return APUS_DONE;
}

// All partitions stand in one value: for each its size in two bytes, low one first, and its bytes.
static int32_t backend_store_metadata(
    void *handle, const struct apus_bytes *partitions, uint32_t count, struct apus_error *error) {
    uint64_t size = 0;
    for (uint32_t number = 0; number < count; number++) size += 2 + partitions[number].size;
    uint8_t *all = malloc(size + 1);
    if (all == NULL) return lmdb_answer(ENOMEM, "store metadata", error);
    uint8_t *end = all;
    for (uint32_t number = 0; number < count; number++) {
        uint64_t part = partitions[number].size;
        assert(part <= APUS_METADATA_SIZE_MAX);
        *end++ = (uint8_t)part;
        *end++ = (uint8_t)(part >> 8);
        if (part > 0) memcpy(end, partitions[number].bytes, part);
        end += part;
    }
    int reason = store_value(handle, "partitions", all, size);
    free(all);
    return lmdb_answer(reason, "store metadata", error);
}

static int32_t backend_load_metadata(void *handle, apus_sink sink, void *sink_context, struct apus_error *error) {
    MDB_txn *transaction = NULL;
    MDB_val value;
    int reason = find_value(handle, "partitions", &transaction, &value);
    if (reason == MDB_NOTFOUND) return APUS_DONE;
    if (reason != 0) return lmdb_answer(reason, "load metadata", error);
    const uint8_t *next = value.mv_data, *end = next + value.mv_size;
    while (end - next >= 2) {
        uint32_t size = (uint32_t)(next[0] | next[1] << 8);
        if (size > end - next - 2) break;
        sink(sink_context, next + 2, size);
        next += 2 + size;
    }
    bool is_whole = next == end;
    mdb_txn_abort(transaction);
    return is_whole ? APUS_DONE : lmdb_answer(MDB_CORRUPTED, "load metadata", error);
}

// ---- The struct ----

static const struct apus_setting settings[] = {
    {.name = "map-size", .kind = APUS_SETTING_SIZE, .default_text = "16G",
     .minimum = 4 * MIB, .maximum = 64 * KIB * KIB * MIB,
     .help = "capacity in bytes: the data file grows up to it, pages that come free are used again"},
};

static const struct apus_backend backend_table = {
    .magic = APUS_BACKEND_MAGIC,
    .size = sizeof(struct apus_backend),
    .version_major = APUS_VERSION_MAJOR,
    .version_minor = APUS_VERSION_MINOR,
    .name = "lmdb",
    .format_min = 1,
    .format_max = 1,
    .capabilities = APUS_KEYED | APUS_BLOCKING | APUS_DURABLE_AT_COMMIT | APUS_DELETES_LAST,
    .medium = APUS_MEDIUM_DIRECTORY,
    .image_size_max = 8 * MIB,
    .location_bits = APUS_LOCATION_BITS,
    .atomic_write_size = 0,
    .settings = settings,
    .setting_count = sizeof settings / sizeof *settings,
    .open = lmdb_open,
    .close = lmdb_close,
    .make_shard = shard_make,
    .end_shard = shard_end,
    .append = shard_append,
    .read = shard_read,
    .remove = shard_remove,
    .commit = shard_commit,
    .poll = shard_poll,
    .turn_ended = shard_turn_ended,
    .scan = lmdb_scan,
    .load_blob = backend_load_blob,
    .store_blob = backend_store_blob,
    .load_metadata = backend_load_metadata,
    .store_metadata = backend_store_metadata,
    .statistics = backend_statistics,
};

const struct apus_backend *apus_backend_entry(void) { return &backend_table; }
