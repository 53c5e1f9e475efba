// The contract for plugins is a header; this file has the compiler read it as C alone, and fixes what a plugin built
// elsewhere relies on.
#include "apus_backend.h"

_Static_assert(sizeof(struct apus_error) == 256, "the layout of version 1.0");
_Static_assert(sizeof(struct apus_completion) == 296, "the layout of version 1.0");
_Static_assert(sizeof(struct apus_statistics) == 56 + 96 * APUS_DETAILS_MAX, "the layout of version 1.0");
_Static_assert(offsetof(struct apus_backend, open) == 72 && sizeof(struct apus_backend) == 224,
               "the layout of version 1.0");
