// tests/infer/base/world_ranks.h - a world of forked processes that find each other by torchrun's
// variables. Bodies are here because every test is one binary.
#ifndef TESTS_WORLD_RANKS_H
#define TESTS_WORLD_RANKS_H

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "infer/base/world.h"
#include "tests/testing.h"

enum { RANKS_MAX = 8 };

static inline int free_port(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static inline void set_number(const char *name, int value) {
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    setenv(name, text, 1);
}

// Of a rank, before it joins.
static inline void rank_variables(int rank, int size, int port) {
    unsetenv("OMPI_COMM_WORLD_SIZE");
    setenv("MASTER_ADDR", "localhost", 1);
    setenv("TORCHELASTIC_RUN_ID", "test", 1);
    set_number("MASTER_PORT", port);
    set_number("WORLD_SIZE", size);
    set_number("LOCAL_WORLD_SIZE", size);
    set_number("RANK", rank);
    set_number("LOCAL_RANK", rank);
}

// What a rank does once it has joined; its result is the exit status.
typedef int RankWork(void *ctx);

static inline pid_t start_rank(int rank, int size, int port, int64_t limit_s, RankWork *work,
                               void *ctx) {
    const pid_t pid = fork();
    if (pid != 0) return pid;
    Err err = {0};
    WorldPlace place;
    rank_variables(rank, size, port);
    if (!world_place(&place, &err) || !world_open(&place, limit_s, &err)) {
        fprintf(stderr, "rank %d: %s\n", rank, err.text);
        _exit(99);
    }
    _exit(work(ctx));
}

static inline int end_of(pid_t pid) {
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

// status (size): how each ended
static inline void run_ranks(int size, int64_t limit_s, RankWork *work, void *ctx, int *status) {
    pid_t pid[RANKS_MAX];
    const int port = free_port();
    assert_true(size <= RANKS_MAX);
    for (int r = 0; r < size; r++) pid[r] = start_rank(r, size, port, limit_s, work, ctx);
    for (int r = 0; r < size; r++) status[r] = end_of(pid[r]);
}

#endif
