// infer/base/settings.h - every setting of every verb, in one typed structure.
//
// The table in settings.c is the schema: it gives parsing, unknown-key refusal with the nearest
// name, ranges, `section.field=value` overrides, --help and the resolved config. Lists are JSON
// arrays in a file and comma lists on the command line. Strings are owned by the Settings.
#ifndef BASE_SETTINGS_H
#define BASE_SETTINGS_H

#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "infer/base/err.h"

typedef struct {
    char **item;
    int n;
} StrList;

typedef struct {
    char *output_dir;
    struct {
        char *target_path, *adapter_path, *assistant_path; // folders; adapter "" = none
        int64_t pos_offset,
            window_extra;      // parity switches of the assistant (design 1): -1..0, -1..1
        int64_t max_positions; // 0 = max_position_embeddings of the target
        char *embed_scale;     // auto | f32 | bf16: sqrt(hidden) as stored by the runtime
    } model;
    struct {
        StrList train, eval; // files, archives, folders; "PATH=WEIGHT" (data/inputs.h)
        double dev_fraction; // share of the training prompts held out by hash for checkpoint choice
        int64_t max_length;  // tokens of a whole sample; longer ones are skipped and counted
        int64_t max_samples; // prompts taken per split, 0 = all
        int64_t eval_samples;         // prompts taken from data.eval, 0 = all
        int64_t dev_samples;          // cap on dev prompts, 0 = all
        int64_t minimum_valid_tokens; // supervised tokens that a given answer must have
        char *turns;         // last | every: which turns of the model are answered and learned from
        char *thinking;      // auto | on | off; auto: where a row has reasoning
        char *chat_template; // auto | small-2026-07-09 | large-2026-07-09 | large-2026-04
                             // ("data.template")
        char *prompt_key, *completion_key; // of rows with a prompt and its completion
        char *bad_lines;                   // stop | count: a line that is no JSON object
        int64_t seed;
    } data;
    struct {
        char *held_out; // greedy | sampled: dev and eval answers
        char *answers;  // target: regenerate | reference: keep the answers given in the data
        int64_t max_new_tokens;
        int64_t batch;      // sequences decoded at once
        double temperature; // 0 = greedy
        int64_t top_k;
        double top_p;
        int64_t samples; // answers per prompt (must be 1 when greedy)
        char *drafter;   // none | stock | folder: speed, never the answers
        int64_t draft_tokens;
        double p_min; // drafts end before one that the drafter gives less; 0 = never
    } regenerate;
    struct {
        int64_t shard_mib; // size aimed at per shard
        int64_t chunk;     // prefill rows at once
    } capture;
    struct {
        bool stream;               // capture feeds the trainer without shards on disk
        int64_t k;                 // rollout depth
        char *loss;                // fkl | ce_argmax | ce_label | tv | hybrid
        double hybrid_kl;          // hybrid = hybrid_kl * fkl + (1 - hybrid_kl) * tv
        double route;              // weight of the centroid routing loss, 0 = off
        bool route_detached;       // routing loss trains the centroids only
        double temperature;        // of teacher and student softmax
        bool detach_feature;       // cut the gradient between draft steps
        char *step_weights;        // fixed | reach | visit
        double step_decay;         // fixed: weight of step j = step_decay^j
        double reach_smooth;       // reach and visit: c_i -> (1 - s) c_i + s
        StrList freeze;            // tensor names or fnmatch patterns that stay as they are
        char *schedule;            // cosine | linear | constant
        double lr, lr_end, warmup; // lr_end and warmup: fractions of lr and of all steps
        double beta1, beta2, eps, weight_decay, clip;
        double ema;    // 0 = off; else decay of the weight average that is evaluated
        int64_t steps; // 0 = by epochs
        double epochs;
        int64_t batch_sequences;
        int64_t anchors;     // per sequence and visit, 0 = every supervised position
        char *anchor_choice; // uniform | visit
        double anchor_far;
        int64_t tile;       // anchors rolled out at once
        char *dtype;        // auto | f32 | bf16: storage of what enters the GEMMs
        int64_t dev_every;  // steps between evaluations on the dev split, 0 = only at the end
        int64_t save_every; // steps between checkpoints
        int64_t keep;       // checkpoints kept beside best and newest two
        int64_t seed;
    } train;
    struct {
        int64_t draft_tokens;  // largest k measured
        int64_t select_k;      // k whose simulated tau chooses the best checkpoint
        int64_t bootstrap;     // resamples
        double confidence;     // 0.95
        int64_t audit_prompts; // prompts decoded live beside the simulator
        int64_t audit_draws;   // answers drawn with and without drafts, 0 = none
        char *drafter;         // path of a trained drafter for `eval` alone; "" = best checkpoint
        char *cost;            // measure | none | JSON file of another device (eval/cost/cost.h)
        int64_t cost_context;  // rows of context while it is measured
        StrList drafters;      // more of them: DIR or NAME=DIR
        StrList p_min;         // thresholds, each above 0
        bool imatrix;          // what quantisation should mind, into OUTPUT_DIR/eval
        StrList sensitivity;   // mlx, gguf: of the drafter's modules; target: of the target's
        char *mix_method;      // tokens | optiq
        double mix_bpw;        // bits per weight aimed at
        char *calibrate_on;    // train | dev
        int64_t calibrate_sequences;
        int64_t seed;
    } eval;
    struct {
        StrList to;             // hf, mlx, mlx:q8, target-hf, ... (infer/export/export_formats.c)
        int64_t draft_tokens;   // num_assistant_tokens; 0 = the stock's
        bool force;             // export even when below stock
        char *checkpoint;       // "" = best
        int64_t group;          // weights that share a scale in affine MLX files
        bool heads;             // quantise an ordered head too
        char *requant;          // auto | never | always: MLX codes for the scale as stored
        char *mix, *target_mix; // files of mixtures (infer/export/mix.h); "" = none
        char *gguf_mix;         // the same for GGUF
        char *imatrix;          // "" = none
        char *name;             // in names of GGUF files; "" = the adapter's or the target's
        char *archive;          // x.tar or x.zip of everything exported; "" = none
    } export_;                  // "export" in JSON
    struct {
        char *prompt; // a user turn
        int64_t max_new_tokens;
        int64_t draft_tokens; // 0 = no drafter
        char *drafter;        // "" = the stock assistant
        char *draft_rule;     // rejection | strict | best (infer/decode/draft.h)
        double p_min;         // as in regenerate
        bool raw;             // prompt is already rendered text
    } generate;
    struct {
        char *shapes; // demo | e4b | export | all
        int64_t seq, k;
        int64_t repeat;
        bool peers; // also run the PyTorch peers named by bench.peer_path
        char *peer_path, *peer_tokenizer, *peer_quantise, *python;
        char *peer_ggml; // "" = llama-cpp-python's
        int64_t peer_rounds;
        char *tokenizer; // "" = the target's
        StrList text;    // JSON lines whose strings are encoded
    } bench;
    struct {
        char *out; // folder of the report; "" = beside the file, for several "report"
    } report;
    struct {
        char *device;     // auto | cpu | cuda[:n]
        int64_t threads;  // 0 = all cores
        char *dtype;      // auto | f32 | bf16: of inference
        bool graphs;      // of CUDA, for decoding
        int64_t watchdog; // seconds without progress, 0 = off
    } runtime;
} Settings;

// Defaults, then the file (path NULL: the embedded demo configuration), then `overrides` in order.
MUST_CHECK bool settings_load(Settings *s, const char *path, char *const *overrides, int n,
                              Err *err);
// Whether `name` is a field ("train.lr") or the unique short form of one ("lr"); full name in out.
MUST_CHECK bool settings_find(const char *name, char out[96], Err *err);
json_t *settings_json(const Settings *s); // new reference: the resolved configuration
void settings_help(FILE *out, const char *section_or_null);
void settings_free(Settings *s);

#endif
