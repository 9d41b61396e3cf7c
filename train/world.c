// train/world.c - a world of one rank: its mean is what it already has.
#include "train/world.h"

World world_open(void) {
    return (World){.rank = 0, .size = 1};
}

bool world_all_reduce(const World *w, Device *dev, Tensor grad, Err *err) {
    (void)dev;
    (void)err;
    CHECK(w->size == 1 && grad.rows == 1, "world of %d ranks", w->size);
    return true;
}

bool world_any(const World *w, bool mine) {
    CHECK(w->size == 1, "world of %d ranks", w->size);
    return mine;
}
