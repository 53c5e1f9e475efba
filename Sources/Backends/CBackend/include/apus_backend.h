// The storage contract of Apus for backends that come as a shared object: C, C++, Rust, Swift (@c), whatever can fill
// in a struct of function pointers. Version 1.0.
//
// A plugin is one shared object with one exported symbol:
//
//     const struct apus_backend *apus_backend_entry(void);
//
// It returns a struct that never changes and lives as long as the process. The node checks it and refuses what does
// not fit; once it is accepted, the shared object is never unloaded. The node calls nothing else by name.
//
// TWO PLANES. The data plane (slots that take a `shard`) is called on one thread for each shard, never re-entered,
// and never blocks. The control plane (slots that take a `backend`) may block. A keyed backend whose data plane may
// block sets APUS_BLOCKING: then the node runs each shard on a storage thread of its own, and plain blocking calls are
// right. A round of calls there is: appends, reads, removes; poll; commits; poll; turn_ended. A shard may be made on
// another thread than the one that calls it. What one shard appended, every other shard can read, release and remove
// at once.
//
// TWO KINDS. A keyed backend (APUS_KEYED: B-trees, LSM trees) keeps one image for each digest: append replaces it,
// remove deletes it, a location is only a version that differs from those it gave before. An addressed one (logs)
// gives each image a location of its own and is told by release which images nobody wants any more.
//
// WHAT THE NODE PROMISES. It never has two appends or removes of one digest under way at a time, it starts none
// before the one before has answered, and it asks for no location that no append or scan of this backend has given
// it. Images and blobs are within the limits that stand here; a plugin need not check them.
//
// BYTES. What a slot is given is the plugin's to read until the slot returns: copy what must stay. What `read` and
// `poll` give the node is lent until the next turn_ended of that shard and may lie at any address, aligned or not.
// Nothing is freed across the border.
//
// FAILURE. Slots answer APUS_DONE, APUS_PENDING, APUS_ABSENT or one of the negative errors, and say more in `struct
// apus_error`. An answer that is not allowed there, a tag that is not under way, a location that is too wide: each
// becomes an error of that operation and a line in the node's log. C++ exceptions and longjmp must not leave a slot.
//
// CRASH. After a crash a backend may have lost whatever commit did not confirm, wholly or in part, image by image; it
// never gives bytes that were not appended for that digest. An image that a commit has confirmed is there until its
// successor or its deletion is durable: a release of the older image right after its successor was placed must not lose
// both. What one start has not shown no later start brings back.
//
// VERSION. Another major version is refused, and so is a newer minor one; an older minor one is accepted. Later minor
// versions only add slots at the end: `size` says how many there are. Not in version 1.0: compaction by the engine,
// backends over backends, settings of kind `backend`.
#ifndef APUS_BACKEND_H
#define APUS_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// "APUSBACK" in memory order on a little-endian machine.
#define APUS_BACKEND_MAGIC 0x4B43414253555041ULL
#define APUS_VERSION_MAJOR 1
#define APUS_VERSION_MINOR 0
#define APUS_ENTRY_SYMBOL "apus_backend_entry"

// ---- Limits ----

#define APUS_DIGEST_SIZE 20
// Most bits of a location.
#define APUS_LOCATION_BITS 44
// Largest namespace blob in bytes.
#define APUS_BLOB_SIZE_MAX 1048576
// Most partitions, and largest metadata of one in bytes.
#define APUS_PARTITIONS 4096
#define APUS_METADATA_SIZE_MAX 256
#define APUS_ERROR_TEXT_SIZE 240
#define APUS_DETAILS_MAX 16
#define APUS_SETTINGS_MAX 256

// ---- Answers ----

// It is done; what it gives back stands where the slot says.
#define APUS_DONE 0
// It goes on; poll ends it. Only from a backend with a poll, and never from an APUS_VOLATILE one.
#define APUS_PENDING 1
// read only: there is nothing of this digest.
#define APUS_ABSENT 2

// No room for another image. The client gets 8.
#define APUS_OUT_OF_SPACE (-1)
// Too much is under way. The client gets 18.
#define APUS_OVERLOADED (-2)
// More than the backend can hold in one piece; error.limit says how many bytes that is. The client gets 13.
#define APUS_TOO_LARGE (-3)
// What is stored there is not what was written; error.limit is not used. The client gets 1.
#define APUS_CORRUPT (-4)
// The medium failed: error.number is the errno (0 if there is none), error.text what was being done.
#define APUS_DEVICE (-5)
// The backend was closed.
#define APUS_CLOSED (-6)
// The settings do not make sense: error.text, one sentence for the operator.
#define APUS_SETTINGS (-7)
// The medium holds something else than what was asked for: error.text, one sentence for the operator.
#define APUS_MEDIUM (-8)
// The backend cannot do this: error.text says what.
#define APUS_UNSUPPORTED (-9)

