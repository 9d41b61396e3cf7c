// infer/decode/simulate_reached.c - anchors leave a call once nothing behind their last draft
// counts.
#include "infer/decode/simulate_parts.h"

// Whether a draft behind step j can count: text is left, and draft j may stand by a rule.
static bool stands(const Simulator *s, const SimulateJob *o, int64_t r, int j) {
    const int64_t at = s->anchor[r] * s->K + j;
    bool may = false;
    if (s->dead[r] || s->T[r] + 2 + j >= o->n) return false;
    for (int h = 0; h < 2; h++) {
        const DraftScores *score = &o->score[h];
        bool scored = false;
        for (int rule = 0; rule < RULE_COUNT; rule++) {
            scored |= score->keep[rule] != NULL;
            may |= score->keep[rule] != NULL && score->keep[rule][at] > 0.0;
        }
        may |= !scored && o->drafts[h] != NULL && o->drafts[h][at] == o->ids[s->T[r] + 1 + j];
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

bool simulate_drop(Call *c, int j) {
    Simulator *s = c->s;
    int64_t left = 0, kept = 0;
    for (int64_t r = 0; r < c->rows; r++) {
        s->dead[r] = !stands(s, &c->job[s->job[r]], r, j);
        left += !s->dead[r];
    }
    if (32 * left > 31 * c->rows) return false;
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
