// tests/data/hostile.h - what hostile inputs may not do; *state says how large they are.
#ifndef TESTS_HOSTILE_H
#define TESTS_HOSTILE_H

#include <unistd.h>

#include "tests/data/hostile_bombs.h"
#include "tests/data/hostile_lines.h"

#define MEMORY ((int64_t)256 << 20)

typedef struct {
    int scale;     // of archives
    int64_t lines; // in all
} Hostile;

static inline void bombs_are_refused_within_bounded_memory(void **state) {
    const Hostile *size = *state;
    char path[PATH_ROOM];
    int64_t most = 0;
    path_join(path, test_dir(), "bomb");
    for (int i = 0; i < BOMBS; i++) {
        bomb_write(i, path, size->scale);
        const Outcome o = prepare_in_child(path, "target");
        if (o.code != bombs[i].code) fail_msg("%s: %d %s", bombs[i].name, o.code, o.said);
        if (bombs[i].says && !strstr(o.said, bombs[i].says))
            fail_msg("%s: %s", bombs[i].name, o.said);
        if (o.peak > MEMORY) fail_msg("%s: %lld MiB", bombs[i].name, (long long)(o.peak >> 20));
        if (o.peak > most) most = o.peak;
        unlink(path);
    }
    assert_true(BOMBS >= 12);
    assert_false(file_exists("/tmp/escaped.jsonl"));
    assert_int_not_equal(access(path_join(path, test_dir(), "../escaped.jsonl"), F_OK), 0);
    printf("compared: %d archives, at most %lld MiB\n", BOMBS, (long long)(most >> 20));
}

// Whatever happens to a line: it is counted once, and what is written of it is well formed.
static inline void spoiled_lines_are_all_accounted_for(void **state) {
    const Hostile *size = *state;
    static const char *const answers[] = {"reference", "target"};
    char path[PATH_ROOM];
    path_join(path, test_dir(), "spoiled.jsonl");
    for (int i = 0; i < 2; i++) {
        const int64_t lines = spoiled_lines(path, size->lines / 2, 7 + (uint64_t)i);
        const Outcome o = prepare_in_child(path, answers[i]);
        if (o.code != 0) fail_msg("%d %s", o.code, o.said);
        assert_int_equal(o.in, lines);
        assert_int_equal(o.in, o.out + o.skipped + o.failed);
        assert_true(o.samples >= o.out && o.out > 0 && o.skipped > 0 && o.failed > 0);
        if (o.peak > MEMORY) fail_msg("%lld MiB", (long long)(o.peak >> 20));
        printf("compared: %lld lines, %lld out, %lld skipped, %lld failed, %lld MiB\n",
               (long long)o.in, (long long)o.out, (long long)o.skipped, (long long)o.failed,
               (long long)(o.peak >> 20));
    }
    unlink(path);
}

#endif
