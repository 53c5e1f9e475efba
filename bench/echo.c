// The floor of the benchmark: level-triggered epoll, one read and one write per wake-up, no thought. For
// every request of the client protocol (8-byte header with the size) it answers `answer` bytes.
// Usage: echo PORT ANSWER_BYTES PROCESSOR
#define _GNU_SOURCE
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 4096, BUFFER = 256 << 10 };
static uint8_t input[BUFFER], output[BUFFER * 4];
static size_t missing[CONNECTIONS];  // bytes of the last request of a connection that have not come yet

// Requests that end in these bytes. Headers are never cut in this benchmark: requests are small and written
// whole.
static size_t requests_in(const uint8_t *bytes, size_t count, size_t *rest) {
    size_t requests = 0, at = *rest;
    if (at > count) {
        *rest -= count;
        return 0;
    }
    if (at > 0) requests++;
    while (at < count) {
        uint64_t size;
        memcpy(&size, bytes + at, 8);
        at += 8 + (__builtin_bswap64(size) & 0xFFFFFFFFFFFF);
        if (at <= count) requests++;
    }
    *rest = at - count;
    return requests;
}

int main(int count, char **words) {
    if (count != 4) {
        fprintf(stderr, "usage: echo PORT ANSWER_BYTES PROCESSOR\n");
        return 64;
    }
    size_t answer = strtoul(words[2], NULL, 10);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(atoi(words[3]), &set);
    sched_setaffinity(0, sizeof set, &set);
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(atoi(words[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1024) != 0) {
        perror("echo");
        return 1;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int number = 0; number < ready; number++) {
            int socket = events[number].data.fd;
            if (socket == listener) {
                socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (socket < 0 || socket >= CONNECTIONS) return 1;
                setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                event = (struct epoll_event){.events = EPOLLIN, .data.fd = socket};
                missing[socket] = 0;
                epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event);
                continue;
            }
            ssize_t got = recv(socket, input, sizeof input, 0);
            if (got <= 0) {
                close(socket);
                continue;
            }
            size_t bytes = requests_in(input, (size_t)got, &missing[socket]) * answer;
            if (bytes > 0 && send(socket, output, bytes, MSG_NOSIGNAL) != (ssize_t)bytes) close(socket);
        }
    }
}
