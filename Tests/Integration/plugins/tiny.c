// `storage-engine tiny`: the smallest whole backend in C, to show the shape. Keyed and volatile: chains of images in ordinary memory
// under one lock. What is lent is a copy that belongs to the shard until its turn ends.
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
    struct bytes *blob;
    struct bytes *metadata[APUS_PARTITIONS];
    uint32_t partitions;
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

// Where the image of `digest` hangs, or where it would.
static struct bytes **find(struct tiny *tiny, const uint8_t *digest) {
    struct bytes **link = &tiny->chains[(digest[2] << 8 | digest[3]) % CHAINS];
    while (*link != NULL && memcmp((*link)->digest, digest, APUS_DIGEST_SIZE) != 0) link = &(*link)->next;
    return link;
}

// Hangs `image`, or nothing, where the old image of the digest is; the old one goes.
static uint64_t replace(struct tiny *tiny, const uint8_t *digest, struct bytes *image) {
    pthread_mutex_lock(&tiny->lock);
    struct bytes **link = find(tiny, digest), *old = *link;
    if (old != NULL) {
        *link = old->next;
        tiny->used -= old->size;
    }
    if (image != NULL) {
        image->next = *link;
        *link = image;
        tiny->used += image->size;
    }
    uint64_t version = ++tiny->versions;
    pthread_mutex_unlock(&tiny->lock);
    free(old);
    return version;
}

static int32_t tiny_open(const struct apus_open_request *request, void **backend, struct apus_error *error) {
    (void)request, (void)error;
    struct tiny *tiny = calloc(1, sizeof *tiny);
    if (tiny == NULL) return APUS_OUT_OF_SPACE;
    pthread_mutex_init(&tiny->lock, NULL);
    *backend = tiny;
    return APUS_DONE;
}

static int32_t tiny_close(void *backend, struct apus_error *error) {
    (void)error;
    struct tiny *tiny = backend;
    for (uint32_t chain = 0; chain < CHAINS; chain++)
        while (tiny->chains[chain] != NULL) {
            struct bytes *next = tiny->chains[chain]->next;
            free(tiny->chains[chain]);
            tiny->chains[chain] = next;
        }
    for (uint32_t number = 0; number < tiny->partitions; number++) free(tiny->metadata[number]);
    free(tiny->blob);
    free(tiny);
    return APUS_DONE;
}

static int32_t make_shard(void *backend, const struct apus_shard_request *request, void **made, struct apus_error *error) {
    (void)request, (void)error;
    struct shard *shard = calloc(1, sizeof *shard);
    if (shard == NULL) return APUS_OUT_OF_SPACE;
    shard->tiny = backend;
    *made = shard;
    return APUS_DONE;
}

static void turn_ended(void *handle, uint32_t sleeping) {
    (void)sleeping;
    struct shard *shard = handle;
    while (shard->lent != NULL) {
        struct bytes *next = shard->lent->next;
        free(shard->lent);
        shard->lent = next;
    }
}

static void end_shard(void *shard) {
    turn_ended(shard, 1);
    free(shard);
}

static int32_t append(void *shard, const uint8_t *digest, const void *image, uint64_t size, uint32_t stream, uint64_t tag,
                      uint64_t *location, struct apus_error *error) {
    (void)stream, (void)tag, (void)error;
    struct bytes *copy = copy_of(digest, image, size);
    if (copy == NULL) return APUS_OUT_OF_SPACE;
    *location = replace(((struct shard *)shard)->tiny, digest, copy);
    return APUS_DONE;
}

