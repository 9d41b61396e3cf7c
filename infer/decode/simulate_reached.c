// infer/decode/simulate_reached.c - anchors leave a call once nothing behind their last draft
// counts.
//
// The walk that drafts k goes from anchor a on to a + min(L, k) + 1. Behind step j, L is known
// where it is at most j, so that the places where the longer walks can be grow fewer with every
// step: walks that begin together part, and meet again behind drafts that fall.
#include "infer/decode/simulate_parts.h"

#include <stdlib.h>
#include <string.h>

// How likely draft i of anchor a stands by one rule of one head, given those before it.
typedef struct {
    const SimulateJob *job;
    const double *keep;    // of a rule; NULL: greedy text
    const int32_t *drafts; // looked at then
    int K;
} Odds;

static double odds(const Odds *o, int64_t a, int i) {
    if (o->keep != NULL) return o->keep[a * o->K + i];
    return o->drafts[a * o->K + i] == o->job->ids[o->job->first + a + 1 + i] ? 1.0 : 0.0;
}

// Bit k of walks[a], a <= last: the walk that drafts k > done can come by anchor a, as far as the
// first `done` drafts of the anchors before it tell (those of earlier calls have them, too).
static void follow_walks(uint32_t *walks, int64_t last, const Odds *o, int done) {
    const int64_t anchors = o->job->n - o->job->first - 1;
    memset(walks, 0, (size_t)(last + 1) * sizeof *walks);
    walks[0] = (2u << o->K) - (2u << done);
    for (int64_t a = 0; a <= last; a++) {
        int i = 0;
        double p = 1.0;
        for (; walks[a] != 0 && p > 0.0 && i < done && a + i < anchors; i++) {
            p = odds(o, a, i);
            if (p < 1.0 && a + i + 1 <= last) walks[a + i + 1] |= walks[a];
        }
        for (; p > 0.0 && i >= done && i <= o->K && a + i + 1 <= last; i++)
            walks[a + i + 1] |= walks[a] & ~0u << i;
    }
}

static bool scored(const DraftScores *s) {
    for (int rule = 0; rule < RULE_COUNT; rule++)
        if (s->keep[rule] != NULL) return true;
    return false;
}

// Marks the anchors of a job that walks which draft more than `done` can come by, by any rule and
// head.
static void pass_anchors(Simulator *s, const SimulateJob *o, int64_t last, int done) {
    memset(s->passed, 0, (size_t)(last + 1));
    for (int h = 0; h < 2; h++)
        for (int rule = 0; rule < RULE_COUNT; rule++) {
            const Odds by = {o, o->score[h].keep[rule], o->drafts[h], s->K};
            const bool greedy = !scored(&o->score[h]) && o->drafts[h] != NULL;
            if (by.keep == NULL && !(greedy && rule == RULE_GREEDY)) continue;
            follow_walks(s->walks, last, &by, done);
            for (int64_t a = 0; a <= last; a++) s->passed[a] |= s->walks[a] != 0;
        }
}

static void walk_room(Simulator *s, int64_t anchors) {
    if (anchors <= s->walk_room) return;
    s->walks = realloc(s->walks, (size_t)anchors * sizeof *s->walks);
    s->passed = realloc(s->passed, (size_t)anchors);
    CHECK_MEMORY(s->walks);
    CHECK_MEMORY(s->passed);
    s->walk_room = anchors;
}

// Whether a draft behind step j can count: text is left, and draft j may stand by a rule.
static bool stands(const Simulator *s, const SimulateJob *o, int64_t r, int j) {
    const int64_t at = s->anchor[r] * s->K + j;
    bool may = false;
    if (s->dead[r] || s->T[r] + 2 + j >= o->n) return false;
    for (int h = 0; h < 2; h++) {
        const DraftScores *score = &o->score[h];
        for (int rule = 0; rule < RULE_COUNT; rule++)
            may |= score->keep[rule] != NULL && score->keep[rule][at] > 0.0;
        may |=
            !scored(score) && o->drafts[h] != NULL && o->drafts[h][at] == o->ids[s->T[r] + 1 + j];
    }
    return may;
}

// The drafts behind step j of an anchor are not made: none stands.
static void leave_rest(const Simulator *s, const SimulateJob *o, int64_t r, int j) {
    for (int64_t at = s->anchor[r] * s->K + j + 1; at < (s->anchor[r] + 1) * s->K; at++)
        for (int h = 0; h < 2; h++) {
            const DraftScores *score = &o->score[h];
            double *const value[] = {score->top, score->drawn};
            if (o->drafts[h] != NULL) o->drafts[h][at] = -1;
            if (o->margin[h] != NULL) o->margin[h][at] = 0.0f;
            for (int i = 0; i < 2; i++)
                if (value[i] != NULL) value[i][at] = 0.0;
            for (int rule = 0; rule < RULE_COUNT; rule++) {
                if (score->keep[rule] != NULL) score->keep[rule][at] = 0.0;
                if (score->alpha[rule] != NULL) score->alpha[rule][at] = 0.0;
            }
        }
}

static void move_row(const Simulator *s, int64_t to, int64_t from) {
    s->T[to] = s->T[from];
    s->seq_of[to] = s->seq_of[from];
    s->job[to] = s->job[from];
    s->place[to] = s->place[from];
    s->anchor[to] = s->anchor[from];
    s->dead[to] = s->dead[from];
}

// Marks the anchors that need no draft behind step j; returns how many do.
static int64_t mark_dead(const Call *c, int j) {
    Simulator *s = c->s;
    int64_t left = 0;
    for (int64_t r = 0, end; r < c->rows; r = end) { // job by job
        const SimulateJob *o = &c->job[s->job[r]];
        for (end = r; end < c->rows && s->job[end] == s->job[r];) end++;
        walk_room(s, s->anchor[end - 1] + 1);
        pass_anchors(s, o, s->anchor[end - 1], j + 1);
        for (int64_t i = r; i < end; i++) {
            s->dead[i] = !stands(s, o, i, j) || !s->passed[s->anchor[i]];
            left += !s->dead[i];
        }
    }
    return left;
}

bool simulate_drop(Call *c, int j) {
    Simulator *s = c->s;
    int64_t kept = 0;
    if (32 * mark_dead(c, j) > 31 * c->rows) return false;
    for (int64_t r = 0; r < c->rows; r++) {
        if (s->dead[r]) {
            leave_rest(s, &c->job[s->job[r]], r, j);
            continue;
        }
        s->token[kept] = (int32_t)r;
        move_row(s, kept++, r);
    }
    c->rows = kept;
    if (kept == 0) return true;
    const Tensor row = tensor_cols(c->b.row_index, 0, kept);
    dev_upload(s->dev, row, s->token);
    op_gather(s->dev, tensor_rows(s->feature, 0, kept), c->b.acts.f, row, 1.0f);
    simulate_lay_out(c);
    features_set(c->pack, s->T, s->seq_of, kept, &c->set, s->seg[LAYER_SLIDING],
                 s->seg[LAYER_FULL]);
    anchor_plan(c->a, &c->set, &c->plan, &s->arena);
    return true;
}
