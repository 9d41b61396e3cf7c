// infer/base/world_socket.c - collectives over sockets where no MPI is: rank 0 listens at the
// address that torchrun gives, hears everybody and answers everybody.
//
// For the few bytes that ranks with GPUs have to tell each other, and for CPU ranks of a machine or
// two: every sum goes through rank 0.
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "infer/base/hash.h"
#include "infer/base/log.h"
#include "infer/base/world_parts.h"

#define TURN ((int64_t)1 << 20) // floats added at once
// In front of what is sent, and of nothing: a sign of life.
static const char DATA = 'd', ALIVE = 'a';
static const double JOIN_S = 120.0;

static struct {
    int rank, size;
    int *peer;          // (size) rank 0: a socket by rank; others: peer[0] alone
    int inside;         // the peer whose data are being read, -1: none
    float *room;        // rank 0: (size * TURN)
    const float **part; // (size)
} star;

// What a rank says first: one that is of another job, or of a world of another size, is turned
// away.
typedef struct {
    char magic[8];
    uint64_t job;
    int32_t rank, size;
} Hello;

static Hello hello_of(const WorldPlace *p) {
    Hello h = {.job = xxh3_64(p->job, strlen(p->job)), .rank = p->rank, .size = p->size};
    memcpy(h.magic, "draftsm1", sizeof h.magic);
    return h;
}

static bool gone(int rank, Err *err) {
    return err_set(err, ERR_FAILED, "rank %d is gone: its connection is closed", rank);
}

// Until the socket can be read (or written), or waiting has an end.
static bool ready(int fd, short events, int rank, WorldWait *w, Err *err) {
    struct pollfd p = {.fd = fd, .events = events};
    while (poll(&p, 1, w->turns > 2 ? 20 : 1) <= 0)
        if (!world_wait_awake(w, rank, err)) return false;
    return true;
}

static void tell(int rank) {
    (void)!send(star.peer[rank], &ALIVE, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// Rank 0 passes on what it hears: the others wait for it alone, and it for the one.
static void pulse(void) {
    for (int r = star.rank == 0 ? 1 : 0; r < (star.rank == 0 ? star.size : 1); r++) tell(r);
}

static bool heard(int rank) {
    bool any = false;
    for (int r = 0; r < star.size; r++) {
        char kind;
        if ((rank >= 0 && r != rank) || star.peer[r] < 0 || r == star.inside) continue;
        while (recv(star.peer[r], &kind, 1, MSG_DONTWAIT | MSG_PEEK) == 1 && kind == ALIVE)
            any |= recv(star.peer[r], &kind, 1, MSG_DONTWAIT) == 1;
    }
    if (any && star.rank == 0)
        for (int r = 1; r < star.size; r++)
            if (r != rank) tell(r);
    return any;
}

static bool read_bytes(int rank, void *to, size_t bytes, Err *err) {
    WorldWait w = {0};
    const int fd = star.peer[rank];
    for (char *at = to; bytes > 0;) {
        const ssize_t n = recv(fd, at, bytes, MSG_DONTWAIT);
        if (n > 0) {
            at += n;
            bytes -= (size_t)n;
            w = (WorldWait){0};
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            return gone(rank, err);
        } else if (!ready(fd, POLLIN, rank, &w, err)) {
            return false;
        }
    }
    return true;
}

static bool read_all(int rank, void *to, size_t bytes, Err *err) {
    char kind = ALIVE;
    while (kind == ALIVE)
        if (!read_bytes(rank, &kind, 1, err)) return false;
    if (kind != DATA) return err_set(err, ERR_FAILED, "rank %d sends what nobody asked for", rank);
    star.inside = rank;
    const bool ok = read_bytes(rank, to, bytes, err);
    star.inside = -1;
    return ok;
}

static bool write_bytes(int rank, const void *from, size_t bytes, Err *err) {
    WorldWait w = {0};
    const int fd = star.peer[rank];
    for (const char *at = from; bytes > 0;) {
        const ssize_t n = send(fd, at, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            at += n;
            bytes -= (size_t)n;
            w = (WorldWait){0};
        } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return gone(rank, err);
        } else if (!ready(fd, POLLOUT, rank, &w, err)) {
            return false;
        }
    }
    return true;
}

static bool write_all(int rank, const void *from, size_t bytes, Err *err) {
    return write_bytes(rank, &DATA, 1, err) && write_bytes(rank, from, bytes, err);
}

static bool gather(const void *mine, size_t bytes, void *all, Err *err) {
    const size_t whole = bytes * (size_t)star.size;
    if (star.rank > 0) return write_all(0, mine, bytes, err) && read_all(0, all, whole, err);
    memcpy(all, mine, bytes);
    for (int r = 1; r < star.size; r++)
        if (!read_all(r, (char *)all + bytes * (size_t)r, bytes, err)) return false;
    for (int r = 1; r < star.size; r++)
        if (!write_all(r, all, whole, err)) return false;
    return true;
}

static bool add_turn(float *x, int64_t n, Err *err) {
    const size_t bytes = (size_t)n * sizeof *x;
    if (star.rank > 0) return write_all(0, x, bytes, err) && read_all(0, x, bytes, err);
    star.part[0] = x;
    for (int r = 1; r < star.size; r++) {
        float *room = star.room + (r - 1) * TURN;
        star.part[r] = room;
        if (!read_all(r, room, bytes, err)) return false;
    }
    sum_in_order(x, star.part, star.size, n);
    for (int r = 1; r < star.size; r++)
        if (!write_all(r, x, bytes, err)) return false;
    return true;
}

static bool add(float *x, int64_t n, Err *err) {
    for (int64_t at = 0; at < n; at += TURN)
        if (!add_turn(x + at, n - at < TURN ? n - at : TURN, err)) return false;
    return true;
}

static void close_all(void) {
    for (int r = 0; star.peer && r < star.size; r++)
        if (star.peer[r] >= 0) close(star.peer[r]);
    free(star.peer);
    free(star.room);
    free(star.part);
}

// A closed connection is what tells the others.
static void leave(int code, bool together) {
    (void)code;
    (void)together;
    close_all();
}

static void make_prompt(int fd) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static bool took_too_long(double begun, const WorldPlace *p, const char *what, Err *err) {
    if (now_s() - begun < JOIN_S) return false;
    return !err_set(err, ERR_FAILED, "%s at %s:%d within %.0f s", what, p->address, p->port,
                    JOIN_S);
}

// Hears one that has connected out; those that are not ours are closed and forgotten.
static void admit(int fd, const WorldPlace *p) {
    const Hello own = hello_of(p);
    const struct timeval limit = {.tv_sec = 5};
    Hello h;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    const bool whole = recv(fd, &h, sizeof h, MSG_WAITALL) == (ssize_t)sizeof h;
    const bool ours = whole && memcmp(h.magic, own.magic, sizeof h.magic) == 0 &&
                      h.job == own.job && h.size == own.size && h.rank > 0 && h.rank < own.size &&
                      star.peer[h.rank] < 0;
    if (!ours || send(fd, &own, sizeof own, MSG_NOSIGNAL) != (ssize_t)sizeof own) {
        close(fd);
        return;
    }
    make_prompt(fd);
    star.peer[h.rank] = fd;
}

static bool all_joined(void) {
    for (int r = 1; r < star.size; r++)
        if (star.peer[r] < 0) return false;
    return true;
}

static bool listen_for_all(const WorldPlace *p, Err *err) {
    const int on = 1, off = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in6 any = {
        .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)p->port), .sin6_addr = in6addr_any};
    const struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)p->port)};
    const int old = fd < 0 ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    const int s = fd < 0 ? old : fd;
    const double begun = now_s();
    if (s < 0) return err_errno(err, "no socket");
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd >= 0) setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    const struct sockaddr *at = fd >= 0 ? (const void *)&any : (const void *)&any4;
    bool ok = bind(s, at, fd >= 0 ? sizeof any : sizeof any4) == 0 && listen(s, star.size) == 0;
    if (!ok) err_errno(err, "cannot listen at port %d", p->port);
    while (ok && !all_joined()) {
        struct pollfd waiting = {.fd = s, .events = POLLIN};
        const int one = poll(&waiting, 1, 100) > 0 ? accept4(s, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (one >= 0) admit(one, p);
        ok = !took_too_long(begun, p, "not every rank came", err);
    }
    close(s);
    return ok;
}