static int32_t read_image(void *handle, const uint8_t *digest, uint64_t location, uint64_t size, uint64_t tag,
                          struct apus_bytes *image, struct apus_error *error) {
    (void)location, (void)size, (void)tag, (void)error;
    struct shard *shard = handle;
    pthread_mutex_lock(&shard->tiny->lock);
    struct bytes *found = *find(shard->tiny, digest);
    struct bytes *copy = found == NULL ? NULL : copy_of(digest, found->content, found->size);
    pthread_mutex_unlock(&shard->tiny->lock);
    if (found == NULL) return APUS_ABSENT;
    if (copy == NULL) return APUS_OVERLOADED;
    copy->next = shard->lent;
    shard->lent = copy;
    *image = (struct apus_bytes){copy->content, copy->size};
    return APUS_DONE;
}

static int32_t remove_image(void *shard, const uint8_t *digest, uint64_t location, uint64_t tag, struct apus_error *error) {
    (void)location, (void)tag, (void)error;
    replace(((struct shard *)shard)->tiny, digest, NULL);
    return APUS_DONE;
}

static int32_t commit(void *shard, const uint8_t *digest, uint64_t tag, struct apus_error *error) {
    (void)shard, (void)digest, (void)tag, (void)error;
    return APUS_DONE;
}

static int32_t scan(void *backend, uint32_t segment, uint32_t count, apus_visit visit, void *context, struct apus_error *error) {
    (void)backend, (void)segment, (void)count, (void)visit, (void)context, (void)error;
    return APUS_DONE;
}

static int32_t load_blob(void *backend, apus_sink sink, void *context, struct apus_error *error) {
    (void)error;
    struct tiny *tiny = backend;
    if (tiny->blob != NULL) sink(context, tiny->blob->content, tiny->blob->size);
    return APUS_DONE;
}

static int32_t store_blob(void *backend, const void *bytes, uint64_t size, struct apus_error *error) {
    (void)error;
    struct tiny *tiny = backend;
    free(tiny->blob);
    tiny->blob = copy_of(NULL, bytes, size);
    return tiny->blob == NULL ? APUS_OUT_OF_SPACE : APUS_DONE;
}

static int32_t load_metadata(void *backend, apus_sink sink, void *context, struct apus_error *error) {
    (void)error;
    struct tiny *tiny = backend;
    for (uint32_t number = 0; number < tiny->partitions; number++)
        sink(context, tiny->metadata[number]->content, tiny->metadata[number]->size);
    return APUS_DONE;
}

static int32_t store_metadata(void *backend, const struct apus_bytes *parts, uint32_t count, struct apus_error *error) {
    (void)error;
    struct tiny *tiny = backend;
    while (tiny->partitions > 0) free(tiny->metadata[--tiny->partitions]);
    for (uint32_t number = 0; number < count; number++) {
        tiny->metadata[number] = copy_of(NULL, parts[number].bytes, parts[number].size);
        if (tiny->metadata[number] == NULL) return APUS_OUT_OF_SPACE;
        tiny->partitions = number + 1;
    }
    return APUS_DONE;
}

static void statistics(void *backend, struct apus_statistics *figures) {
    figures->used_bytes = __atomic_load_n(&((struct tiny *)backend)->used, __ATOMIC_RELAXED);
    figures->allocated_bytes = figures->used_bytes;
}

static const struct apus_backend table = {
    .magic = APUS_BACKEND_MAGIC, .size = sizeof table,
    .version_major = APUS_VERSION_MAJOR, .version_minor = APUS_VERSION_MINOR,
    .name = "tiny", .format_min = 1, .format_max = 1, .capabilities = APUS_KEYED | APUS_VOLATILE, .medium = APUS_MEDIUM_NONE,
    .image_size_max = 8 << 20, .location_bits = APUS_LOCATION_BITS,
    .open = tiny_open, .close = tiny_close, .make_shard = make_shard, .end_shard = end_shard,
    .append = append, .read = read_image, .remove = remove_image, .commit = commit, .turn_ended = turn_ended,
    .scan = scan, .load_blob = load_blob, .store_blob = store_blob,
    .load_metadata = load_metadata, .store_metadata = store_metadata, .statistics = statistics};

const struct apus_backend *apus_backend_entry(void) { return &table; }
