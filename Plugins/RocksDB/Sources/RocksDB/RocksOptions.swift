// How RocksDB is set up: point look-ups of 100 bytes to 1 MB, by keys that are all the same size and come in no order.
internal import CRocksDB
internal import Storage

/// Everything RocksDB wants before it opens. Lives as long as the database; freed with it.
struct RocksOptions {
    private static let writeBuffers: Int32 = 4
    /// Files that RocksDB keeps open; it opens others when it needs them, so that connections find descriptors too.
    private static let openFilesMax: Int32 = 500
    private static let tolerateBrokenTail: Int32 = 0
    private static let cutAtDamage: Int32 = 2
    let options: OpaquePointer
    let reading: OpaquePointer
    let scanning: OpaquePointer
    let writing: OpaquePointer
    let writingDurably: OpaquePointer
    private let environment: OpaquePointer
    private let cache: OpaquePointer

    init(_ settings: BackendSettings) {
        options = rocksdb_options_create()
        environment = rocksdb_create_default_env()
        cache = rocksdb_cache_create_lru(Int(settings.number("cache-size") ?? 256 << 20))
        reading = rocksdb_readoptions_create()
        scanning = rocksdb_readoptions_create()
        writing = rocksdb_writeoptions_create()
        writingDurably = rocksdb_writeoptions_create()
        rocksdb_writeoptions_set_sync(writingDurably, 1)
        // A scan reads everything once: it must not push out of the cache what is read often.
        rocksdb_readoptions_set_fill_cache(scanning, 0)
        rocksdb_readoptions_set_readahead_size(scanning, 2 << 20)
        setUpMemory(settings)
        setUpFiles(settings)
        setUpTables()
    }

    /// Bytes that may be in memory and not in the files yet.
    static func memoryMax(_ settings: BackendSettings) -> UInt64 {
        UInt64(writeBuffers) * (settings.number("write-buffer-size") ?? 64 << 20)
    }

    func free() {
        rocksdb_readoptions_destroy(reading)
        rocksdb_readoptions_destroy(scanning)
        rocksdb_writeoptions_destroy(writing)
        rocksdb_writeoptions_destroy(writingDurably)
        rocksdb_options_destroy(options)
        rocksdb_cache_destroy(cache)
        rocksdb_env_destroy(environment)
    }

    private func setUpMemory(_ settings: BackendSettings) {
        rocksdb_options_set_create_if_missing(options, 1)
        rocksdb_options_set_env(options, environment)
        rocksdb_options_set_write_buffer_size(options, Int(settings.number("write-buffer-size") ?? 64 << 20))
        rocksdb_options_set_max_write_buffer_number(options, RocksOptions.writeBuffers)
        rocksdb_options_set_max_background_jobs(options, Int32(settings.number("background-threads") ?? 2))
        // Merging files must not take the processor and the disk from requests.
        rocksdb_env_lower_thread_pool_cpu_priority(environment)
        rocksdb_env_lower_thread_pool_io_priority(environment)
        // The count of live bytes is kept by adding to it, see `RocksDatabase`.
        rocksdb_options_set_uint64add_merge_operator(options)
    }

    private func setUpFiles(_ settings: BackendSettings) {
        let compression: [String: Int] = [
            "none": rocksdb_no_compression, "lz4": rocksdb_lz4_compression, "zstd": rocksdb_zstd_compression,
        ]
        rocksdb_options_set_compression(options, Int32(compression[settings.text("compression") ?? "none"] ?? 0))
        rocksdb_options_set_max_open_files(options, RocksOptions.openFilesMax)
        // A record that a crash has cut short at the end of the log was not acknowledged. Damage before the end loses some
        // that were: then the operator decides, instead of RocksDB, which would say nothing.
        rocksdb_options_set_wal_recovery_mode(
            options, settings.text("damaged-log") == "cut" ? RocksOptions.cutAtDamage : RocksOptions.tolerateBrokenTail)
        rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1)
        // The system writes files out as they grow, not all at once when they are synced.
        rocksdb_options_set_bytes_per_sync(options, 1 << 20)
        rocksdb_options_set_info_log_level(options, 2)
        rocksdb_options_set_max_log_file_size(options, 16 << 20)
        rocksdb_options_set_keep_log_file_num(options, 3)
    }

    private func setUpTables() {
        guard let tables = rocksdb_block_based_options_create() else { preconditionFailure("out of memory") }
        rocksdb_block_based_options_set_format_version(tables, 5)
        rocksdb_block_based_options_set_block_cache(tables, cache)
        // With ten bits for each key, one look-up in a hundred reads a file in vain.
        rocksdb_block_based_options_set_filter_policy(tables, rocksdb_filterpolicy_create_bloom_full(10))
        rocksdb_block_based_options_set_data_block_index_type(
            tables, Int32(rocksdb_block_based_table_data_block_index_type_binary_search_and_hash))
        rocksdb_block_based_options_set_data_block_hash_ratio(tables, 0.75)
        // Indexes and filters live in the cache, so that `cache-size` is all the memory that files take.
        rocksdb_block_based_options_set_cache_index_and_filter_blocks(tables, 1)
        rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(tables, 1)
        rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(tables, 1)
        rocksdb_options_set_block_based_table_factory(options, tables)
        rocksdb_block_based_options_destroy(tables)
    }
}
