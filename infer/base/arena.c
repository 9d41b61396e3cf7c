// infer/base/arena.c - bump allocation over a block somebody else owns.
#include "infer/base/arena.h"

#include "infer/base/err.h"

void arena_open(Arena *a, void *block, size_t size) {
    *a = (Arena){.block = block, .size = block ? size : 0};
}

void *arena_take(Arena *a, size_t bytes) {
    const size_t at = a->used;
    size_t end;
    CHECK(!__builtin_add_overflow(at, bytes, &end) && end <= (size_t)-1 - ARENA_ALIGN);
    end = (end + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    CHECK(a->block == NULL || end <= a->size, "(arena: %zu bytes planned, %zu wanted)", a->size,
          end);
    a->used = end;
    if (end > a->peak) a->peak = end;
    return a->block ? a->block + at : NULL;
}

size_t arena_mark(const Arena *a) {
    return a->used;
}

void arena_reset(Arena *a, size_t mark) {
    CHECK(mark <= a->used);
    a->used = mark;
}
