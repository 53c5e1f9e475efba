// What the reactor needs of the system and Swift cannot name: epoll, eventfd, sockets with their options,
// affinity, threads, clocks, and the crash report.
#ifndef APUS_CREACTOR_H
#define APUS_CREACTOR_H
// No _GNU_SOURCE in here: with it types of the system (fd_set) differ from those that Swift's Glibc sees.
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline int apus_epoll_add(int epoll, int descriptor, uint32_t events, uint64_t token) {
    struct epoll_event event = {.events = events, .data.u64 = token};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event);
}
static inline int apus_epoll_change(int epoll, int descriptor, uint32_t events, uint64_t token) {
    struct epoll_event event = {.events = events, .data.u64 = token};
    return epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event);
}
static inline uint32_t apus_event_flags(const struct epoll_event *event) { return event->events; }
static inline uint64_t apus_event_token(const struct epoll_event *event) { return event->data.u64; }

enum {
    APUS_READABLE = EPOLLIN,
    APUS_EDGE = EPOLLET,
    APUS_WRITABLE = EPOLLOUT,
    APUS_PEER_CLOSED = EPOLLRDHUP,
    APUS_BROKEN = EPOLLERR | EPOLLHUP,
};

static inline int apus_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
// Accepts without blocking; -1 and errno if there is nobody.
int apus_accept(int listener);

static inline uint64_t apus_clock_nanoseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    if (now.tv_sec < 0) return 0;  // a wall clock before 1970
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
static inline uint64_t apus_monotonic_nanoseconds(void) { return apus_clock_nanoseconds(CLOCK_MONOTONIC); }
static inline uint64_t apus_wall_nanoseconds(void) { return apus_clock_nanoseconds(CLOCK_REALTIME); }

// Options of an accepted socket: no delay, keep-alive after 60 s idle every 60 s, twice.
void apus_socket_prepare(int descriptor);
// A listening socket on a numeric address; -1 and errno if that fails. `port` 0 takes a free one.
// With a backlog below 0 it is bound only, and refuses connections until `listen`.
int apus_listen(const char *address, uint16_t port, int backlog);
// The port a socket is bound to, 0 if it has none.
uint16_t apus_bound_port(int descriptor);
// Connects to a numeric address or a name; non-blocking without delay; -1 and errno if that fails or takes
// too long. errno 0: the name has no address.
int apus_connect(const char *host, uint16_t port, int timeout_milliseconds);
// Begins to connect to a numeric address; non-blocking without delay; -1 and errno if that fails at once. The socket is
// writable when the connection stands or has failed: apus_socket_error tells.
int apus_connect_begin(const char *address, uint16_t port);
// What became of it, 0 if nothing is wrong; an errno.
int apus_socket_error(int descriptor);
// The numeric address of the other end (64 bytes at least) and its port; 0 if there is none.
uint16_t apus_peer(int descriptor, char *address);
// Looks a name up: up to `max` numeric addresses of 64 bytes each. How many there are; 0 if none. Blocks.
int apus_resolve(const char *name, char *addresses, int max);

// A socket that receives the datagrams of a group on a port, and sends with this time to live, through the interface that
// has `interface` (numeric; empty for the system's choice); hears what it sends itself. -1 and errno.
int apus_group_join(const char *group, uint16_t port, const char *interface, int time_to_live);
// Sends a datagram to the group; 0 or errno.
int apus_group_send(int descriptor, const char *group, uint16_t port, const void *bytes, size_t count);
// Receives a datagram: its bytes, and where it came from (64 bytes at least). -1 if there is none.
ssize_t apus_group_receive(int descriptor, void *bytes, size_t max, char *address, uint16_t *port);

// 1 when there is something to read, 0 after the time.
int apus_wait_readable(int descriptor, int timeout_milliseconds);
// CPU time that a process has used, all its threads, in nanoseconds; 0 if it cannot be told.
uint64_t apus_process_nanoseconds(int process);
// Pins the calling thread to a processor; 0 or errno.
int apus_pin_thread(int processor);
// The processors this process may use: how many, and the first `max` of their numbers in `ids`.
int apus_processors(int *ids, int max);
void apus_name_thread(const char *name);
// Asks the scheduler to let the calling thread run soon after it wakes up, before threads that compute for long.
void apus_prefer_latency(void);

// On SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE and SIGABRT: writes the signal, the request at hand and a
// backtrace to `log` and to standard error, then lets the process die of the signal. SIGPIPE is ignored.
void apus_crash_install(int log);
// Where this thread keeps the request at hand: word 0 its address (0 for none), word 1 its bytes.
void apus_crash_watch(const uint64_t *words);

#endif
