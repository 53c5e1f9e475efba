// Opening and closing a namespace's files. What is refused here would kill the process later: LMDB works on both
// files through memory, where a full disk or a file that was cut is no error but a SIGBUS.
#include "lmdb_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATA_FILE "/data.mdb"
#define LOCK_FILE "/lock.mdb"
#define PATH_SIZE 4096
// Fewest read transactions at a time; those of tools that look into the file are among them.
#define READERS_MIN 1024
// More than LMDB takes of lock.mdb for each of them, and for its head.
#define READER_SIZE 128
#define LOCK_HEAD_SIZE 4096

// Opening, step by step.
struct opening {
    struct backend *backend;
    const char *directory;
    unsigned readers;
    struct apus_error *error;
};

static void read_settings(struct opening *opening, const struct apus_open_request *request) {
    unsigned long threads = 0;
    for (uint32_t number = 0; number < request->setting_count; number++) {
        const char *name = request->settings[number].name;
        const char *value = request->settings[number].value;
        if (strcmp(name, "map-size") == 0) opening->backend->map_size = strtoull(value, NULL, 10);
        if (strcmp(name, "storage-threads") == 0) threads = strtoul(value, NULL, 10);
    }
    // Each storage thread has two, each segment of a scan one.
    opening->readers = (unsigned)(2 * threads) + SEGMENTS_MAX;
    if (opening->readers < READERS_MIN) opening->readers = READERS_MIN;
}

// ---- Files ----

// The path of a file in the directory; false if it is too long.
static bool make_path(const struct opening *opening, const char *file, char path[PATH_SIZE]) {
    return snprintf(path, PATH_SIZE, "%s%s", opening->directory, file) < PATH_SIZE;
}

// Allocates lock.mdb, which LMDB would leave with holes. Before LMDB has it open: closing a file gives up the
// process's locks on it.
static int allocate_lock_file(const struct opening *opening) {
    char path[PATH_SIZE];
    struct stat figures;
    off_t size = LOCK_HEAD_SIZE + (off_t)opening->readers * READER_SIZE;
    if (!make_path(opening, LOCK_FILE, path)) return ENAMETOOLONG;
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) return errno;
    int reason = fstat(file, &figures) != 0 ? errno : 0;
    if (reason == 0 && figures.st_size > size) size = figures.st_size;
    if (reason == 0) reason = posix_fallocate(file, 0, size);
    close(file);
    return reason;
}

// Makes durable that the files are there, and what a process before this one has left unsynced.
static int sync_files(const struct opening *opening) {
    int reason = mdb_env_sync(opening->backend->env, 1);
    if (reason != 0) return reason;
    int file = open(opening->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0) return errno;
    reason = fsync(file) != 0 ? errno : 0;
    close(file);
    return reason;
}

// Whether there is no data yet.
static bool is_new(const struct opening *opening) {
    char path[PATH_SIZE];
    struct stat figures;
    return make_path(opening, DATA_FILE, path) && (stat(path, &figures) != 0 ? errno == ENOENT : figures.st_size == 0);
}

// Takes back what a first opening that failed has left: half a head would be refused for ever.
static void remove_data(const struct opening *opening) {
    char path[PATH_SIZE];
    if (make_path(opening, DATA_FILE, path)) unlink(path);
}

// ---- data.mdb ----

