// Sockets between nodes: streams that are dialled without waiting, and multicast groups.
#define _GNU_SOURCE
#include "CReactor.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

// The size of the address, 0 if the text is none.
static socklen_t parse(const char *text, uint16_t port, union address *result) {
    memset(result, 0, sizeof *result);
    if (inet_pton(AF_INET, text, &result->v4.sin_addr) == 1) {
        result->v4.sin_family = AF_INET;
        result->v4.sin_port = htons(port);
        return sizeof result->v4;
    }
    if (inet_pton(AF_INET6, text, &result->v6.sin6_addr) == 1) {
        result->v6.sin6_family = AF_INET6;
        result->v6.sin6_port = htons(port);
        return sizeof result->v6;
    }
    return 0;
}

static uint16_t print(const union address *from, char *text) {
    text[0] = 0;
    if (from->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &from->v4.sin_addr, text, 64);
        return ntohs(from->v4.sin_port);
    }
    if (from->any.sa_family != AF_INET6) return 0;
    inet_ntop(AF_INET6, &from->v6.sin6_addr, text, 64);
    return ntohs(from->v6.sin6_port);
}

// Closes it and keeps the reason.
static int give_up(int descriptor) {
    int reason = errno;
    close(descriptor);
    errno = reason;
    return -1;
}

int apus_connect_begin(const char *address, uint16_t port) {
    union address target;
    socklen_t size = parse(address, port, &target);
    if (size == 0) {
        errno = EINVAL;
        return -1;
    }
    int descriptor = socket(target.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return -1;
    apus_socket_prepare(descriptor);
    if (connect(descriptor, &target.any, size) == 0 || errno == EINPROGRESS) return descriptor;
    return give_up(descriptor);
}

int apus_socket_error(int descriptor) {
    int reason = 0;
    socklen_t size = sizeof reason;
    if (getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &reason, &size) != 0) return errno;
    return reason;
}

uint16_t apus_peer(int descriptor, char *address) {
    union address peer;
    socklen_t size = sizeof peer;
    if (getpeername(descriptor, &peer.any, &size) != 0) {
        address[0] = 0;
        return 0;
    }
    return print(&peer, address);
}

int apus_resolve(const char *name, char *addresses, int max) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(name, NULL, &hints, &found) != 0) return 0;
    int count = 0;
    for (const struct addrinfo *one = found; one != NULL && count < max; one = one->ai_next) {
        if (one->ai_addrlen > sizeof(union address)) continue;
        union address address;
        memset(&address, 0, sizeof address);
        memcpy(&address, one->ai_addr, one->ai_addrlen);
        print(&address, addresses + 64 * count);
        if (addresses[64 * count] != 0) count++;
    }
    freeaddrinfo(found);
    return count;
}

static int join_v4(int descriptor, const union address *group, const char *interface, int time_to_live) {
    struct ip_mreqn request = {.imr_multiaddr = group->v4.sin_addr};
    if (interface[0] != 0 && inet_pton(AF_INET, interface, &request.imr_address) != 1) {
        errno = EINVAL;
        return -1;
    }
    int yes = 1;
    if (setsockopt(descriptor, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request) != 0) return -1;
    if (setsockopt(descriptor, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request) != 0) return -1;
    if (setsockopt(descriptor, IPPROTO_IP, IP_MULTICAST_LOOP, &yes, sizeof yes) != 0) return -1;
    return time_to_live <= 0
        ? 0 : setsockopt(descriptor, IPPROTO_IP, IP_MULTICAST_TTL, &time_to_live, sizeof time_to_live);
}

static int join_v6(int descriptor, const union address *group, int time_to_live) {
    struct ipv6_mreq request = {.ipv6mr_multiaddr = group->v6.sin6_addr};
    int yes = 1;
    if (setsockopt(descriptor, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &request, sizeof request) != 0) return -1;
    if (setsockopt(descriptor, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, &yes, sizeof yes) != 0) return -1;
    return time_to_live <= 0
        ? 0 : setsockopt(descriptor, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &time_to_live, sizeof time_to_live);
}

int apus_group_join(const char *group, uint16_t port, const char *interface, int time_to_live) {
    union address place;
    socklen_t size = parse(group, port, &place);
    if (size == 0) {
        errno = EINVAL;
        return -1;
    }
    int descriptor = socket(place.any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return -1;
    int yes = 1;
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    // Bound to the group: datagrams to other groups on this port are not for us.
    if (bind(descriptor, &place.any, size) != 0) return give_up(descriptor);
    int joined = place.any.sa_family == AF_INET
        ? join_v4(descriptor, &place, interface, time_to_live) : join_v6(descriptor, &place, time_to_live);
    return joined == 0 ? descriptor : give_up(descriptor);
}

int apus_group_send(int descriptor, const char *group, uint16_t port, const void *bytes, size_t count) {
    union address target;
    socklen_t size = parse(group, port, &target);
    if (size == 0) return EINVAL;
    return sendto(descriptor, bytes, count, MSG_DONTWAIT, &target.any, size) < 0 ? errno : 0;
}

ssize_t apus_group_receive(int descriptor, void *bytes, size_t max, char *address, uint16_t *port) {
    union address from;
    socklen_t size = sizeof from;
    memset(&from, 0, sizeof from);
    ssize_t count = recvfrom(descriptor, bytes, max, MSG_DONTWAIT, &from.any, &size);
    *port = count < 0 ? 0 : print(&from, address);
    return count;
}
