// libpmem, and the one call of the system for memory in files that Swift's Glibc does not have: statfs.
#include <libpmem.h>
#include <sys/statfs.h>