// Counts the free pages from page `first` on.
static int count_free(struct backend *backend, size_t first, size_t *found) {
    MDB_txn *transaction = NULL;
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    int reason = mdb_txn_begin(backend->env, NULL, MDB_RDONLY, &transaction);
    if (reason != 0) return reason;
    // LMDB's own database of free pages: each value is a count, and so many page numbers.
    reason = mdb_cursor_open(transaction, 0, &cursor);
    if (reason == 0) reason = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    while (reason == 0) {
        const size_t *pages = value.mv_data;
        size_t room = value.mv_size / sizeof *pages;
        for (size_t number = 1; number < room && number <= pages[0]; number++) *found += pages[number] >= first;
        reason = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    if (cursor != NULL) mdb_cursor_close(cursor);
    mdb_txn_abort(transaction);
    return reason == MDB_NOTFOUND ? 0 : reason;
}

// Whether data.mdb has all its pages; MDB_CORRUPTED if not. It may end early: pages that one transaction took and gave
// back are never written. Then all that is behind the end must be free. The file is made longer first, so that nothing
// is read where there is no file.
static int check_size(struct backend *backend, uint64_t *size, uint64_t *needed) {
    MDB_envinfo info;
    MDB_stat sizes;
    struct stat figures;
    int file;
    int reason = mdb_env_get_fd(backend->env, &file);
    if (reason == 0) reason = mdb_env_info(backend->env, &info);
    if (reason == 0) reason = mdb_env_stat(backend->env, &sizes);
    if (reason != 0) return reason;
    if (fstat(file, &figures) != 0) return errno;
    *size = (uint64_t)figures.st_size;
    *needed = (uint64_t)(info.me_last_pgno + 1) * sizes.ms_psize;
    if (*size >= *needed) return 0;
    size_t first = *size / sizes.ms_psize, found = 0;
    if (ftruncate(file, (off_t)*needed) != 0) return errno;
    reason = count_free(backend, first, &found);
    if (reason == 0 && found == info.me_last_pgno + 1 - first) return 0;
    return ftruncate(file, (off_t)*size) != 0 ? errno : MDB_CORRUPTED;
}

// Opens the two databases and reads the figures.
static int open_databases(struct backend *backend) {
    MDB_txn *transaction = NULL;
    MDB_val key = lmdb_text_key("live"), value = {0, NULL};
    uint64_t used = 0, records = 0, live = 0;
    int reason = mdb_txn_begin(backend->env, NULL, 0, &transaction);
    if (reason != 0) return reason;
    reason = mdb_dbi_open(transaction, "records", MDB_CREATE, &backend->records);
    if (reason == 0) reason = mdb_dbi_open(transaction, "metadata", MDB_CREATE, &backend->metadata);
    if (reason == 0) reason = lmdb_read_figures(backend, transaction, &used, &records);
    if (reason == 0) reason = mdb_get(transaction, backend->metadata, &key, &value);
    if (reason == 0 && value.mv_size == sizeof live) memcpy(&live, value.mv_data, sizeof live);
    if (reason == MDB_NOTFOUND) reason = 0;
    if (reason != 0) {
        mdb_txn_abort(transaction);
        return reason;
    }
    reason = mdb_txn_commit(transaction);
    if (reason == 0) lmdb_store_figures(backend, used, records, live);
    return reason;
}

// ---- Open and close ----

// LMDB has met a damaged page where it knows no error: the process ends, but not without a word.
static void log_failed_assertion(MDB_env *env, const char *message) {
    const struct backend *backend = mdb_env_get_userctx(env);
    char line[400];
    snprintf(line, sizeof line, "lmdb: data.mdb is damaged, LMDB ends this process: %s", message);
    backend->log(backend->log_context, line);
}

static int set_up(const struct opening *opening) {
    MDB_env *env = opening->backend->env;
    int reason = mdb_env_set_mapsize(env, opening->backend->map_size);
    if (reason == 0) reason = mdb_env_set_maxreaders(env, opening->readers);
    if (reason == 0) reason = mdb_env_set_maxdbs(env, 2);
    if (reason == 0) reason = mdb_env_set_userctx(env, opening->backend);
    if (reason == 0) reason = mdb_env_set_assert(env, log_failed_assertion);
    return reason;
}

static int32_t open_data(const struct opening *opening) {
    struct backend *backend = opening->backend;
    // Reads are scattered, so reading ahead wastes memory; read transactions belong to shards and not to threads.
    // Each batch syncs its pages; the pages that point at them wait for a commit, which is what commits are for.
    unsigned flags = MDB_NORDAHEAD | MDB_NOTLS | MDB_NOMETASYNC;
    uint64_t size = 0, needed = 0;
    int stale = 0;
    int reason = mdb_env_open(backend->env, opening->directory, flags, 0600);
    if (reason == MDB_INVALID || reason == MDB_VERSION_MISMATCH || reason == MDB_INCOMPATIBLE)
        return lmdb_refuse(APUS_MEDIUM, reason, "cannot read", opening->directory, DATA_FILE, opening->error);
    if (reason == 0) reason = mdb_reader_check(backend->env, &stale);
    if (reason == 0) reason = check_size(backend, &size, &needed);
    if (reason == MDB_CORRUPTED) {
        snprintf(opening->error->text, sizeof opening->error->text,
                 "lmdb: '%s" DATA_FILE "' was cut: it has %llu bytes, %llu are needed", opening->directory,
                 (unsigned long long)size, (unsigned long long)needed);
        return APUS_MEDIUM;
    }
    if (reason == 0) reason = open_databases(backend);
    if (reason != 0) return lmdb_refuse(APUS_DEVICE, reason, "opening", opening->directory, DATA_FILE, opening->error);
    // The map is larger than asked for if the file is.
    MDB_envinfo info;
    if (mdb_env_info(backend->env, &info) == 0) backend->map_size = info.me_mapsize;
    return APUS_DONE;
}

static int32_t open_files(const struct opening *opening) {
    int reason = set_up(opening);
    if (reason != 0) return lmdb_refuse(APUS_DEVICE, reason, "setting up", opening->directory, "", opening->error);
    reason = allocate_lock_file(opening);
    if (reason != 0)
        return lmdb_refuse(APUS_DEVICE, reason, "allocating", opening->directory, LOCK_FILE, opening->error);
    int32_t status = open_data(opening);
    if (status != APUS_DONE) return status;
    reason = sync_files(opening);
    if (reason != 0) return lmdb_refuse(APUS_DEVICE, reason, "syncing", opening->directory, "", opening->error);
    return APUS_DONE;
}

int32_t lmdb_open(const struct apus_open_request *request, void **handle, struct apus_error *error) {
    struct backend *backend = calloc(1, sizeof *backend);
    if (backend == NULL) return lmdb_answer(ENOMEM, "open", error);
    struct opening opening = {.backend = backend, .directory = request->directory, .error = error};
    backend->log = request->log;
    backend->log_context = request->log_context;
    read_settings(&opening, request);
    int reason = mdb_env_create(&backend->env);
    int32_t status = lmdb_answer(reason, "open", error);
    if (reason == 0) {
        bool was_new = is_new(&opening);
        status = open_files(&opening);
        if (status != APUS_DONE) mdb_env_close(backend->env);
        if (status != APUS_DONE && was_new) remove_data(&opening);
    }
    if (status != APUS_DONE) {
        free(backend);
        return status;
    }
    pthread_mutex_init(&backend->write_lock, NULL);
    pthread_mutex_init(&backend->sync_lock, NULL);
    pthread_mutex_init(&backend->scan_lock, NULL);
    *handle = backend;
    return APUS_DONE;
}

int32_t lmdb_close(void *handle, struct apus_error *error) {
    struct backend *backend = handle;
    int reason = lmdb_sync(backend);
    mdb_env_close(backend->env);
    pthread_mutex_destroy(&backend->write_lock);
    pthread_mutex_destroy(&backend->sync_lock);
    pthread_mutex_destroy(&backend->scan_lock);
    free(backend);
    return lmdb_answer(reason, "sync at close", error);
}
