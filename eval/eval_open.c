// eval/eval_open.c - what `eval` works on: the target, the held-out capture, the drafters and,
// where it is wanted, the text that quantisation is calibrated on.
#include <string.h>

#include "data/held_out.h"
#include "eval/eval_parts.h"

bool eval_quant_wanted(const Eval *e) {
    return e->s->eval.imatrix || e->s->eval.sensitivity.n > 0;
}

bool eval_open(Eval *e, Err *err) {
    const Settings *s = e->s;
    if (e->shards != NULL) return true;
    e->rows = s->capture.chunk > e->K + 1 ? s->capture.chunk : e->K + 1;
    ShardMeta want = {0};
    if (!identify_target(&e->open, s, err)) return false;
    memcpy(want.target, e->open.fingerprint.hex, sizeof want.target);
    want.hidden = e->open.config.text.hidden;
    want.vocab = e->open.config.text.vocab;
    if ((e->shards = shards_open(e->shards_dir, &want, err)) == NULL) return false;
    e->source = shards_source(e->shards);
    if (e->source.count == 0) return err_set(err, ERR_INPUT, "%s holds no sequence", e->shards_dir);
    if (!check_source(&e->open, &e->source, e->shards_dir, err) ||
        !held_out_check(s, shards_meta(e->shards), e->shards_dir, err))
        return false;
    memory_plan(&e->memory);
    if (!load_target(&e->open, s, e->rows, err)) return false;
    if (e->sweep_options.sampler.temperature > 0) e->sweep_options.target = e->open.target;
    return eval_open_drafters(e, err) &&
           (!eval_quant_wanted(e) || calibration_open(&e->calibration, s, &e->open, err));
}

void eval_close(Eval *e) {
    calibration_close(&e->calibration);
    for (int i = 0; i < e->n; i++) {
        sweep_free(&e->sweep[i]);
        assistant_close(e->drafter[i].assistant);
    }
    shards_close(e->shards);
    close_target(&e->open);
}