// Zero when a slot is called; looked at only after a negative answer. The text is UTF-8 and ends at its first zero
// byte or at its end.
struct apus_error {
    int32_t number;
    uint32_t reserved;
    uint64_t limit;
    char text[APUS_ERROR_TEXT_SIZE];
};

// ---- Promises: bits of apus_backend.capabilities; the conformance kit holds a backend to every bit it sets ----

// What commit has confirmed survives a crash of process and machine.
#define APUS_DURABLE_AT_COMMIT 1u
// A released or removed image never comes back in a later scan: not after close, and if the backend is also durable
// at commit, not after a crash once a commit has covered it.
#define APUS_DELETES_LAST 2u
// Keeps one image for each digest.
#define APUS_KEYED 4u
// Its data plane may block. Only together with APUS_KEYED: on threads of its own an addressed backend could not be told
// of releases in order.
#define APUS_BLOCKING 8u
// Everything lives in ordinary memory and is gone with the process; nothing is ever pending. Not together with the
// two bits APUS_BLOCKING and APUS_DURABLE_AT_COMMIT.
#define APUS_VOLATILE 16u

// ---- Where a backend keeps what outlives the process: apus_backend.medium ----

#define APUS_MEDIUM_NONE 0u
// Files of its own in one directory that the node makes, locks and identifies: apus_open_request.directory.
#define APUS_MEDIUM_DIRECTORY 1u
// Somewhere else; the backend guards it itself.
#define APUS_MEDIUM_OWN 2u

// ---- Settings of its own, written inside `storage-engine <name> { ... }` ----

// `true` or `false`.
#define APUS_SETTING_BOOLEAN 1u
// A whole number from minimum to maximum.
#define APUS_SETTING_INTEGER 2u
// Bytes from minimum to maximum; the operator may write K, M, G, T.
#define APUS_SETTING_SIZE 3u
// Seconds from minimum to maximum; s, m, h, d.
#define APUS_SETTING_SECONDS 4u
// Milliseconds from minimum to maximum; s, m, h, d.
#define APUS_SETTING_MILLISECONDS 5u
// One of `words`.
#define APUS_SETTING_WORD 6u
// Any text.
#define APUS_SETTING_TEXT 7u
// Any text, and the setting may appear several times.
#define APUS_SETTING_LIST 8u

struct apus_setting {
    // a-z, 0-9 and -.
    const char *name;
    // APUS_SETTING_...
    uint32_t kind;
    uint32_t reserved;
    // The value if the operator writes none, in the words of the operator (`16G`); NULL or empty for none.
    const char *default_text;
    uint64_t minimum;
    uint64_t maximum;
    // Allowed words, ended by NULL; NULL for the other kinds.
    const char *const *words;
    // One line for the operator, unit included.
    const char *help;
};

// One setting as the operator wrote it or by default, in its plain form: bytes, seconds, milliseconds, `true`, text.
struct apus_value {
    const char *name;
    const char *value;
};

// ---- What the slots are given and give back ----

struct apus_bytes {
    const void *bytes;
    uint64_t size;
};

// Valid while open runs, except log and log_context: these until close has returned.
struct apus_open_request {
    const char *namespace_name;
    // With APUS_MEDIUM_DIRECTORY an existing directory for nothing but this backend's files; empty otherwise.
    const char *directory;
    // The backend's own settings and those that the node gives to every backend (`commit-to-device`), defaults filled in.
    const struct apus_value *settings;
    uint32_t setting_count;
    // What was negotiated: format to write, APUS_... bits.
    uint32_t format;
    uint32_t capabilities;
    // With APUS_MEDIUM_DIRECTORY the format of what is in the directory, `format` if it is new. If it is older than
    // `format`, open converts it, in a way that can be interrupted and begun again.
    uint32_t stored_format;
    // Writes a line to the node's log; an operator reads it. Any thread.
    void (*log)(void *log_context, const char *line);
    void *log_context;
};

// Valid while make_shard runs, except wake and wake_context: these until end_shard has returned.
struct apus_shard_request {
    // Which shard, from 0, and how many there will be.
    uint32_t index;
    uint32_t count;
    // Has the shard polled soon, also if its thread sleeps. Any thread; cheap if called often. To be called when an
    // operation has ended after turn_ended said `sleeping`.
    void (*wake)(void *wake_context);
    void *wake_context;
};