static int connect_once(const struct addrinfo *list) {
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
        const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) continue;
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) return fd;
        close(fd);
    }
    return -1;
}

static bool greet(int fd, const WorldPlace *p) {
    const Hello own = hello_of(p);
    Hello h;
    return send(fd, &own, sizeof own, MSG_NOSIGNAL) == (ssize_t)sizeof own &&
           recv(fd, &h, sizeof h, MSG_WAITALL) == (ssize_t)sizeof h && h.rank == 0 &&
           h.job == own.job && h.size == own.size;
}

// Rank 0 may come later than we do, and a name may take its time to be known.
static bool connect_to_first(const WorldPlace *p, Err *err) {
    const struct addrinfo want = {.ai_socktype = SOCK_STREAM};
    const double begun = now_s();
    char port[16];
    snprintf(port, sizeof port, "%d", p->port);
    for (;;) {
        struct addrinfo *list = NULL;
        const int fd = getaddrinfo(p->address, port, &want, &list) == 0 ? connect_once(list) : -1;
        if (list) freeaddrinfo(list);
        if (fd >= 0 && greet(fd, p)) {
            make_prompt(fd);
            star.peer[0] = fd;
            return true;
        }
        if (fd >= 0) close(fd);
        if (took_too_long(begun, p, "rank 0 was not found", err)) return false;
        usleep(50000);
    }
}

const WorldLink *world_socket_open(const WorldPlace *place, Err *err) {
    static const WorldLink link = {gather, add, pulse, heard, leave};
    const size_t N = (size_t)place->size;
    star.rank = place->rank;
    star.size = place->size;
    star.inside = -1;
    star.peer = malloc(N * sizeof *star.peer);
    star.part = calloc(N, sizeof *star.part);
    star.room = place->rank == 0 ? malloc((N - 1) * TURN * sizeof *star.room) : NULL;
    if (!star.peer || !star.part || (place->rank == 0 && !star.room)) {
        err_set(err, ERR_FAILED, "out of memory");
        return NULL;
    }
    for (size_t r = 0; r < N; r++) star.peer[r] = -1;
    if (place->rank == 0 ? listen_for_all(place, err) : connect_to_first(place, err)) return &link;
    close_all();
    return NULL;
}
