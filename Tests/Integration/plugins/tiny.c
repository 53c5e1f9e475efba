// `storage-engine tiny`: the smallest whole backend in C, to show the shape. Keyed and volatile: chains of images in
// ordinary memory under one lock. What is lent is a copy that belongs to the shard until its turn ends.
#include <apus_backend.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CHAINS 65536

struct bytes {
    struct bytes *next;
    uint64_t size;
    uint8_t digest[APUS_DIGEST_SIZE];
    unsigned char content[];
};

struct tiny {
    pthread_mutex_t lock;
    struct bytes *chains[CHAINS];
    // Chains in order: the blob alone, the metadata of each partition.
    struct bytes *blob;
    struct bytes *metadata;
    uint64_t versions;
    uint64_t used;
};

struct shard {
    struct tiny *tiny;
    struct bytes *lent;
};

static struct bytes *copy_of(const uint8_t *digest, const void *content, uint64_t size) {
    struct bytes *copy = calloc(1, sizeof *copy + size);
    if (copy == NULL) return NULL;
    copy->size = size;
    if (digest != NULL) memcpy(copy->digest, digest, APUS_DIGEST_SIZE);
    if (size > 0) memcpy(copy->content, content, size);
    return copy;
}

static void free_chain(struct bytes *chain) {
    while (chain != NULL) {
        struct bytes *next = chain->next;
        free(chain);
        chain = next;
    }
}

// Where the image of `digest` hangs, or where it would.
static struct bytes **find(struct tiny *tiny, const uint8_t *digest) {
    struct bytes **link = &tiny->chains[(digest[2] << 8 | digest[3]) % CHAINS];
    while (*link != NULL && memcmp((*link)->digest, digest, APUS_DIGEST_SIZE) != 0) link = &(*link)->next;
    return link;
}

// Hangs `image`, or nothing, where the old image of the digest is; the old one goes. Returns a version.
static uint64_t replace(struct tiny *tiny, const uint8_t *digest, struct bytes *image) {
    pthread_mutex_lock(&tiny->lock);
    struct bytes **link = find(tiny, digest), *old = *link;
    tiny->used += (image == NULL ? 0 : image->size) - (old == NULL ? 0 : old->size);
    if (old != NULL) *link = old->next;
    if (image != NULL) {
        image->next = *link;
        *link = image;
    }
    uint64_t version = ++tiny->versions;
    pthread_mutex_unlock(&tiny->lock);
    free(old);
    return version;
}

// ---- The slots ----

static int32_t open_tiny(const struct apus_open_request *request, void **backend, struct apus_error *error) {
    struct tiny *tiny = *backend = calloc(1, sizeof *tiny);
    if (tiny == NULL) return APUS_OUT_OF_SPACE;
    pthread_mutex_init(&tiny->lock, NULL);
    return APUS_DONE;
}

static int32_t close_tiny(void *backend, struct apus_error *error) {
    struct tiny *tiny = backend;
    for (uint32_t chain = 0; chain < CHAINS; chain++) free_chain(tiny->chains[chain]);
    free_chain(tiny->blob);
    free_chain(tiny->metadata);
    free(tiny);
    return APUS_DONE;
}

static int32_t make_shard(
    void *backend, const struct apus_shard_request *request, void **made, struct apus_error *error) {
    struct shard *shard = *made = calloc(1, sizeof *shard);
    if (shard == NULL) return APUS_OUT_OF_SPACE;
    shard->tiny = backend;
    return APUS_DONE;
}

static void turn_ended(void *shard, uint32_t sleeping) {
    free_chain(((struct shard *)shard)->lent);
    ((struct shard *)shard)->lent = NULL;
}

static void end_shard(void *shard) {
    turn_ended(shard, 1);
    free(shard);
}

static int32_t append(
    void *shard, const uint8_t *digest, const void *image, uint64_t size, uint32_t stream, uint64_t tag,
    uint64_t *location, struct apus_error *error) {
    struct bytes *copy = copy_of(digest, image, size);
    if (copy == NULL) return APUS_OUT_OF_SPACE;
    *location = replace(((struct shard *)shard)->tiny, digest, copy);
    return APUS_DONE;
}