// The end of an operation that answered APUS_PENDING.
struct apus_completion {
    // What the operation was started with.
    uint64_t tag;
    // APUS_DONE, APUS_ABSENT (a read) or an error.
    int32_t status;
    uint32_t reserved;
    // An append: where the image is now.
    uint64_t location;
    // A read: the image, lent until the next turn_ended.
    struct apus_bytes image;
    struct apus_error error;
};

// One image met by a scan.
struct apus_scanned {
    const uint8_t *digest;
    uint64_t location;
    // As appended, not a byte more; lent for the call.
    struct apus_bytes image;
    // Order of writing; images that compaction moved keep theirs. Of several images of one digest the highest is the
    // newest. A keyed backend may say 0.
    uint64_t sequence;
};

// The other image that APUS_REPLACES is about.
struct apus_replaced {
    uint64_t location;
    uint64_t size;
};

// The index points at it now.
#define APUS_LIVE 0
// The index points at it now, and no longer at the image in `replaced`, which an earlier visit was told to be live.
#define APUS_REPLACES 1
// Nobody wants it: its space is free, a keyed backend deletes it, unless it was replaced meanwhile. What APUS_STALE and
// APUS_REPLACES release, the next commit of that digest covers. After the cold start's scan an addressed backend is told
// APUS_LIVE for every image.
#define APUS_STALE 2
// Stop scanning, and answer APUS_DONE.
#define APUS_STOP 3

// What scan calls for each image, on its own thread. Damaged images (the checksum in front of each image) are skipped and
// logged by the node: a plugin need not look for them.
typedef int32_t (*apus_visit)(void *visit_context, const struct apus_scanned *image, struct apus_replaced *replaced);

// How load_blob and load_metadata hand over what they have, on their own thread: the bytes are copied before it returns.
typedef void (*apus_sink)(void *sink_context, const void *bytes, uint64_t size);

// Pressure: nothing to report; writers should slow down; new operations are refused.
#define APUS_PRESSURE_NONE 0u
#define APUS_PRESSURE_HIGH 1u
#define APUS_PRESSURE_FULL 2u

// A figure of the backend's own for the operator. Name and value end at their first zero byte.
struct apus_detail {
    char name[32];
    char value[64];
};

// All zero when statistics is called.
struct apus_statistics {
    // Configured capacity in bytes; 0 if there is none.
    uint64_t total_bytes;
    // Bytes of live images, each rounded up to units of 16; a keyed backend that does not count them says 0.
    uint64_t used_bytes;
    // Bytes that could be appended before space runs out, whole free blocks only.
    uint64_t available_bytes;
    // Bytes taken from the medium or memory, garbage included.
    uint64_t allocated_bytes;
    uint64_t moved_images;
    uint64_t compacted_blocks;
    uint32_t pressure;
    uint32_t detail_count;
    struct apus_detail details[APUS_DETAILS_MAX];
};

// ---- The struct ----

// Slots marked (o) may be NULL; the others must be filled.
struct apus_backend {
    // APUS_BACKEND_MAGIC, sizeof(struct apus_backend), APUS_VERSION_MAJOR, APUS_VERSION_MINOR: as in the header it
    // was built with.
    uint64_t magic;
    uint32_t size;
    uint16_t version_major;
    uint16_t version_minor;

    // What the operator writes after `storage-engine`: a-z, 0-9 and -, at most 63 bytes.
    const char *name;
    // Formats of the medium it can read; it writes the highest.
    uint32_t format_min;
    uint32_t format_max;
    // APUS_DURABLE_AT_COMMIT | ...
    uint32_t capabilities;
    // APUS_MEDIUM_...
    uint32_t medium;
    // Largest image in bytes that it can hold, 28 bytes of envelope included: from 1,024 to 2^30. No image has
    // 2^24 bytes or more, whatever this says.
    uint64_t image_size_max;
    // How many bits of a location it uses: 1 to 44.
    uint32_t location_bits;
    // Smallest unit in bytes that reaches the medium whole or not at all, a power of two; 0 if nothing is promised.
    uint32_t atomic_write_size;
    // (o) Its settings, and how many.
    const struct apus_setting *settings;
    uint32_t setting_count;
    uint32_t reserved;

    // -- Control plane: several threads, but only scan and statistics overlap with other calls --

    // Opens one namespace and gives a handle of its own for it, not NULL. Several namespaces may be open at a time.
    int32_t (*open)(const struct apus_open_request *request, void **backend, struct apus_error *error);
    // Writes out what is under way and lets the medium go; everything that was placed is there at the next start.
    // Called once, also after an error; every shard was ended before. The handle is gone afterwards, whatever it
    // answers.
    int32_t (*close)(void *backend, struct apus_error *error);
    // One shard of the data plane: a handle of its own, not NULL.
    int32_t (*make_shard)(
        void *backend, const struct apus_shard_request *request, void **shard, struct apus_error *error);
    // The shard is not called any more; what was pending is forgotten. Once for each shard, from close on. Any thread.
    void (*end_shard)(void *shard);

