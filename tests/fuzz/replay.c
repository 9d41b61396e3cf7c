// tests/fuzz/replay.c - a fuzz target without libFuzzer: every file that is kept as a seed, one of
// each kind and whatever once broke something, goes through it again.
//
// NAME_replay [FILE...]; without files tests/fuzz/seeds/NAME.
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"

enum { SEED_BYTES = 16 << 20 };

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool replay(const char *path, Err *err) {
    size_t size;
    char *data = file_read(path, SEED_BYTES, &size, err);
    if (data == NULL) return false;
    uint8_t *seed = malloc(size > 0 ? size : 1); // of its size: a read beyond the end is seen
    CHECK(seed != NULL);
    memcpy(seed, data, size);
    free(data);
    fprintf(stderr, "%s\n", path); // the last one named is the one that stopped it
    (void)LLVMFuzzerTestOneInput(seed, size);
    free(seed);
    return true;
}

static bool replay_folder(const char *program, int *n, Err *err) {
    char dir[PATH_ROOM], path[PATH_ROOM];
    const char *name = path_base(program);
    const char *end = strstr(name, "_replay");
    snprintf(dir, sizeof dir, "tests/fuzz/seeds/%.*s", end ? (int)(end - name) : 0, name);
    char **names = dir_list(dir, n, err);
    bool ok = names != NULL;
    for (int i = 0; ok && i < *n; i++) ok = replay(path_join(path, dir, names[i]), err);
    dir_list_free(names, names ? *n : 0);
    return ok;
}

int main(int argc, char **argv) {
    Err err = {0};
    int n = argc - 1;
    bool ok = true;
    if (LLVMFuzzerInitialize != NULL) LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; ok && i < argc; i++) ok = replay(argv[i], &err);
    if (argc < 2) ok = replay_folder(argv[0], &n, &err);
    if (!ok) fprintf(stderr, "%s\n", err.text);
    if (!ok || n == 0) return 1;
    printf("[  PASSED  ] %d test(s).\n", n);
    return 0;
}
