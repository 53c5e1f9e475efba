#define _GNU_SOURCE
#include "CUring.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

int apus_device_open(const char *path, unsigned wanted) {
    int flags = O_CLOEXEC | O_NOCTTY | ((wanted & APUS_OPEN_WRITES) ? O_RDWR : O_RDONLY);
    if (wanted & APUS_OPEN_DIRECT) flags |= O_DIRECT;
    if (wanted & APUS_OPEN_EXCLUSIVE) flags |= O_EXCL;
    if (wanted & APUS_OPEN_MAKES) flags |= O_CREAT;
    return open(path, flags, 0600);
}

int apus_go_direct(int descriptor) {
    int flags = fcntl(descriptor, F_GETFL);
    return flags < 0 ? -1 : fcntl(descriptor, F_SETFL, flags | O_DIRECT);
}

void apus_unlock_file(int descriptor) {
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    (void)fcntl(descriptor, F_OFD_SETLK, &lock);
}
int apus_lock_file(int descriptor) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(descriptor, F_OFD_SETLK, &lock);
}

static void apus_identity_fill(struct apus_identity *identity, const struct stat *found) {
    identity->is_file = S_ISREG(found->st_mode);
    identity->is_directory = S_ISDIR(found->st_mode);
    identity->is_block_device = S_ISBLK(found->st_mode);
    identity->device = identity->is_block_device ? found->st_rdev : found->st_dev;
    identity->inode = identity->is_block_device ? 0 : found->st_ino;
    identity->byte_count = found->st_size;
}
int apus_identity_of_path(const char *path, struct apus_identity *identity) {
    struct stat found;
    if (stat(path, &found) != 0) return -1;
    apus_identity_fill(identity, &found);
    return 0;
}
int apus_identity_of(int descriptor, struct apus_identity *identity) {
    struct stat found;
    if (fstat(descriptor, &found) != 0) return -1;
    apus_identity_fill(identity, &found);
    return 0;
}

int64_t apus_block_byte_count(int descriptor) {
    uint64_t byte_count = 0;
    return ioctl(descriptor, BLKGETSIZE64, &byte_count) == 0 ? (int64_t)byte_count : -1;
}
int apus_block_sector_size(int descriptor) {
    int size = 0;
    return ioctl(descriptor, BLKSSZGET, &size) == 0 ? size : -1;
}
int apus_block_physical_size(int descriptor) {
    unsigned size = 0;
    return ioctl(descriptor, BLKPBSZGET, &size) == 0 ? (int)size : -1;
}
bool apus_block_is_read_only(int descriptor) {
    int answer = 0;
    return ioctl(descriptor, BLKROGET, &answer) == 0 && answer != 0;
}
int apus_block_discard(int descriptor, uint64_t offset, uint64_t byte_count) {
    uint64_t range[2] = {offset, byte_count};
    return ioctl(descriptor, BLKDISCARD, range);
}

int apus_physical_size_under(uint64_t device) {
    // The second is for partitions.
    static const char *const places[] = {"queue", "../queue"};
    for (int i = 0; i < 2; i++) {
        char path[96];
        snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s/physical_block_size", major(device), minor(device), places[i]);
        FILE *file = fopen(path, "re");
        if (file == NULL) continue;
        int size = -1;
        int found = fscanf(file, "%d", &size);
        fclose(file);
        if (found == 1) return size;
    }
    return -1;
}

int apus_direct_alignment(int descriptor) {
#ifdef STATX_DIOALIGN
    struct statx found;
    memset(&found, 0, sizeof found);
    if (statx(descriptor, "", AT_EMPTY_PATH, STATX_DIOALIGN, &found) != 0) return -1;
    if (!(found.stx_mask & STATX_DIOALIGN)) return -1;
    uint32_t memory = found.stx_dio_mem_align, offset = found.stx_dio_offset_align;
    return (int)(memory > offset ? memory : offset);
#else
    (void)descriptor;
    return -1;
#endif
}

int64_t apus_free_byte_count(int descriptor) {
    struct statvfs found;
    if (fstatvfs(descriptor, &found) != 0) return -1;
    return (int64_t)((uint64_t)found.f_bavail * found.f_frsize);
}

int apus_allocate(int descriptor, int64_t byte_count) { return fallocate(descriptor, 0, 0, byte_count); }
int apus_punch_hole(int descriptor, int64_t offset, int64_t byte_count) {
    return fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, byte_count);
}

int64_t apus_write_at(int descriptor, const void *bytes, size_t byte_count, int64_t offset, bool is_durable) {
    struct iovec piece = {.iov_base = (void *)bytes, .iov_len = byte_count};
    return pwritev2(descriptor, &piece, 1, offset, is_durable ? RWF_DSYNC : 0);
}
