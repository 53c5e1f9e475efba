// A struct of the next major version: refused, whatever else it says.
#include <apus_backend.h>

static const struct apus_backend table = {
    .magic = APUS_BACKEND_MAGIC, .size = sizeof table, .version_major = APUS_VERSION_MAJOR + 1, .name = "wrong-version"};

const struct apus_backend *apus_backend_entry(void) { return &table; }
