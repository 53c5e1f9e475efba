// What Swift needs of liburing and of the system to work with block devices. No header of the system is seen through this
// one: liburing's asks for other definitions of it than Swift's Glibc has.
#ifndef APUS_CURING_H
#define APUS_CURING_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- Rings: functions that can fail return 0, or -errno ----

struct apus_ring;

// A completion as the kernel hands it over.
struct apus_ring_end {
    uint64_t token;
    int32_t result;
};

// What a submission is about: `file` counts registered files if `is_fixed`, else it is a descriptor; `buffer` is the number
// of registered memory that holds all of it, or -1.
struct apus_ring_transfer {
    void *address;
    uint64_t offset;
    uint64_t token;
    uint32_t byte_count;
    int32_t file;
    int32_t buffer;
    bool is_fixed;
};

// Makes a ring with room for that many entries; NULL and -errno in `failure`. Completions are finished in system calls of
// the thread that submitted (COOP_TASKRUN, since 5.19), without interrupting it, and TASKRUN_FLAG says when such a call is
// due; older kernels interrupt. No flag binds the ring to a thread: DEFER_TASKRUN would, and did not save any CPU time.
struct apus_ring *apus_ring_open(unsigned submissions, unsigned completions, int *failure);
void apus_ring_close(struct apus_ring *ring);

int apus_ring_register_files(struct apus_ring *ring, const int *descriptors, unsigned count);
// Completions signal this eventfd from now on.
int apus_ring_register_signal(struct apus_ring *ring, int descriptor);
// An empty table for memory (since 5.19).
int apus_ring_register_table(struct apus_ring *ring, unsigned count);
// Registers memory under a number, in place of what was there; a NULL address takes it out.
int apus_ring_register_memory(struct apus_ring *ring, unsigned number, void *address, size_t byte_count);

// Each false if there is no room for another entry: submit, then try again.
bool apus_ring_read(struct apus_ring *ring, const struct apus_ring_transfer *transfer);
bool apus_ring_write(struct apus_ring *ring, const struct apus_ring_transfer *transfer, bool is_durable);
bool apus_ring_flush(struct apus_ring *ring, const struct apus_ring_transfer *transfer);
bool apus_ring_discard(struct apus_ring *ring, const struct apus_ring_transfer *transfer, uint64_t byte_count);

// Hands the kernel what has been filled, nothing if nothing was; what it refuses (EAGAIN, EBUSY, EINTR) stays for the next
// time.
void apus_ring_submit(struct apus_ring *ring);
// Finishes completions that wait for a system call of ours, if there are any.
void apus_ring_attend(struct apus_ring *ring);
// True when there are completions, or some wait for `apus_ring_attend`.
bool apus_ring_has_ends(const struct apus_ring *ring);
// Completions that `apus_ring_take` finds.
unsigned apus_ring_ready(const struct apus_ring *ring);
// Takes at most `max` completions; how many.
unsigned apus_ring_take(struct apus_ring *ring, struct apus_ring_end *ends, unsigned max);
// Whether completions from now on signal the eventfd; what completed before this call is seen after it.
void apus_ring_signal(struct apus_ring *ring, bool is_on);
// Waits until there is a completion, or for a time.
void apus_ring_wait(struct apus_ring *ring, int milliseconds);

// An eventfd whose reader sleeps until it is raised.
int apus_blocking_eventfd(void);
void apus_eventfd_sleep(int descriptor);
void apus_eventfd_raise(int descriptor);

// ---- Files and block devices: functions that can fail return -1 and set errno ----

enum apus_open_flags {
    APUS_OPEN_WRITES = 1,
    // Past the page cache.
    APUS_OPEN_DIRECT = 2,
    // Nobody else may use the block device; a file must not be there yet.
    APUS_OPEN_EXCLUSIVE = 4,
    APUS_OPEN_MAKES = 8,
};

struct apus_identity {
    uint64_t device;
    uint64_t inode;  // 0 for a block device: `device` is its own number then
    int64_t byte_count;
    bool is_file, is_directory, is_block_device;
};

int apus_device_open(const char *path, unsigned wanted);
// Switches an open file over to direct transfers.
int apus_go_direct(int descriptor);
// Locks the whole file for this opening of it; EAGAIN if another one has it locked.
int apus_lock_file(int descriptor);
void apus_unlock_file(int descriptor);
int apus_identity_of_path(const char *path, struct apus_identity *identity);
int apus_identity_of(int descriptor, struct apus_identity *identity);

int64_t apus_block_byte_count(int descriptor);
int apus_block_sector_size(int descriptor);
int apus_block_physical_size(int descriptor);
bool apus_block_is_read_only(int descriptor);
int apus_block_discard(int descriptor, uint64_t offset, uint64_t byte_count);
// Physical block size of the device under a file's file system (`device` a st_dev), as sysfs has it; -1 if it has none.
int apus_physical_size_under(uint64_t device);
// The alignment that direct transfers of a file need, of memory or of offsets, whichever is larger: 0 if there are no direct
// transfers, -1 if the kernel does not tell (it does since 6.1).
int apus_direct_alignment(int descriptor);
// Bytes that are free on the file system of an open file, without those that are kept for root.
int64_t apus_free_byte_count(int descriptor);

int apus_allocate(int descriptor, int64_t byte_count);
int apus_punch_hole(int descriptor, int64_t offset, int64_t byte_count);
int64_t apus_write_at(int descriptor, const void *bytes, size_t byte_count, int64_t offset, bool is_durable);

#endif
