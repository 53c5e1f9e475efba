#define _GNU_SOURCE
#include "CUring.h"

#include <liburing.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

struct apus_ring {
    struct io_uring ring;
};

// ---- Making ----

static int open_with(struct io_uring *ring, unsigned submissions, unsigned completions, unsigned flags) {
    struct io_uring_params parameters;
    memset(&parameters, 0, sizeof parameters);
    parameters.flags = IORING_SETUP_CQSIZE | flags;
    parameters.cq_entries = completions;
    return io_uring_queue_init_params(submissions, ring, &parameters);
}

struct apus_ring *apus_ring_open(unsigned submissions, unsigned completions, int *failure) {
    struct apus_ring *own = calloc(1, sizeof *own);
    *failure = -ENOMEM;
    if (own == NULL) return NULL;
    *failure = open_with(&own->ring, submissions, completions, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
    if (*failure == -EINVAL) *failure = open_with(&own->ring, submissions, completions, 0);
    if (*failure < 0) {
        free(own);
        return NULL;
    }
    // Completions that find no room are kept (5.5); READ, WRITE and FALLOCATE are there (5.6, when this feature came).
    unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_RW_CUR_POS;
    if ((own->ring.features & needed) == needed) return own;
    apus_ring_close(own);
    *failure = -ENOSYS;
    return NULL;
}

void apus_ring_close(struct apus_ring *own) {
    // The kernel takes a ring apart some time after it is closed, and would keep files open, and locked, until then.
    (void)io_uring_unregister_files(&own->ring);
    (void)io_uring_unregister_buffers(&own->ring);
    io_uring_queue_exit(&own->ring);
    free(own);
}

int apus_ring_register_files(struct apus_ring *own, const int *descriptors, unsigned count) {
    return io_uring_register_files(&own->ring, descriptors, count);
}
int apus_ring_register_signal(struct apus_ring *own, int descriptor) {
    return io_uring_register_eventfd(&own->ring, descriptor);
}
int apus_ring_register_table(struct apus_ring *own, unsigned count) {
    int result = io_uring_register_buffers_sparse(&own->ring, count);
    return result < 0 ? result : 0;
}
int apus_ring_register_memory(struct apus_ring *own, unsigned number, void *address, size_t byte_count) {
    struct iovec memory = {.iov_base = address, .iov_len = address == NULL ? 0 : byte_count};
    uint64_t tag = 0;
    int result = io_uring_register_buffers_update_tag(&own->ring, number, &memory, (const __u64 *)&tag, 1);
    return result < 0 ? result : 0;
}

// ---- Starting ----

static struct io_uring_sqe *fill(struct apus_ring *own, int operation, const struct apus_ring_transfer *transfer) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&own->ring);
    if (entry == NULL) return NULL;
    io_uring_prep_rw(operation, entry, transfer->file, transfer->address, transfer->byte_count, transfer->offset);
    if (transfer->buffer >= 0) entry->buf_index = (uint16_t)transfer->buffer;
    if (transfer->is_fixed) entry->flags |= IOSQE_FIXED_FILE;
    entry->user_data = transfer->token;
    return entry;
}

bool apus_ring_read(struct apus_ring *own, const struct apus_ring_transfer *transfer) {
    return fill(own, transfer->buffer >= 0 ? IORING_OP_READ_FIXED : IORING_OP_READ, transfer) != NULL;
}
bool apus_ring_write(struct apus_ring *own, const struct apus_ring_transfer *transfer, bool is_durable) {
    struct io_uring_sqe *entry = fill(own, transfer->buffer >= 0 ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE, transfer);
    if (entry == NULL) return false;
    if (is_durable) entry->rw_flags = RWF_DSYNC;
    return true;
}
bool apus_ring_flush(struct apus_ring *own, const struct apus_ring_transfer *transfer) {
    struct io_uring_sqe *entry = fill(own, IORING_OP_FSYNC, transfer);
    if (entry == NULL) return false;
    entry->fsync_flags = IORING_FSYNC_DATASYNC;
    return true;
}
bool apus_ring_discard(struct apus_ring *own, const struct apus_ring_transfer *transfer, uint64_t byte_count) {
    struct io_uring_sqe *entry = fill(own, IORING_OP_FALLOCATE, transfer);
    if (entry == NULL) return false;
    // This operation has its mode where others have a length, and its length where they have an address.
    entry->len = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    entry->addr = byte_count;
    return true;
}

void apus_ring_submit(struct apus_ring *own) {
    if (io_uring_sq_ready(&own->ring) != 0) (void)io_uring_submit(&own->ring);
}

// ---- Ending ----

static bool is_call_due(const struct io_uring *ring) {
    return (IO_URING_READ_ONCE(*ring->sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

void apus_ring_attend(struct apus_ring *own) {
    if (is_call_due(&own->ring)) (void)io_uring_get_events(&own->ring);
}
unsigned apus_ring_ready(const struct apus_ring *own) { return io_uring_cq_ready(&own->ring); }
bool apus_ring_has_ends(const struct apus_ring *own) {
    return io_uring_cq_ready(&own->ring) != 0 || is_call_due(&own->ring);
}

unsigned apus_ring_take(struct apus_ring *own, struct apus_ring_end *ends, unsigned max) {
    struct io_uring_cq *queue = &own->ring.cq;
    unsigned head = *queue->khead;
    unsigned count = io_uring_smp_load_acquire(queue->ktail) - head;
    if (count > max) count = max;
    for (unsigned i = 0; i < count; i++) {
        const struct io_uring_cqe *entry = &queue->cqes[(head + i) & queue->ring_mask];
        ends[i].token = entry->user_data;
        ends[i].result = entry->res;
    }
    if (count != 0) io_uring_smp_store_release(queue->khead, head + count);
    return count;
}

void apus_ring_signal(struct apus_ring *own, bool is_on) {
    io_uring_cq_eventfd_toggle(&own->ring, is_on);
    // The kernel looks at this switch after having put a completion there; we look for completions after having set it.
    if (is_on) atomic_thread_fence(memory_order_seq_cst);
}

void apus_ring_wait(struct apus_ring *own, int milliseconds) {
    struct pollfd waiting = {.fd = own->ring.ring_fd, .events = POLLIN};
    (void)poll(&waiting, 1, milliseconds);
}

int apus_blocking_eventfd(void) { return eventfd(0, EFD_CLOEXEC); }
void apus_eventfd_sleep(int descriptor) {
    eventfd_t count;
    (void)eventfd_read(descriptor, &count);
}
void apus_eventfd_raise(int descriptor) { (void)eventfd_write(descriptor, 1); }
