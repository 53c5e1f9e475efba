// `storage-engine liar`: what `tiny` was given, but it outlives its closing, in the file APUS_LIAR, and APUS_LIE says what
// is wrong with it when it is opened again: `forgets` a record, `invents` one, `changes` one, `loses` one that it has
// shown; or with appends: `hesitates` (every other one is too much), `breaks` (after 100). For tests of whoever has to
// notice.
#define apus_backend_entry tiny_entry
#include "tiny.c"
#undef apus_backend_entry
#include <stdio.h>

static int opened;
static unsigned appends, reads;

static int lies(const char *how) {
    const char *lie = getenv("APUS_LIE");
    return lie != NULL && strcmp(lie, how) == 0;
}

// The file holds three chains: images, blob, metadata. Each begins with its length; of each of its parts there are digest,
// size and bytes.
static void take(void *to, uint64_t size, FILE *file) {
    if (size > 0 && fread(to, size, 1, file) != 1) abort();
}

static void save_chain(const struct bytes *chain, FILE *file) {
    for (; chain != NULL; chain = chain->next) {
        fwrite(chain->digest, APUS_DIGEST_SIZE, 1, file);
        fwrite(&chain->size, sizeof chain->size, 1, file);
        fwrite(chain->content, chain->size, 1, file);
    }
}

static uint64_t length(const struct bytes *chain) {
    uint64_t parts = 0;
    for (; chain != NULL; chain = chain->next) parts++;
    return parts;
}

static struct bytes *load_part(FILE *file) {
    uint8_t digest[APUS_DIGEST_SIZE];
    uint64_t size;
    take(digest, sizeof digest, file);
    take(&size, sizeof size, file);
    struct bytes *part = copy_of(digest, NULL, 0);
    if (part == NULL || (part = realloc(part, sizeof *part + size)) == NULL) abort();
    part->size = size;
    take(part->content, size, file);
    return part;
}

static void load_file(struct tiny *tiny) {
    FILE *file = fopen(getenv("APUS_LIAR"), "rb");
    if (file == NULL) return;
    uint64_t parts;
    take(&parts, sizeof parts, file);
    for (; parts > 0; parts--) {
        struct bytes *image = load_part(file);
        replace(tiny, image->digest, image);
    }
    struct bytes **kept[] = {&tiny->blob, &tiny->metadata};
    for (int number = 0; number < 2; number++) {
        struct bytes **end = kept[number];
        take(&parts, sizeof parts, file);
        for (; parts > 0; parts--, end = &(*end)->next) *end = load_part(file);
    }
    fclose(file);
}

static int32_t close_liar(void *backend, struct apus_error *error) {
    struct tiny *tiny = backend;
    FILE *file = fopen(getenv("APUS_LIAR"), "wb");
    if (file == NULL) return APUS_DEVICE;
    uint64_t parts = 0;
    for (uint32_t chain = 0; chain < CHAINS; chain++) parts += length(tiny->chains[chain]);
    fwrite(&parts, sizeof parts, 1, file);
    for (uint32_t chain = 0; chain < CHAINS; chain++) save_chain(tiny->chains[chain], file);
    struct bytes *kept[] = {tiny->blob, tiny->metadata};
    for (int number = 0; number < 2; number++) {
        parts = length(kept[number]);
        fwrite(&parts, sizeof parts, 1, file);
        save_chain(kept[number], file);
    }
    if (fclose(file) != 0) return APUS_DEVICE;
    return close_tiny(backend, error);
}

static int32_t open_liar(const struct apus_open_request *request, void **backend, struct apus_error *error) {
    opened++;
    if (open_tiny(request, backend, error) != APUS_DONE) return APUS_OUT_OF_SPACE;
    load_file(*backend);
    return APUS_DONE;
}

static int32_t read_liar(
    void *handle, const uint8_t *digest, uint64_t location, uint64_t size, uint64_t tag, struct apus_bytes *image,
    struct apus_error *error) {
    if (lies("loses") && reads++ == 0) return APUS_ABSENT;
    return read_image(handle, digest, location, size, tag, image, error);
}

static uint32_t crc32c(const unsigned char *bytes, uint64_t size) {
    uint32_t crc = ~0u;
    for (uint64_t at = 0; at < size; at++) {
        crc ^= bytes[at];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    return ~crc;
}

// An image of another digest, or with another last byte, whose checksum fits.
static struct bytes *forged(const struct bytes *image, int digest, int payload) {
    struct bytes *copy = copy_of(image->digest, image->content, image->size);
    if (copy == NULL) abort();
    copy->digest[19] ^= digest;
    memcpy(copy->content + 8, copy->digest, APUS_DIGEST_SIZE);
    copy->content[copy->size - 1] ^= payload;
    uint32_t crc = crc32c(copy->content + 8, copy->size - 8);
    memcpy(copy->content + 4, &crc, sizeof crc);
    return copy;
}

static int32_t append_liar(
    void *shard, const uint8_t *digest, const void *image, uint64_t size, uint32_t stream, uint64_t tag,
    uint64_t *location, struct apus_error *error) {
    appends++;
    if (lies("hesitates") && appends % 2 == 1) return APUS_OVERLOADED;
    if (lies("breaks") && appends > 100) {
        snprintf(error->text, sizeof error->text, "the needle is broken");
        return APUS_DEVICE;
    }
    return append(shard, digest, image, size, stream, tag, location, error);
}

static int32_t scan_liar(
    void *backend, uint32_t segment, uint32_t count, apus_visit visit, void *context, struct apus_error *error) {
    struct tiny *tiny = backend;
    int is_first = segment == 0;
    for (uint32_t chain = 0; segment == 0 && chain < CHAINS; chain++)
        for (struct bytes *image = tiny->chains[chain]; image != NULL; image = image->next) {
            struct bytes *forgery = is_first && lies("invents") ? forged(image, 1, 0) : NULL;
            struct apus_replaced replaced;
            struct apus_scanned scanned = {image->digest, 1, {image->content, image->size}, 0};
            if (!is_first || !lies("forgets")) visit(context, &scanned, &replaced);
            if (forgery != NULL) {
                scanned = (struct apus_scanned){forgery->digest, 1, {forgery->content, forgery->size}, 0};
                visit(context, &scanned, &replaced);
                free(forgery);
            }
            if (is_first && opened > 1 && lies("changes")) {
                struct bytes *changed = forged(image, 0, 1);
                memcpy(image->content, changed->content, image->size);
                free(changed);
            }
            is_first = 0;
        }
    return APUS_DONE;
}

static struct apus_backend liar;

const struct apus_backend *apus_backend_entry(void) {
    liar = table;
    liar.name = "liar";
    liar.capabilities = APUS_KEYED;
    liar.open = open_liar;
    liar.close = close_liar;
    liar.append = append_liar;
    liar.read = read_liar;
    liar.scan = scan_liar;
    return &liar;
}