static int32_t read_image(
    void *handle, const uint8_t *digest, uint64_t location, uint64_t size, uint64_t tag, struct apus_bytes *image,
    struct apus_error *error) {
    struct shard *shard = handle;
    pthread_mutex_lock(&shard->tiny->lock);
    struct bytes *found = *find(shard->tiny, digest);
    struct bytes *copy = found == NULL ? NULL : copy_of(digest, found->content, found->size);
    pthread_mutex_unlock(&shard->tiny->lock);
    if (copy == NULL) return found == NULL ? APUS_ABSENT : APUS_OVERLOADED;
    copy->next = shard->lent;
    shard->lent = copy;
    image->bytes = copy->content;
    image->size = copy->size;
    return APUS_DONE;
}

static int32_t remove_image(
    void *shard, const uint8_t *digest, uint64_t location, uint64_t tag, struct apus_error *error) {
    replace(((struct shard *)shard)->tiny, digest, NULL);
    return APUS_DONE;
}

static int32_t commit(void *shard, const uint8_t *digest, uint64_t tag, struct apus_error *error) { return APUS_DONE; }

static int32_t scan(
    void *backend, uint32_t segment, uint32_t count, apus_visit visit, void *context, struct apus_error *error) {
    return APUS_DONE;
}

static int32_t load(const struct bytes *kept, apus_sink sink, void *context) {
    for (; kept != NULL; kept = kept->next) sink(context, kept->content, kept->size);
    return APUS_DONE;
}

// All or nothing: the old chain goes when the new one is whole.
static int32_t store(struct bytes **kept, const struct apus_bytes *parts, uint32_t count) {
    struct bytes *made = NULL, **end = &made;
    for (uint32_t number = 0; number < count; number++, end = &(*end)->next)
        if ((*end = copy_of(NULL, parts[number].bytes, parts[number].size)) == NULL) {
            free_chain(made);
            return APUS_OUT_OF_SPACE;
        }
    free_chain(*kept);
    *kept = made;
    return APUS_DONE;
}

static int32_t load_blob(void *backend, apus_sink sink, void *context, struct apus_error *error) {
    return load(((struct tiny *)backend)->blob, sink, context);
}

static int32_t store_blob(void *backend, const void *bytes, uint64_t size, struct apus_error *error) {
    return store(&((struct tiny *)backend)->blob, &(struct apus_bytes){bytes, size}, 1);
}

static int32_t load_metadata(void *backend, apus_sink sink, void *context, struct apus_error *error) {
    return load(((struct tiny *)backend)->metadata, sink, context);
}

static int32_t store_metadata(void *backend, const struct apus_bytes *parts, uint32_t count, struct apus_error *error) {
    return store(&((struct tiny *)backend)->metadata, parts, count);
}

static void statistics(void *backend, struct apus_statistics *figures) {
    figures->used_bytes = __atomic_load_n(&((struct tiny *)backend)->used, __ATOMIC_RELAXED);
}

static const struct apus_backend table = {
    .magic = APUS_BACKEND_MAGIC, .size = sizeof table,
    .version_major = APUS_VERSION_MAJOR, .version_minor = APUS_VERSION_MINOR,
    .name = "tiny", .format_min = 1, .format_max = 1, .capabilities = APUS_KEYED | APUS_VOLATILE,
    .medium = APUS_MEDIUM_NONE, .image_size_max = 8 << 20, .location_bits = APUS_LOCATION_BITS,
    .open = open_tiny, .close = close_tiny, .make_shard = make_shard, .end_shard = end_shard,
    .append = append, .read = read_image, .remove = remove_image, .commit = commit, .turn_ended = turn_ended,
    .scan = scan, .load_blob = load_blob, .store_blob = store_blob,
    .load_metadata = load_metadata, .store_metadata = store_metadata, .statistics = statistics,
};

const struct apus_backend *apus_backend_entry(void) { return &table; }
