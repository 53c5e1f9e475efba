#define _GNU_SOURCE
#include "CReactor.h"

#include <execinfo.h>
#include <poll.h>
#include <stdio.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

// ---- Sockets ----

int apus_accept(int listener) { return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); }

void apus_socket_prepare(int descriptor) {
    int on = 1, idle_seconds = 60, interval_seconds = 60, probes = 2;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(descriptor, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, &idle_seconds, sizeof idle_seconds);
    setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, &interval_seconds, sizeof interval_seconds);
    setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

int apus_listen(const char *address, uint16_t port, int backlog) {
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(address, NULL, &hints, &found) != 0) {
        errno = EINVAL;
        return -1;
    }
    int descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    if (descriptor >= 0) {
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (found->ai_family == AF_INET6) {
            setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
            ((struct sockaddr_in6 *)found->ai_addr)->sin6_port = htons(port);
        } else {
            ((struct sockaddr_in *)found->ai_addr)->sin_port = htons(port);
        }
        if (bind(descriptor, found->ai_addr, found->ai_addrlen) != 0 || (backlog >= 0 && listen(descriptor, backlog) != 0)) {
            int reason = errno;
            close(descriptor);
            descriptor = -1;
            errno = reason;
        }
    }
    freeaddrinfo(found);
    return descriptor;
}

uint16_t apus_bound_port(int descriptor) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    if (getsockname(descriptor, (struct sockaddr *)&address, &size) != 0) return 0;
    if (address.ss_family == AF_INET6) return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

static int connect_within(const struct addrinfo *target, int timeout_milliseconds) {
    int descriptor = socket(target->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return -1;
    int on = 1, reason = 0;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(descriptor, target->ai_addr, target->ai_addrlen) == 0) return descriptor;
    struct pollfd waiting = {.fd = descriptor, .events = POLLOUT};
    socklen_t size = sizeof reason;
    if (errno != EINPROGRESS) {
        reason = errno;
    } else if (poll(&waiting, 1, timeout_milliseconds) != 1) {
        reason = ETIMEDOUT;
    } else {
        getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &reason, &size);
    }
    if (reason == 0) return descriptor;
    close(descriptor);
    errno = reason;
    return -1;
}

int apus_connect(const char *host, uint16_t port, int timeout_milliseconds) {
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, service, &hints, &found) != 0) {
        errno = 0;
        return -1;
    }
    int descriptor = -1;
    for (const struct addrinfo *one = found; one != NULL && descriptor < 0; one = one->ai_next) {
        descriptor = connect_within(one, timeout_milliseconds);
    }
    int reason = errno;
    freeaddrinfo(found);
    errno = reason;
    return descriptor;
}

int apus_wait_readable(int descriptor, int timeout_milliseconds) {
    struct pollfd waiting = {.fd = descriptor, .events = POLLIN};
    return poll(&waiting, 1, timeout_milliseconds) == 1;
}

// ---- Threads ----

uint64_t apus_process_nanoseconds(int process) {
    clockid_t clock;
    if (clock_getcpuclockid(process, &clock) != 0) return 0;
    return apus_clock_nanoseconds(clock);
}

int apus_pin_thread(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    return pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

int apus_processors(int *ids, int max) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 0;
    int count = 0;
    for (int processor = 0; processor < CPU_SETSIZE; processor++) {
        if (!CPU_ISSET(processor, &set)) continue;
        if (count < max) ids[count] = processor;
        count++;
    }
    return count;
}

void apus_name_thread(const char *name) { pthread_setname_np(pthread_self(), name); }

void apus_prefer_latency(void) {
    // Time slices of 0.1 ms: since Linux 6.12 a thread with short slices that wakes up goes before one with longer
    // slices. Older kernels ignore the figure; nothing depends on it.
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = 48, .policy = SCHED_OTHER, .nice = getpriority(PRIO_PROCESS, 0), .runtime = 100000};
    (void)syscall(SYS_sched_setattr, 0, &attributes, 0);
}

// ---- Crash report: only what is safe in a signal handler ----

static int crash_log = -1;
static __thread const uint64_t *request_words;

void apus_crash_watch(const uint64_t *words) { request_words = words; }

static size_t append_text(char *line, size_t at, const char *text) {
    size_t count = strlen(text);
    memcpy(line + at, text, count);
    return at + count;
}

static size_t append_hex(char *line, size_t at, uint64_t value, int digits) {
    for (int digit = digits - 1; digit >= 0; digit--) {
        line[at++] = "0123456789abcdef"[(value >> (4 * digit)) & 15];
    }
    return at;
}

static void write_crash(int descriptor, const char *line, size_t count, void **frames, int depth) {
    if (descriptor < 0) return;
    if (write(descriptor, line, count) < 0) return;
    backtrace_symbols_fd(frames, depth, descriptor);
}

static void on_crash(int number, siginfo_t *info, void *context) {
    (void)context;
    char line[512];
    size_t at = append_text(line, 0, "CRITICAL (as): signal ");
    line[at++] = (char)('0' + number / 10);
    line[at++] = (char)('0' + number % 10);
    at = append_text(line, at, " at address 0x");
    at = append_hex(line, at, (uint64_t)(uintptr_t)info->si_addr, 16);
    if (request_words != NULL && request_words[0] != 0) {
        const uint8_t *request = (const uint8_t *)(uintptr_t)request_words[0];
        uint64_t count = request_words[1] < 64 ? request_words[1] : 64;
        at = append_text(line, at, ", executing the request ");
        for (uint64_t i = 0; i < count; i++) at = append_hex(line, at, request[i], 2);
    }
    at = append_text(line, at, ", backtrace:\n");
    void *frames[64];
    int depth = backtrace(frames, 64);
    write_crash(crash_log, line, at, frames, depth);
    if (crash_log != STDERR_FILENO) write_crash(STDERR_FILENO, line, at, frames, depth);
    signal(number, SIG_DFL);
    raise(number);
}

void apus_crash_install(int log) {
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGABRT};
    crash_log = log;
    void *frame[1];
    backtrace(frame, 1);  // loads what a backtrace needs before it is needed
    static uint8_t stack[64 << 10];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND | SA_NODEFER};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}