    // -- Data plane: the shard's thread only --

    // Stores `size` bytes at `image`, an envelope with its payload and exactly as long as the envelope says; they are
    // copied before it returns. APUS_DONE: *location says where, and every shard can read it. stream is 0 for what a
    // client wrote, 1 for what compaction moved. After an error, from here or from poll, nothing has changed: a keyed
    // backend still has the image before. Only after an APUS_DEVICE from poll it may be either.
    int32_t (*append)(
        void *shard, const uint8_t *digest, const void *image, uint64_t size, uint32_t stream, uint64_t tag,
        uint64_t *location, struct apus_error *error);
    // Gives the image at `location` as appended, perhaps with more bytes behind it; `size` is what it was
    // appended with, rounded up to units of 16. While a read is under way, and until the turn in which it ended is over,
    // its location is not used for another image, even if it is released. A keyed backend may give a newer image of the
    // digest, and looks it up by the digest alone.
    int32_t (*read)(
        void *shard, const uint8_t *digest, uint64_t location, uint64_t size, uint64_t tag,
        struct apus_bytes *image, struct apus_error *error);
    // Keyed backends, (o) for others: deletes the image of `digest`; APUS_DONE if there was none. After an error the image
    // is still there.
    int32_t (*remove)(
        void *shard, const uint8_t *digest, uint64_t location, uint64_t tag, struct apus_error *error);
    // Addressed backends, (o) for others: nobody wants this image any more. Its space may be reused once every shard
    // has ended the turn it is in. It need not last: after a crash a scan may show the image again, unless the backend
    // promises APUS_DELETES_LAST.
    void (*release)(void *shard, const uint8_t *digest, uint64_t location, uint64_t size);
    // Makes durable what this shard has appended, released and removed of `digest` so far, as far as the backend promises
    // (APUS_DURABLE_AT_COMMIT); more may become durable with it. After an error it is unknown what lasts.
    int32_t (*commit)(void *shard, const uint8_t *digest, uint64_t tag, struct apus_error *error);
    // (o) if nothing is ever pending. Hands over operations that have ended, each once, in any order: fills in at most
    // `capacity` completions, which are zero before, and says how many. Called at least once in every turn in which
    // operations are under way. The node acts on the completions in the order in which they stand, after poll has
    // returned: on each it may call the other slots of the shard before it looks at the next. If poll filled all, it is
    // called again in the same turn, after these calls.
    uint32_t (*poll)(void *shard, struct apus_completion *completions, uint32_t capacity);
    // (o) A turn has ended: nothing lent by this shard is used any more. sleeping is 1 if the thread may now wait for
    // long.
    void (*turn_ended)(void *shard, uint32_t sleeping);
    // (o) APUS_PRESSURE_...: asked before every write, so cheap.
    uint32_t (*pressure)(void *shard);
    // (o) A hint that the image will be read.
    void (*prefetch)(void *shard, uint64_t location, uint64_t size);

    // -- Control plane again --

    // Visits what the medium holds: part `segment` of `count`, each on a thread of its own, also while the shards
    // work. Every image that is there during the whole scan of all parts is visited exactly once; images that come or go
    // meanwhile may be, and so may those that were overwritten or released, if the backend is addressed and does not
    // promise APUS_DELETES_LAST. A volatile backend visits nothing.
    int32_t (*scan)(
        void *backend, uint32_t segment, uint32_t count, apus_visit visit, void *visit_context,
        struct apus_error *error);
    // Calls the sink once with the namespace's blob as last stored, or not at all if there is none.
    int32_t (*load_blob)(void *backend, apus_sink sink, void *sink_context, struct apus_error *error);
    // Replaces the blob: after a crash it is the old or the new one; durable when it returns, if the backend is
    // durable at all.
    int32_t (*store_blob)(void *backend, const void *bytes, uint64_t size, struct apus_error *error);
    // Calls the sink once for each partition in order, as last stored; not at all if there is nothing.
    int32_t (*load_metadata)(void *backend, apus_sink sink, void *sink_context, struct apus_error *error);
    // Replaces the metadata of all partitions in one step: after a crash all are old or all are new; durable like the
    // blob.
    int32_t (*store_metadata)(
        void *backend, const struct apus_bytes *partitions, uint32_t count, struct apus_error *error);
    // Figures of now. Any thread, at any time until close; never blocks.
    void (*statistics)(void *backend, struct apus_statistics *statistics);
};

// What a plugin exports, also if it is built with hidden symbols.
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const struct apus_backend *apus_backend_entry(void);

#ifdef __cplusplus
}
#endif

#endif
