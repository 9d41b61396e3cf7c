// infer/base/arena.h - one block, a bump pointer, a high-water mark.
//
// Sizes are planned before they are taken: an arena opened over NULL only counts (arena_take then
// returns NULL), so the same layout function prices a plan and later fills it. The block belongs to
// whoever opened the arena; it may be device memory.
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

enum { ARENA_ALIGN = 64 };

typedef struct {
    char *block; // NULL: counting only
    size_t size; // bytes in block; ignored while counting
    size_t used;
    size_t peak;
} Arena;

void arena_open(Arena *a, void *block, size_t size);
void *arena_take(Arena *a, size_t bytes); // 64-byte aligned; CHECKs that the plan is kept
size_t arena_mark(const Arena *a);
void arena_reset(Arena *a, size_t mark); // forget everything taken since mark

#endif
