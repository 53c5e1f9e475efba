// A shared object that is no plugin: it does not export apus_backend_entry.
#include <apus_backend.h>

int apus_is_somewhere_else(void);
int apus_is_somewhere_else(void) { return APUS_VERSION_MAJOR; }
