// The floor of a RocksDB read: rocksdb_get_pinned of random digests in a bare loop, over a database that the plugin
// has written, with the options that it uses. Usage: rocksdb_get DIRECTORY CACHE_BYTES SECONDS
// Prints nanoseconds of CPU per get.
#define _GNU_SOURCE
#include <rocksdb/c.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DIGEST = 20 };

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static rocksdb_t *open_like_the_plugin(const char *directory, size_t cache_bytes) {
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_uint64add_merge_operator(options);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
    rocksdb_block_based_table_options_t *tables = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_format_version(tables, 5);
    rocksdb_block_based_options_set_block_cache(tables, rocksdb_cache_create_lru(cache_bytes));
    rocksdb_block_based_options_set_filter_policy(tables, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_block_based_options_set_data_block_index_type(
        tables, rocksdb_block_based_table_data_block_index_type_binary_search_and_hash);
    rocksdb_block_based_options_set_data_block_hash_ratio(tables, 0.75);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(tables, 1);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(tables, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(tables, 1);
    rocksdb_options_set_block_based_table_factory(options, tables);
    char *error = NULL;
    rocksdb_t *database = rocksdb_open(options, directory, &error);
    if (error != NULL) {
        fprintf(stderr, "rocksdb_get: %s\n", error);
        exit(1);
    }
    return database;
}

int main(int count, char **arguments) {
    if (count != 4) return 64;
    rocksdb_t *database = open_like_the_plugin(arguments[1], strtoull(arguments[2], NULL, 10));
    rocksdb_readoptions_t *reading = rocksdb_readoptions_create();
    size_t keys = 0, room = 1 << 20;
    unsigned char *digests = malloc(room * DIGEST);
    rocksdb_iterator_t *iterator = rocksdb_create_iterator(database, reading);
    for (rocksdb_iter_seek_to_first(iterator); rocksdb_iter_valid(iterator); rocksdb_iter_next(iterator)) {
        size_t size;
        const char *key = rocksdb_iter_key(iterator, &size);
        if (size != DIGEST) continue;
        if (keys == room) digests = realloc(digests, (room *= 2) * DIGEST);
        memcpy(digests + keys++ * DIGEST, key, DIGEST);
    }
    rocksdb_iter_destroy(iterator);
    if (keys == 0) return 1;
    uint64_t random = 88172645463325252u, gets = 0, bytes = 0;
    double warm = seconds(CLOCK_MONOTONIC) + 1, end = 0, begun = 0;
    while (end == 0 || seconds(CLOCK_MONOTONIC) < end) {
        for (int i = 0; i < 1000; i++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            char *error = NULL;
            rocksdb_pinnableslice_t *found = rocksdb_get_pinned(
                database, reading, (const char *)digests + random % keys * DIGEST, DIGEST, &error);
            size_t size;
            if (found == NULL || error != NULL) return 1;
            bytes += (unsigned char)rocksdb_pinnableslice_value(found, &size)[0];
            rocksdb_pinnableslice_destroy(found);
        }
        gets += 1000;
        if (end == 0 && seconds(CLOCK_MONOTONIC) > warm) {
            end = seconds(CLOCK_MONOTONIC) + strtod(arguments[3], NULL);
            begun = seconds(CLOCK_THREAD_CPUTIME_ID);
            gets = 0;
        }
    }
    printf("%.0f\n", (seconds(CLOCK_THREAD_CPUTIME_ID) - begun) * 1e9 / (double)gets);
    rocksdb_close(database);
    return bytes == 0;
}
