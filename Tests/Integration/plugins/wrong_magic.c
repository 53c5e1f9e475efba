// A struct that does not begin with the magic number: refused.
#include <apus_backend.h>

static const struct apus_backend table = {
    .magic = 0x1122334455667788, .size = sizeof table, .version_major = APUS_VERSION_MAJOR, .name = "wrong-magic"};

const struct apus_backend *apus_backend_entry(void) { return &table; }
