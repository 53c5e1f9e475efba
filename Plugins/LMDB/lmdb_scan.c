// The scan, and how it notices that a damaged page has taken records with it: LMDB keeps no checksums, but it counts. If all
// segments of a scan saw the same snapshot, the images they met are as many as the snapshot has, or some are missing.
#include "lmdb_backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Digests of stale images that are deleted in one transaction.
#define STALE_MAX 4096

// Part of a scan: where it is, and which images nobody wants.
struct scan {
    struct backend *backend;
    MDB_txn *snapshot;
    uint64_t visited;
    // Entries that are no records, and whether the visitor has stopped the scan.
    uint64_t strange;
    bool is_stopped;
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

// Visits one image, and notes what comes of it.
static void visit_one(struct scan *scan, MDB_val key, MDB_val value, apus_visit visit, void *visit_context) {
    struct apus_scanned image = {.digest = key.mv_data, .location = lmdb_next_version(scan->backend),
                                 .image = {value.mv_data, value.mv_size}};
    struct apus_replaced replaced = {0, 0};
    int32_t decision = visit(visit_context, &image, &replaced);
    if (decision == APUS_STALE) memcpy(scan->stale[scan->stale_count++], key.mv_data, APUS_DIGEST_SIZE);
    scan->visited++;
    scan->is_stopped = decision == APUS_STOP;
}

// Visits the digests whose first two bytes, as a number, are from `first` up to but not `end`.
static int visit_range(struct scan *scan, uint32_t first, uint32_t end, apus_visit visit, void *visit_context) {
    uint8_t start[APUS_DIGEST_SIZE] = {(uint8_t)(first >> 8), (uint8_t)first};
    MDB_val key = digest_key(start), value;
    MDB_cursor *cursor = NULL;
    int reason = mdb_cursor_open(scan->snapshot, scan->backend->records, &cursor);
    if (reason != 0) return reason;
    reason = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (reason == 0) {
        const uint8_t *digest = key.mv_data;
        if (key.mv_size >= 2 && (uint32_t)(digest[0] << 8 | digest[1]) >= end) break;
        if (key.mv_size == APUS_DIGEST_SIZE) {
            visit_one(scan, key, value, visit, visit_context);
        } else {
            scan->strange++;
        }
        if (scan->is_stopped) break;
        if (scan->stale_count == STALE_MAX) reason = delete_stale(scan);
        if (reason == 0) reason = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return reason == MDB_NOTFOUND ? 0 : reason;
}

static void log_line(const struct backend *backend, const char *format, uint64_t number, uint64_t of) {
    char line[200];
    snprintf(line, sizeof line, format, (unsigned long long)number, (unsigned long long)of);
    backend->log(backend->log_context, line);
}

// Adds what a segment has met. The last one of a scan compares the sum with what the snapshot should have.
static void count_segment(const struct scan *scan, uint32_t segment, uint32_t count, uint64_t entries) {
    struct backend *backend = scan->backend;
    struct scan_count *sum = &backend->scan_count;
    size_t snapshot = mdb_txn_id(scan->snapshot);
    if (count > SEGMENTS_MAX) return;
    pthread_mutex_lock(&backend->scan_lock);
    if (sum->snapshot != snapshot || sum->count != count)
        *sum = (struct scan_count){.snapshot = snapshot, .count = count};
    // Somebody else who scans the same snapshot meets the same.
    if (!sum->has_ended[segment]) {
        sum->has_ended[segment] = true;
        sum->ended++;
        sum->visited += scan->visited;
    }
    bool is_whole = sum->ended == count;
    uint64_t visited = sum->visited;
    if (is_whole) *sum = (struct scan_count){0};
    pthread_mutex_unlock(&backend->scan_lock);
    if (is_whole && visited != entries)
        log_line(backend, "lmdb: data.mdb is damaged: a scan has met %llu of its %llu records", visited, entries);
}

int32_t lmdb_scan(
    void *handle, uint32_t segment, uint32_t count, apus_visit visit, void *visit_context, struct apus_error *error) {
    struct scan *scan = calloc(1, sizeof *scan);
    MDB_stat figures = {0};
    if (scan == NULL) return lmdb_answer(ENOMEM, "scan", error);
    scan->backend = handle;
    int reason = mdb_txn_begin(scan->backend->env, NULL, MDB_RDONLY, &scan->snapshot);
    if (reason == 0) {
        uint32_t first = (uint32_t)((uint64_t)segment * 65536 / count);
        uint32_t end = (uint32_t)((uint64_t)(segment + 1) * 65536 / count);
        reason = visit_range(scan, first, end, visit, visit_context);
        if (scan->strange > 0)
            log_line(scan->backend, "lmdb: data.mdb is damaged: %llu of %llu entries are no records", scan->strange,
                     scan->strange + scan->visited);
        if (reason == 0) reason = mdb_stat(scan->snapshot, scan->backend->records, &figures);
        if (reason == 0 && !scan->is_stopped) count_segment(scan, segment, count, figures.ms_entries);
        if (reason == 0) reason = delete_stale(scan);
        mdb_txn_abort(scan->snapshot);
    }
    free(scan);
    return lmdb_answer(reason, "scan", error);
}
