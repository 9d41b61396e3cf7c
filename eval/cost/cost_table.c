// eval/cost/cost_table.c - a cost table for people: what each draft length must yield to pay.
#include <math.h>

#include "eval/cost/cost.h"

static bool has_head(const CostTable *c, int h) {
    return c->target_ms[1] > 0.0 ? c->drafter_ms[h] > 0.0 : h == HEAD_DENSE;
}

// Measured drafts of a round, else what the step and the set-up add up to; 0: not known.
static double drafts_of(const CostTable *c, int h, int k) {
    if (c->drafts_ms[h][k] > 0.0) return c->drafts_ms[h][k];
    return c->drafter_ms[h] > 0.0 ? c->drafter_round_ms[h] + k * c->drafter_ms[h] : 0.0;
}

static void cell(FILE *out, int decimals, double x) {
    if (x > 0.0 && isfinite(x))
        fprintf(out, " %.*f |", decimals, x);
    else
        fputs(" – |", out);
}

static void head_cells(FILE *out, const CostTable *c, int h, int k) {
    const RoundMix mix = round_constant(k, 1.0);
    if (c->target_ms[1] > 0.0) cell(out, 3, k > 0 ? drafts_of(c, h, k) : 0.0);
    cell(out, 2, k > 0 ? cost_round(c, (Head)h, &mix) : 0.0);
}

// How far step and set-up are from the times of whole rounds they were taken from, at worst.
static void decomposition(FILE *out, const CostTable *c, int h) {
    double worst = 0.0;
    for (int k = 1; k <= c->lengths && c->drafts_ms[h][k] > 0.0; k++)
        worst =
            fmax(worst,
                 fabs((c->drafter_round_ms[h] + k * c->drafter_ms[h]) / c->drafts_ms[h][k] - 1.0));
    fprintf(out, "%s head: %.3f ms a drafter step and %.3f ms a round beside", cost_head_name(h),
            c->drafter_ms[h], c->drafter_round_ms[h]);
    if (c->drafts_ms[h][1] > 0.0)
        fprintf(out, "; whole rounds of drafts were at most %.1f %% off that", 100.0 * worst);
    fputs(".\n", out);
}

static void heading(FILE *out, const CostTable *c, bool times) {
    fprintf(out, "\nCost of a round on %s (%s", c->device, c->source);
    if (c->dtype[0] != '\0') fprintf(out, ", %s", c->dtype);
    if (c->context > 0) fprintf(out, ", %lld rows of context", (long long)c->context);
    if (c->repetitions > 0)
        fprintf(out, ", medians of %lld ± half the distance of their quartiles",
                (long long)c->repetitions);
    fprintf(out, "), batch 1\n\n| k |%s",
            times ? " target, k + 1 rows, ms | ± | of one row |" : "");
    for (int h = 0; h < 2; h++) {
        if (!has_head(c, h)) continue;
        if (times) fprintf(out, " drafts, %s, ms |", cost_head_name(h));
        fprintf(out, " break-even tokens a step%s%s |", times ? ", " : "",
                times ? cost_head_name(h) : "");
    }
    fprintf(out, "\n|---|%s", times ? "---|---|---|" : "");
    for (int h = 0; h < 2; h++)
        if (has_head(c, h)) fputs(times ? "---|---|" : "---|", out);
    fputc('\n', out);
}

// Quartiles this far apart, as a share of the median, are another program's doing.
static const double BUSY = 0.2;

static void warn_busy(FILE *out, const CostTable *c) {
    double worst = 0.0;
    for (int w = 1; w <= c->widths; w++)
        worst = fmax(worst, c->target_spread_ms[w] / c->target_ms[w]);
    for (int h = 0; h < 2; h++)
        for (int k = 1; k <= c->lengths && c->drafts_ms[h][k] > 0.0; k++)
            worst = fmax(worst, c->drafts_spread_ms[h][k] / c->drafts_ms[h][k]);
    if (c->repetitions > 0 && worst > BUSY)
        fprintf(out,
                "The quartiles of a time lie up to %.0f %% of it apart: the machine was not idle, "
                "measure again.\n",
                100.0 * worst);
}

void cost_markdown(FILE *out, const CostTable *c) {
    const bool times = c->target_ms[1] > 0.0;
    heading(out, c, times);
    for (int k = times ? 0 : 1; k <= c->lengths; k++) {
        fprintf(out, "| %d |", k);
        if (times) {
            cell(out, 3, c->target_ms[k + 1]);
            cell(out, 3, c->target_spread_ms[k + 1] / 2.0);
            cell(out, 2, c->target_ms[k + 1] / c->target_ms[1]);
        }
        for (int h = 0; h < 2; h++)
            if (has_head(c, h)) head_cells(out, c, h, k);
        fputc('\n', out);
    }
    fputc('\n', out);
    for (int h = 0; times && h < 2; h++)
        if (has_head(c, h)) decomposition(out, c, h);
    if (times) warn_busy(out, c);
}
