// eval/quant/allocate.h - which width every module gets, from what was measured of each width.
#ifndef EVAL_ALLOCATE_H
#define EVAL_ALLOCATE_H

#include <stdint.h>

enum { ALLOCATE_WIDTHS = 10 };

// A module and the widths it may have, rising.
typedef struct {
    const char *name; // its path: blocks are told by "layers.N."
    int64_t params;
    int widths;
    double bits[ALLOCATE_WIDTHS];   // as bits per weight are counted
    int64_t bytes[ALLOCATE_WIDTHS]; // all that is stored
    double kl[ALLOCATE_WIDTHS];     // NaN: not measured
    double lost[ALLOCATE_WIDTHS];   // tokens per step
    double se[ALLOCATE_WIDTHS];     // standard error of that; NaN or 0: none known, taken as it is
} Component;

// The greedy knapsack of mlx-optiq (spec export-formats E2): from the smallest width up, by KL won
// per bit and weight, until target_bpw is reached: a floor. Attention of a block keeps one step
// more, modules outside the blocks and the first and last block count a hundredfold, no more than
// three blocks in a row stay mostly at the smallest width.
typedef struct {
    double target_bpw;
    int floor, protect, low_run; // mlx-optiq: 2, 1, 3
} OptiqRules;
static const OptiqRules OPTIQ_RULES = {.target_bpw = 5.0, .floor = 2, .protect = 1, .low_run = 3};
// width (n): the number of each component's width.
void allocate_optiq(const Component *c, int n, const OptiqRules *r, int *width);

// Lost tokens per step won per byte, within `bytes`. What is lost is taken as expected_loss() has
// it and made non-increasing in the width; steps are those of its lower hull, so that a width that
// wins little is passed over for the next one. What room is left goes by KL per byte.
void allocate_tokens(const Component *c, int n, int64_t bytes, int *width);

// What each component is expected to lose at each width: the measured loss l and, where noise hides
// it, what its KL says. The KL predicts b * kl, b fitted over all of them by weighted least squares
// (not below 0), wrong by about as much as it is: l is weighed by (b kl)^2, the prediction by se^2.
void expected_loss(const Component *c, int n, double (*loss)[ALLOCATE_WIDTHS]);

double allocation_bpw(const Component *c, int n, const int *width);
int64_t allocation_bytes(const Component *c, int n, const int *width);

#endif
