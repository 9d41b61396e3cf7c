// train/loss_plan.h - which rows and columns of the head are worked on together, and their memory.
#ifndef TRAIN_LOSS_PLAN_H
#define TRAIN_LOSS_PLAN_H

#include "infer/model/suppress.h"
#include "train/loss.h"

struct HeadLoss {
    LossOptions opt;
    Suppress suppress;
    int64_t width;              // B of the pack's hidden rows
    int64_t teachers, students; // rows of the teacher's and the student's logits
    int64_t tile;               // columns of the teacher's; the vocabulary when it fits
    int64_t part;               // columns of the student's: the tile, where a device has room for
                                // their logits; else of their gradient
    LossItem *sorted;           // host memory from here on
    int64_t *count;             // items before each pack row
    int32_t *y, *trow, *label, *teacher, *best;
    float *weight, *route, *never;
    double *stat;
};

// Teacher rows t0 .. t0+nt-1 of the list of those in use, items i0 .. i0+ni-1.
typedef struct {
    int64_t t0, nt, i0, ni;
} LossBlock;

// What a call keeps on the device: vectors over all items, matrices over a block.
typedef struct {
    Tensor y, trow, label;        // I32 (1, n)
    Tensor weight, route_weight;  // F32 (1, n)
    Tensor teacher;               // I32 (1, teacher rows): pack rows
    Tensor stat, best, id, route; // F64 (n, 4), F32 (n, 2), I32 (n, 2), F32 (1, n)
    Tensor hidden, yc, dyc;       // (teachers, B), (block items, H), F32 of the same
    Tensor tlse, slse, psum;      // (teachers, 2), (block items, 2), F64 (teachers, 2)
    Tensor tbest, tid, targ;      // the teacher's argmax, CE_ARGMAX only
    Tensor tz, sz, gz;            // room for the logits of a tile; p is tz; gz is sz when F32;
                                  // no sz where the device does without
    Tensor mass, cz, gc;          // clusters
    Tensor never;                 // F32 (teachers, 1), where something is suppressed
} LossRoom;

LossRoom loss_room_take(const HeadLoss *l, const Assistant *a, DType pack_dtype, int64_t n,
                        int64_t pack_rows, bool grad, Arena *arena);
// Stable: puts the items into the order of their teacher rows.
void loss_sort(HeadLoss *l, LossItem *item, int64_t n, int64_t pack_rows);
// The block behind *b ({0} before the first); false at the end, when b->t0 is the number of teacher
// rows.
bool loss_next_block(HeadLoss *l, const LossItem *item, int64_t n, LossBlock *b);
void loss_upload(HeadLoss *l, Device *dev, const LossItem *item, int64_t n, const LossRoom *r);

#endif
