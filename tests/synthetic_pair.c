// tests/synthetic_pair.c - synthetic_pair SHAPE SEED DIR: DIR/assistant of a real shape with random
// weights and DIR/target with its target's configuration alone, for tests/clients*.sh.
#include <stdio.h>
#include <stdlib.h>

#include "data/synthetic.h"
#include "infer/base/file.h"

int main(int argc, char **argv) {
    Err err = {0};
    char assistant[PATH_ROOM], target[PATH_ROOM];
    const PairShape *shape = argc == 4 ? pair_shape(argv[1]) : NULL;
    if (shape == NULL) {
        fprintf(stderr, "usage: %s e2b|e4b|12b|26b|31b|demo SEED DIR\n", argv[0]);
        return 2;
    }
    path_join(assistant, argv[3], "assistant");
    path_join(target, argv[3], "target");
    if (dir_make(assistant, &err) && dir_make(target, &err) &&
        synthetic_assistant(assistant, shape, strtoull(argv[2], NULL, 10), &err) &&
        synthetic_target_config(target, shape, &err))
        return 0;
    fprintf(stderr, "%s: %s\n", argv[0], err.text);
    return 1;
}
