// A struct that is shorter than that of its version: refused. It really is shorter, so reading on would be wrong.
#include <apus_backend.h>

static const struct {
    uint64_t magic;
    uint32_t size;
    uint16_t version_major;
    uint16_t version_minor;
} table = {APUS_BACKEND_MAGIC, sizeof table, APUS_VERSION_MAJOR, APUS_VERSION_MINOR};

const struct apus_backend *apus_backend_entry(void) { return (const struct apus_backend *)(const void *)&table; }
