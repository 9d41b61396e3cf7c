// eval/audit/alignment.c - the table of wirings, the texts drafted under each, and the paired
// comparison.
#include "eval/audit/alignment.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/tails.h"
#include "infer/decode/simulate.h"

enum { ANCHORS_AT_ONCE = 1024, FEW_PROMPTS = 4 };

// Chance that a wiring is called better that is not; any of them: 1 %.
static const double alarm = 0.01 / (ALIGN_WIRINGS - 1);

// Gain of the share that is no misfit. Positions and windows differ between the official runtimes
// by up to 1.1 points; what looks ahead, which no runtime can give, helps a drafter that was
// trained right, too: row T helps the official ones by up to 12.2 points (spec gemma4.md 4.1),
// while one that was trained with the feature of row T fell from 92 % to 6 % without it.
static const double as_good = 0.02, ahead = 0.15;

// What differs from the right wiring, in rows: RoPE position, hidden row, newest visible K/V row,
// width of the window.
typedef struct {
    const char *key, *name;
    int position, feature, row, window;
    bool pre_norm, swapped, unscaled;
} Wires;

static const Wires wires[ALIGN_WIRINGS] = {
    [ALIGN_RIGHT] = {"right", "as deployed", .row = 0},
    [ALIGN_POSITION_BEFORE] = {"position_before", "RoPE position T-1", .position = -1},
    [ALIGN_POSITION_AFTER] = {"position_after", "RoPE position T+1", .position = 1},
    [ALIGN_PRE_NORM] = {"pre_norm", "feature before the final norm", .pre_norm = true},
    [ALIGN_FEATURE_BEFORE] = {"feature_before", "feature of row T-2", .feature = -1},
    [ALIGN_FEATURE_AFTER] = {"feature_after", "feature of row T", .feature = 1},
    [ALIGN_ROW_T] = {"row_t", "row T visible (K/V shifted by +1)", .row = 1},
    [ALIGN_ROW_MISSING] = {"row_missing", "row T-1 missing (K/V shifted by -1)", .row = -1},
    [ALIGN_SAME_ROW] = {"same_row", "feature and K/V up to the token's own row T", .feature = 1,
                        .row = 1},
    [ALIGN_SWAPPED] = {"swapped", "feature before token", .swapped = true},
    [ALIGN_UNSCALED] = {"unscaled", "embedding scale 1", .unscaled = true},
    [ALIGN_WINDOW_WIDE] = {"window_wide", "window one row wider", .window = 1},
    [ALIGN_WINDOW_NARROW] = {"window_narrow", "window one row narrower", .window = -1},
};

static double allowed(const Wires *w) {
    return w->feature > 0 || w->row > 0 ? ahead : as_good;
}

// Counts of one prompt; cells: drafts that have text to match.
typedef struct {
    double match[ALIGN_WIRINGS], cells;
} Prompt;

struct Alignment {
    const Assistant *a;
    Simulator *sim;
    int64_t room;
    void *block;
    Tensor hidden;           // (room, B) moved rows
    Tensor swapped;          // of w.pre
    int32_t *ids;            // (room + 2) moved ids
    int32_t *right, *drafts; // (room, ALIGN_STEPS)
    Prompt *prompt;
    int64_t prompts, prompt_room;
    double match[ALIGN_WIRINGS][ALIGN_STEPS], cells[ALIGN_STEPS], differ[ALIGN_WIRINGS];
};

const char *align_key(AlignWiring w) {
    CHECK((unsigned)w < ALIGN_WIRINGS);
    return wires[w].key;
}

static void take(Alignment *al, const TargetConfig *tc, Arena *arena) {
    const Tensor pre = al->a->w.pre;
    al->hidden = tensor_take(arena, DT_F32, al->room, tc->text.hidden); // or the pack's dtype
    al->swapped = tensor_take(arena, pre.dtype, pre.rows, pre.cols);
}

Alignment *alignment_open(const Assistant *a, const TargetConfig *tc, int64_t room, Err *err) {
    const int64_t B = a->cfg.backbone;
    Arena arena;
    Alignment *al = calloc(1, sizeof *al);
    CHECK_MEMORY(al);
    al->a = a;
    al->room = room;
    al->ids = malloc((size_t)(room + 2) * sizeof *al->ids);
    al->right = malloc((size_t)room * ALIGN_STEPS * sizeof *al->right);
    al->drafts = malloc((size_t)room * ALIGN_STEPS * sizeof *al->drafts);
    if (al->ids == NULL || al->right == NULL || al->drafts == NULL) {
        err_set(err, ERR_FAILED, "no memory for %lld tokens", (long long)room);
        goto fail;
    }
    arena_open(&arena, NULL, 0);
    take(al, tc, &arena);
    if ((al->block = dev_alloc(a->dev, arena.peak, err)) == NULL ||
        (al->sim = simulator_open(a, ANCHORS_AT_ONCE, ALIGN_STEPS, err)) == NULL)
        goto fail;
    arena_open(&arena, al->block, arena.peak);
    take(al, tc, &arena);
    op_copy(a->dev, tensor_cols(al->swapped, 0, B), tensor_cols(a->w.pre, B, B));
    op_copy(a->dev, tensor_cols(al->swapped, B, B), tensor_cols(a->w.pre, 0, B));
    return al;
fail:
    err_wrap(err, "alignment");
    alignment_close(al);
    return NULL;
}

