// eval/eval_parts.h - what the files of the verb `eval` share.
#ifndef EVAL_EVAL_PARTS_H
#define EVAL_EVAL_PARTS_H

#include "data/capture.h"
#include "data/drafter.h"
#include "eval/audit/audit.h"
#include "eval/cost/cost.h"
#include "eval/count/acceptance_json.h"
#include "eval/count/sweep.h"
#include "eval/quant/calibration.h"
#include "infer/base/memory.h"
#include "infer/model/weight_source.h"

enum { EVAL_DRAFTERS_MAX = MEASURE_DRAFTERS_MAX };

// A drafter that is measured. name: "stock", "trained", or its folder's, unique among them.
typedef struct {
    char name[64], path[PATH_ROOM];
    Assistant *assistant;
    ArtifactInfo artifact; // once opened
} EvalDrafter;

typedef struct {
    const Settings *s;
    int K;
    char shards_dir[PATH_ROOM], report[PATH_ROOM], stage[PATH_ROOM];
    char sampler[64]; // of the captured text
    SweepOptions sweep_options;
    OpenTarget open;
    int64_t rows; // of one target call
    ShardSet *shards;
    SeqSource source;
    EvalDrafter drafter[EVAL_DRAFTERS_MAX]; // the stock one first
    int n;
    Sweep sweep[EVAL_DRAFTERS_MAX];
    double sweep_s;          // time of the sweeps
    Calibration calibration; // of imatrix and sensitivity, once opened
    MemoryPlan memory;
} Eval;

// The models, the capture and the drafters, unless they are open.
MUST_CHECK bool eval_open(Eval *e, Err *err);
void eval_close(Eval *e);
bool eval_quant_wanted(const Eval *e); // an imatrix or sensitivities are asked for

// The stock drafter, the trained one where there is one, and those of eval.drafters.
MUST_CHECK bool eval_list_drafters(Eval *e, Err *err);
MUST_CHECK bool eval_open_drafters(Eval *e, Err *err);
// Sampler, rules and p-min of the sweeps, from the settings.
MUST_CHECK bool eval_sweep_options(Eval *e, Err *err);

// The live audit of the captured text with the trained drafter, else the stock one; greedy text.
bool eval_can_audit(const Eval *e);
size_t eval_audit_bytes(const Eval *e);
// Adds "audit" to the report.
MUST_CHECK bool eval_audit(Eval *e, Audit *audit, json_t *report, Err *err);

// What a round costs, by eval.cost; file: read, so that a bad one is refused before anything else.
MUST_CHECK bool eval_cost_read(const Settings *s, CostTable *table, Err *err);
size_t eval_cost_bytes(const Eval *e);  // of the measurement, beside the models
RoundMix round_of(const Acceptance *a); // its mean round
// Adds "cost" and "recommendation" to the report of the sweeps.
MUST_CHECK bool eval_cost(Eval *e, json_t *report, Err *err);

// Imatrix, sensitivities and mixtures of the trained drafter, else of the stock one, where they are
// asked for and not there yet. Files beside the report.
size_t eval_quant_bytes(const Eval *e); // beside the models; the calibration is open
MUST_CHECK bool eval_quant(Eval *e, bool overwrite, Err *err);

#endif
