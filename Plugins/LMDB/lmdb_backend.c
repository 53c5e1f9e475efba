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

// Digests of stale images that are deleted in one transaction.
#define STALE_MAX 4096
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
    const char *hint = reason == MDB_READERS_FULL ? " (raise max-readers)" : "";
    error->number = reason > 0 ? reason : EIO;
    snprintf(error->text, sizeof error->text, "lmdb: %s (%s%s)", doing, mdb_strerror(reason), hint);
    return APUS_DEVICE;
}

static int32_t refuse(int32_t status, const char *sentence, struct apus_error *error) {
    snprintf(error->text, sizeof error->text, "%s", sentence);
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

// Reads the figures that a transaction leaves behind. Pages that are free count as free, wherever they lie.
static int read_figures(const struct backend *backend, MDB_txn *transaction, uint64_t *used, uint64_t *records) {
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

static void store_figures(struct backend *backend, uint64_t used, uint64_t records, uint64_t live) {
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

static MDB_val text_key(const char *text) {
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
        MDB_val key = text_key("live");
        MDB_val value = {sizeof live, &live};
        reason = mdb_put(transaction, backend->metadata, &key, &value, 0);
    }
    if (reason == 0) reason = read_figures(backend, transaction, &used, &records);
    if (reason != 0) {
        mdb_txn_abort(transaction);
    } else {
        reason = mdb_txn_commit(transaction);
    }
    if (reason == EIO && is_disk_full(backend)) reason = ENOSPC;
    if (reason == 0) {
        store_figures(backend, used, records, live);
        __atomic_add_fetch(&backend->written, 1, __ATOMIC_ACQ_REL);
    }
    pthread_mutex_unlock(&backend->write_lock);
    return reason;
}

int lmdb_sync(struct backend *backend) {
    uint64_t wanted = load_figure(&backend->written);
    if (load_figure(&backend->synced) >= wanted) return 0;
    pthread_mutex_lock(&backend->sync_lock);
    if (load_figure(&backend->synced) < wanted && backend->sync_failure == 0) {
        uint64_t covered = load_figure(&backend->written);
        // What a failed sync has dropped, a later one would not write: the failure stays.
        backend->sync_failure = mdb_env_sync(backend->env, 1);
        if (backend->sync_failure == 0) store_figure(&backend->synced, covered);
    }
    int reason = load_figure(&backend->synced) >= wanted ? 0 : backend->sync_failure;
    pthread_mutex_unlock(&backend->sync_lock);
    return reason;
}

// ---- Open and close ----

static void read_settings(struct backend *backend, const struct apus_open_request *request, unsigned *readers) {
    for (uint32_t number = 0; number < request->setting_count; number++) {
        const char *name = request->settings[number].name;
        const char *value = request->settings[number].value;
        if (strcmp(name, "map-size") == 0) backend->map_size = strtoull(value, NULL, 10);
        if (strcmp(name, "max-readers") == 0) *readers = (unsigned)strtoul(value, NULL, 10);
    }
}

// Opens the two databases and reads the figures.
static int open_databases(struct backend *backend) {
    MDB_txn *transaction = NULL;
    MDB_val key = text_key("live"), value = {0, NULL};
    uint64_t used = 0, records = 0, live = 0;
    int reason = mdb_txn_begin(backend->env, NULL, 0, &transaction);
    if (reason != 0) return reason;
    reason = mdb_dbi_open(transaction, "records", MDB_CREATE, &backend->records);
    if (reason == 0) reason = mdb_dbi_open(transaction, "metadata", MDB_CREATE, &backend->metadata);
    if (reason == 0) reason = read_figures(backend, transaction, &used, &records);
    if (reason == 0) reason = mdb_get(transaction, backend->metadata, &key, &value);
    if (reason == 0 && value.mv_size == sizeof live) memcpy(&live, value.mv_data, sizeof live);
    if (reason == MDB_NOTFOUND) reason = 0;
    if (reason != 0) {
        mdb_txn_abort(transaction);
        return reason;
    }
    reason = mdb_txn_commit(transaction);
    if (reason == 0) store_figures(backend, used, records, live);
    // What a process before this one has left unsynced, the first sync covers.
    backend->written = 1;
    return reason;
}

static int open_environment(struct backend *backend, const char *directory, unsigned readers) {
    // Reads are scattered, so reading ahead wastes memory; read transactions belong to shards and not to threads.
    // Each batch syncs its pages; the pages that point at them wait for a commit, which is what commits are for.
    unsigned flags = MDB_NORDAHEAD | MDB_NOTLS | MDB_NOMETASYNC;
    int stale = 0;
    int reason = mdb_env_set_mapsize(backend->env, backend->map_size);
    if (reason == 0) reason = mdb_env_set_maxreaders(backend->env, readers);
    if (reason == 0) reason = mdb_env_set_maxdbs(backend->env, 2);
    if (reason == 0) reason = mdb_env_open(backend->env, directory, flags, 0600);
    if (reason == 0) reason = mdb_reader_check(backend->env, &stale);
    if (reason == 0) reason = open_databases(backend);
    // The map is larger than asked for if the file is.
    MDB_envinfo info;
    if (reason == 0 && mdb_env_info(backend->env, &info) == 0) backend->map_size = info.me_mapsize;
    return reason;
}

static int32_t backend_open(const struct apus_open_request *request, void **handle, struct apus_error *error) {
    struct backend *backend = calloc(1, sizeof *backend);
    if (backend == NULL) return lmdb_answer(ENOMEM, "open", error);
    unsigned readers = 0;
    backend->log = request->log;
    backend->log_context = request->log_context;
    read_settings(backend, request, &readers);
    int32_t status = APUS_DONE;
    int reason = mdb_env_create(&backend->env);
    if (reason == 0) {
        reason = open_environment(backend, request->directory, readers);
        if (reason != 0) mdb_env_close(backend->env);
    }
    if (reason == MDB_INVALID || reason == MDB_VERSION_MISMATCH || reason == MDB_INCOMPATIBLE) {
        status = refuse(APUS_MEDIUM, "data.mdb is no LMDB file that this version can read", error);
    } else if (reason != 0) {
        status = lmdb_answer(reason, "open", error);
    }
    if (status != APUS_DONE) {
        free(backend);
        return status;
    }
    pthread_mutex_init(&backend->write_lock, NULL);
    pthread_mutex_init(&backend->sync_lock, NULL);
    *handle = backend;
    return APUS_DONE;
}

static int32_t backend_close(void *handle, struct apus_error *error) {
    struct backend *backend = handle;
    int reason = lmdb_sync(backend);
    mdb_env_close(backend->env);
    pthread_mutex_destroy(&backend->write_lock);
    pthread_mutex_destroy(&backend->sync_lock);
    free(backend);
    return lmdb_answer(reason, "sync at close", error);
}

// ---- Scan ----

// Part of a scan: where it is, and which images nobody wants.
struct scan {
    struct backend *backend;
    MDB_txn *snapshot;
    uint32_t stale_count;
    uint8_t stale[STALE_MAX][APUS_DIGEST_SIZE];
};

// Deletes the stale images, except those that were replaced since the scan has met them.
static int delete_stale(struct scan *scan) {
    struct backend *backend = scan->backend;
    MDB_txn *transaction = NULL;
    int64_t live = 0;
    if (scan->stale_count == 0) return 0;
    int reason = lmdb_begin_write(backend, &transaction);
    if (reason != 0) return reason;
    for (uint32_t number = 0; number < scan->stale_count && reason == 0; number++) {
        MDB_val key = digest_key(scan->stale[number]), met, now;
        reason = mdb_get(scan->snapshot, backend->records, &key, &met);
        if (reason == 0) reason = mdb_get(transaction, backend->records, &key, &now);
        bool is_same = reason == 0 && met.mv_size == now.mv_size && memcmp(met.mv_data, now.mv_data, now.mv_size) == 0;
        if (reason == MDB_NOTFOUND) reason = 0;
        if (!is_same) continue;
        live -= (int64_t)stored_size(now.mv_size);
        reason = mdb_del(transaction, backend->records, &key, NULL);
    }
    scan->stale_count = 0;
    return lmdb_end_write(backend, transaction, reason, live);
}

// Visits one image. Returns false if the scan is to stop.
static bool visit_one(struct scan *scan, MDB_val key, MDB_val value, apus_visit visit, void *visit_context) {
    struct apus_scanned image = {.digest = key.mv_data, .location = lmdb_next_version(scan->backend),
                                 .image = {value.mv_data, value.mv_size}};
    struct apus_replaced replaced = {0, 0};
    int32_t decision = visit(visit_context, &image, &replaced);
    if (decision == APUS_STALE) memcpy(scan->stale[scan->stale_count++], key.mv_data, APUS_DIGEST_SIZE);
    return decision != APUS_STOP;
}

// Visits the digests whose first two bytes, as a number, are from `first` up to but not `end`.
static int visit_range(struct scan *scan, uint32_t first, uint32_t end, apus_visit visit, void *visit_context) {
    uint8_t start[APUS_DIGEST_SIZE] = {(uint8_t)(first >> 8), (uint8_t)first};
    MDB_val key = digest_key(start), value;
    MDB_cursor *cursor = NULL;
    int reason = mdb_cursor_open(scan->snapshot, scan->backend->records, &cursor);
    if (reason != 0) return reason;
    reason = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (reason == 0 && key.mv_size == APUS_DIGEST_SIZE) {
        const uint8_t *digest = key.mv_data;
        if ((uint32_t)(digest[0] << 8 | digest[1]) >= end) break;
        if (!visit_one(scan, key, value, visit, visit_context)) break;
        if (scan->stale_count == STALE_MAX) reason = delete_stale(scan);
        if (reason == 0) reason = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return reason == MDB_NOTFOUND ? 0 : reason;
}

static int32_t backend_scan(
    void *handle, uint32_t segment, uint32_t count, apus_visit visit, void *visit_context, struct apus_error *error) {
    struct scan *scan = calloc(1, sizeof *scan);
    if (scan == NULL) return lmdb_answer(ENOMEM, "scan", error);
    scan->backend = handle;
    int reason = mdb_txn_begin(scan->backend->env, NULL, MDB_RDONLY, &scan->snapshot);
    if (reason == 0) {
        uint32_t first = (uint32_t)((uint64_t)segment * 65536 / count);
        uint32_t end = (uint32_t)((uint64_t)(segment + 1) * 65536 / count);
        reason = visit_range(scan, first, end, visit, visit_context);
        if (reason == 0) reason = delete_stale(scan);
        mdb_txn_abort(scan->snapshot);
    }
    free(scan);
    return lmdb_answer(reason, "scan", error);
}

// ---- Blob and metadata ----

// Stores one value and makes it durable.
static int store_value(struct backend *backend, const char *name, const void *bytes, uint64_t size) {
    MDB_txn *transaction = NULL;
    MDB_val key = text_key(name), value = {size, (void *)bytes};
    int reason = lmdb_begin_write(backend, &transaction);
    if (reason != 0) return reason;
    reason = mdb_put(transaction, backend->metadata, &key, &value, 0);
    reason = lmdb_end_write(backend, transaction, reason, 0);
    return reason != 0 ? reason : lmdb_sync(backend);
}

// Begins a read transaction and finds one value in it; MDB_NOTFOUND if there is none or it is empty.
static int find_value(struct backend *backend, const char *name, MDB_txn **transaction, MDB_val *value) {
    MDB_val key = text_key(name);
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
    {.name = "max-readers", .kind = APUS_SETTING_INTEGER, .default_text = "1024", .minimum = 16, .maximum = 65536,
     .help = "read transactions at a time: two for each storage thread, one for each part of a scan"},
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
    .image_size_max = 16 * MIB,
    .location_bits = APUS_LOCATION_BITS,
    .atomic_write_size = 0,
    .settings = settings,
    .setting_count = sizeof settings / sizeof *settings,
    .open = backend_open,
    .close = backend_close,
    .make_shard = shard_make,
    .end_shard = shard_end,
    .append = shard_append,
    .read = shard_read,
    .remove = shard_remove,
    .commit = shard_commit,
    .poll = shard_poll,
    .turn_ended = shard_turn_ended,
    .scan = backend_scan,
    .load_blob = backend_load_blob,
    .store_blob = backend_store_blob,
    .load_metadata = backend_load_metadata,
    .store_metadata = backend_store_metadata,
    .statistics = backend_statistics,
};

const struct apus_backend *apus_backend_entry(void) { return &backend_table; }