void alignment_close(Alignment *al) {
    if (al == NULL) return;
    simulator_close(al->sim);
    if (al->block != NULL) dev_free(al->a->dev, al->block);
    free(al->ids);
    free(al->right);
    free(al->drafts);
    free(al->prompt);
    free(al);
}

// Row i becomes row i + by of `from`; rows that have none keep the nearest and are never asked for.
static Tensor moved_rows(Alignment *al, Tensor from, int64_t n, int by) {
    Device *dev = al->a->dev;
    const Tensor to = tensor_of(al->hidden.data, from.dtype, n, from.cols);
    const int64_t keep = by == 0 ? n : n - 1;
    op_copy(dev, tensor_rows(to, by < 0, keep), tensor_rows(from, by > 0, keep));
    if (by != 0) {
        const int64_t edge = by < 0 ? 0 : n - 1;
        op_copy(dev, tensor_rows(to, edge, 1), tensor_rows(from, edge, 1));
    }
    return to;
}

// Anchor T is drafted as T + row of ids moved alike: rows up to T + row - 1 become visible, and
// everything that would move along is moved back.
static bool draft(Alignment *al, const Wires *w, const AlignText *t, int32_t *drafts, Err *err) {
    Assistant a = *al->a;
    FeaturePack pack = *t->pack;
    const int64_t n = t->n + w->row;
    const Tensor from = w->pre_norm ? t->pre_norm : pack.hidden;
    a.pos_offset += w->position - w->row;
    a.window_extra += w->window + w->row;
    if (w->swapped) a.w.pre = al->swapped;
    if (w->unscaled) a.target_scale = 1.0f;
    if (w->pre_norm || w->feature != w->row)
        pack.hidden = moved_rows(al, from, t->n, w->feature - w->row);
    for (int64_t i = 0; i < n; i++) al->ids[i] = t->ids[i - w->row < 0 ? 0 : i - w->row];
    return simulator_drafts(al->sim, &a, &pack, 0, al->ids, n, t->first + w->row,
                            assistant_deployed_head(&a.cfg), drafts, NULL, err) ||
           err_wrap(err, "%s", w->name);
}

static void count(Alignment *al, AlignWiring w, const AlignText *t, const int32_t *drafts,
                  Prompt *p) {
    for (int64_t a = 0; a < t->n - t->first - 1; a++)
        for (int j = 0; j < ALIGN_STEPS && t->first + a + 1 + j < t->n; j++) {
            const int64_t at = a * ALIGN_STEPS + j;
            const int32_t want = t->want ? t->want[at] : t->ids[t->first + a + 1 + j];
            const bool hit = drafts[at] == want;
            p->match[w] += hit;
            al->match[w][j] += hit;
            al->differ[w] += drafts[at] != al->right[at];
            if (w != ALIGN_RIGHT) continue;
            p->cells++;
            al->cells[j]++;
        }
}

bool alignment_add(Alignment *al, const AlignText *t, Err *err) {
    Prompt p = {0};
    CHECK(t->n <= al->room && t->pack->nseq == 1 && t->pack->rows >= t->n &&
          t->pre_norm.dtype == t->pack->dtype);
    if (t->first < 2 || t->n - t->first - 1 < 1) return true; // no row before row T-1, or no anchor
    for (int w = 0; w < ALIGN_WIRINGS; w++) {
        int32_t *drafts = w == ALIGN_RIGHT ? al->right : al->drafts;
        if (!draft(al, &wires[w], t, drafts, err)) return false;
        count(al, (AlignWiring)w, t, drafts, &p);
    }
    if (al->prompts == al->prompt_room) {
        al->prompt_room = 2 * al->prompt_room + 16;
        al->prompt = realloc(al->prompt, (size_t)al->prompt_room * sizeof *al->prompt);
        CHECK_MEMORY(al->prompt);
    }
    al->prompt[al->prompts++] = p;
    return true;
}

int64_t alignment_prompts(const Alignment *al) {
    return al->prompts;
}

// One-sided p of the gain: Student's t of the ratio estimate, a prompt is one draw.
static double p_of_gain(const Alignment *al, AlignWiring w, double gain, double cells) {
    double square = 0.0;
    if (al->prompts < 2) return 1.0;
    for (int64_t i = 0; i < al->prompts; i++) {
        const Prompt *p = &al->prompt[i];
        const double e = p->match[w] - p->match[ALIGN_RIGHT] - gain * p->cells;
        square += e * e;
    }
    const double n = (double)al->prompts, se = sqrt(n / (n - 1.0) * square) / cells;
    return se > 0.0 ? student_upper(gain / se, n - 1.0) : gain > 0.0 ? 0.0 : 1.0;
}

AlignShare alignment_share(const Alignment *al, AlignWiring w) {
    AlignShare s = {.p = 1.0};
    double cells = 0.0, match = 0.0, right = 0.0;
    for (int j = 0; j < ALIGN_STEPS; j++) {
        s.share[j] = al->cells[j] > 0 ? al->match[w][j] / al->cells[j] : 0.0;
        cells += al->cells[j];
        match += al->match[w][j];
        right += al->match[ALIGN_RIGHT][j];
    }
    if (cells == 0.0) return s;
    s.mean = match / cells;
    s.gain = (match - right) / cells;
    s.differs = al->differ[w] / cells;
    if (w != ALIGN_RIGHT) s.p = p_of_gain(al, w, s.gain, cells);
    s.better = s.gain > allowed(&wires[w]) && s.p < alarm;
    return s;
}

AlignWiring alignment_misfit(const Alignment *al) {
    AlignWiring best = ALIGN_RIGHT;
    double mean = 0.0;
    for (int w = 1; w < ALIGN_WIRINGS; w++) {
        const AlignShare s = alignment_share(al, (AlignWiring)w);
        if (!s.better || s.mean <= mean) continue;
        best = (AlignWiring)w;
        mean = s.mean;
    }
    return best;
}

bool alignment_gate(const Alignment *al, Err *err) {
    const AlignWiring w = alignment_misfit(al);
    if (w == ALIGN_RIGHT) return true;
    const AlignShare s = alignment_share(al, w);
    return err_set(err, ERR_GATE,
                   "wiring: the drafter fits \"%s\" better than the deployed one: %.1f %% of its "
                   "drafts match, %.1f %% as deployed (p = %.2g over %lld prompts)",
                   wires[w].name, 100 * s.mean, 100 * (s.mean - s.gain), s.p,
                   (long long)al->prompts);
}

json_t *alignment_json(const Alignment *al) {
    json_t *rows = json_array();
    for (int w = 0; w < ALIGN_WIRINGS; w++) {
        const AlignShare s = alignment_share(al, (AlignWiring)w);
        json_t *share = json_array();
        for (int j = 0; j < ALIGN_STEPS; j++) json_array_append_new(share, json_real(s.share[j]));
        json_array_append_new(rows,
                              json_pack("{ss ss so sf sf sf sf sf sb}", "wiring", wires[w].key,
                                        "name", wires[w].name, "share", share, "mean", s.mean,
                                        "gain", s.gain, "p", s.p, "differs", s.differs,
                                        "allowed_gain", allowed(&wires[w]), "better", s.better));
    }
    const AlignWiring misfit = alignment_misfit(al);
    return json_pack("{si sI sI so ss sb}", "steps", ALIGN_STEPS, "prompts",
                     (json_int_t)al->prompts, "anchors", (json_int_t)al->cells[0], "wirings", rows,
                     "fits", wires[misfit].key, "passed", misfit == ALIGN_RIGHT);
}

static double real(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

static const char *verdict(const json_t *row) {
    if (json_is_true(json_object_get(row, "better"))) return "FITS BETTER";
    if (real(row, "differs") == 0.0) return "same drafts";
    if (real(row, "gain") <= 0.0) return "";
    return real(row, "p") < alarm ? "within what is allowed" : "noise";
}

void alignment_markdown(FILE *out, const json_t *al) {
    size_t i;
    json_t *r;
    const double prompts = real(al, "prompts");
    fprintf(out,
            "\nWiring: share of drafts that match the target's greedy text, deployed head, %.0f "
            "anchors of %.0f prompts%s: %s\n\n"
            "| wiring | step 1 | step 2 | step 3 | mean | gain | p | |\n"
            "|---|---|---|---|---|---|---|---|\n",
            real(al, "anchors"), prompts,
            prompts < FEW_PROMPTS ? " (too few to tell small differences)" : "",
            json_is_true(json_object_get(al, "passed")) ? "passed" : "FAILED");
    json_array_foreach(json_object_get(al, "wirings"), i, r) {
        const json_t *share = json_object_get(r, "share");
        fprintf(out, "| %s |", json_string_value(json_object_get(r, "name")));
        for (size_t j = 0; j < ALIGN_STEPS; j++)
            fprintf(out, " %.1f %% |", 100 * json_number_value(json_array_get(share, j)));
        fprintf(out, " %.1f %% |", 100 * real(r, "mean"));
        if (i == 0)
            fprintf(out, " | | |\n");
        else
            fprintf(out, " %+.1f | %.2g | %s |\n", 100 * real(r, "gain"), real(r, "p"), verdict(r));
    }
}
