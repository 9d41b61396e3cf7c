// infer/base/settings_table.c - every setting with its type, default, range and meaning.
#include "infer/base/settings_table.h"

__asm__(".section .rodata\n"
        ".global settings_demo\n"
        "settings_demo: .incbin \"configs/demo.json\"\n"
        ".byte 0\n"
        ".previous\n");

#define INT(name, member, initial, min, max, help)                                                 \
    { name, FIELD_INT, offsetof(Settings, member), initial, min, max, NULL, help }
#define REAL(name, member, initial, min, max, help)                                                \
    { name, FIELD_REAL, offsetof(Settings, member), initial, min, max, NULL, help }
#define BOOL(name, member, initial, help)                                                          \
    { name, FIELD_BOOL, offsetof(Settings, member), initial, 0, 1, NULL, help }
#define STR(name, member, initial, choices, help)                                                  \
    { name, FIELD_STR, offsetof(Settings, member), initial, 0, 0, choices, help }
#define STRS(name, member, initial, choices, help)                                                 \
    { name, FIELD_STRS, offsetof(Settings, member), initial, 0, 0, choices, help }

// 2^53: counts that a double still holds exactly
#define MANY 9007199254740992.0

const Field settings_fields[] = {
    STR("output_dir", output_dir, "runs/run", NULL, "folder of everything a run writes"),

    STR("model.target_path", model.target_path, "", NULL, "folder of the target"),
    STR("model.adapter_path", model.adapter_path, "", NULL,
        "folder of a PEFT LoRA adapter merged into the target; empty: none"),
    STR("model.assistant_path", model.assistant_path, "", NULL, "folder of the stock assistant"),
    INT("model.pos_offset", model.pos_offset, "0", -1, 0,
        "added to the position of draft queries, to imitate another runtime"),
    INT("model.window_extra", model.window_extra, "0", -1, 1,
        "rows added to the sliding window, to imitate another runtime"),
    INT("model.max_positions", model.max_positions, "0", 0, INT32_MAX,
        "longest sequence the target is given, 0 = its max_position_embeddings"),
    STR("model.embed_scale", model.embed_scale, "auto", "auto|f32|bf16",
        "precision of the embedding scale sqrt(hidden)"),

    STRS("data.train", data.train, "", NULL,
         "training prompts: JSONL files (.gz, .zst, .xz), tar and zip archives, folders; "
         "PATH=WEIGHT sets a source's share of the samples taken"),
    STRS("data.eval", data.eval, "", NULL, "held-out prompts, named in the same ways"),
    REAL("data.dev_fraction", data.dev_fraction, "0.05", 0, 0.5,
         "share of the training prompts held out for the choice of a checkpoint"),
    INT("data.max_length", data.max_length, "4096", 2, 1 << 20,
        "tokens of a whole sample; longer ones are skipped and counted"),
    INT("data.max_samples", data.max_samples, "0", 0, MANY, "training prompts taken, 0 = all"),
    INT("data.eval_samples", data.eval_samples, "0", 0, MANY, "held-out prompts taken, 0 = all"),
    INT("data.dev_samples", data.dev_samples, "200", 0, MANY, "dev prompts taken, 0 = all"),
    INT("data.minimum_valid_tokens", data.minimum_valid_tokens, "0", 0, 1 << 20,
        "supervised tokens that a given answer must have"),
    STR("data.turns", data.turns, "last", "last|every",
        "turns of the model that are answered and learned from"),
    STR("data.thinking", data.thinking, "auto", "auto|on|off",
        "whether the model thinks; auto: where a row has reasoning"),
    STR("data.template", data.chat_template, "auto",
        "auto|small-2026-07-09|large-2026-07-09|large-2026-04", "chat template"),
    STR("data.prompt_key", data.prompt_key, "prompt", NULL, "key of the prompt of a completion"),
    STR("data.completion_key", data.completion_key, "completion", NULL, "key of the completion"),
    STR("data.bad_lines", data.bad_lines, "stop", "stop|count",
        "a line that is no JSON object ends the run, or is counted as failed"),
    INT("data.seed", data.seed, "0", 0, MANY, "seed of the split"),

    STR("regenerate.answers", regenerate.answers, "target", "target|reference",
        "answers by the target itself, or those given in the data"),
    INT("regenerate.max_new_tokens", regenerate.max_new_tokens, "1024", 1, 1 << 20,
        "tokens of an answer at most"),
    INT("regenerate.batch", regenerate.batch, "64", 1, 4096, "sequences decoded at once"),
    STR("regenerate.held_out", regenerate.held_out, "greedy", "greedy|sampled",
        "how dev and eval answers are made: greedily, or with the sampler below"),
    REAL("regenerate.temperature", regenerate.temperature, "0", 0, 10, "0 = greedy"),
    INT("regenerate.top_k", regenerate.top_k, "64", 0, 1 << 20, "best tokens kept, 0 = all"),
    REAL("regenerate.top_p", regenerate.top_p, "0.95", 0, 1, "probability mass kept, 1 = all"),
    INT("regenerate.samples", regenerate.samples, "1", 1, 1024,
        "answers per prompt, 1 when greedy"),
    STR("regenerate.drafter", regenerate.drafter, "none", NULL,
        "none, stock or a drafter's folder: decodes with drafts, the answers stay the same"),
    INT("regenerate.draft_tokens", regenerate.draft_tokens, "3", 1, 16, "drafts a round at most"),
    REAL("regenerate.p_min", regenerate.p_min, "0", 0, 1,
         "drafts end before one whose best token has less probability"),

    INT("capture.shard_mib", capture.shard_mib, "1024", 1, 1 << 20, "size aimed at per shard, MiB"),
    INT("capture.chunk", capture.chunk, "512", 1, 1 << 16, "rows of a prefill chunk"),

    BOOL("train.stream", train.stream, "false", "capture while training, without shards on disk"),
    INT("train.k", train.k, "7", 1, 16, "rollout depth: draft steps trained"),
    STR("train.loss", train.loss, "fkl", "fkl|ce_argmax|ce_label|tv|hybrid",
        "forward KL, cross-entropy on the teacher's choice or the label, total variation, mixture"),
    REAL("train.hybrid_kl", train.hybrid_kl, "0.5", 0, 1, "hybrid: share of the forward KL"),
    REAL("train.route", train.route, "0", 0, 1000, "weight of the centroid routing loss, 0 = off"),
    BOOL("train.route_detached", train.route_detached, "false",
         "the routing loss trains the centroids only"),
    REAL("train.temperature", train.temperature, "1", 0.01, 100,
         "softmax temperature of teacher and student"),
    BOOL("train.detach_feature", train.detach_feature, "false",
         "cut the gradient between draft steps"),
    STR("train.step_weights", train.step_weights, "fixed", "fixed|reach|visit",
        "how draft steps are weighted"),
    REAL("train.step_decay", train.step_decay, "0.9", 0, 1, "fixed: weight of step j = decay^j"),
    REAL("train.reach_smooth", train.reach_smooth, "0.1", 0, 1,
         "reach, visit: c_i becomes (1 - s) c_i + s"),
    STRS("train.freeze", train.freeze, "", NULL, "tensor names or patterns that stay as they are"),
    STR("train.schedule", train.schedule, "cosine", "cosine|linear|constant", "learning rate"),
    REAL("train.lr", train.lr, "0.0003", 0, 1, "peak learning rate"),
    REAL("train.lr_end", train.lr_end, "0.1", 0, 1, "last learning rate as a share of lr"),
    REAL("train.warmup", train.warmup, "0.05", 0, 1, "share of the steps spent warming up"),
    REAL("train.beta1", train.beta1, "0.9", 0, 0.9999999, "AdamW"),
    REAL("train.beta2", train.beta2, "0.95", 0, 0.9999999, "AdamW"),
    REAL("train.eps", train.eps, "1e-8", 1e-30, 1, "AdamW"),
    REAL("train.weight_decay", train.weight_decay, "0", 0, 10, "AdamW, decoupled"),
    REAL("train.clip", train.clip, "1", 0, 1e9, "largest gradient norm, 0 = unclipped"),
    REAL("train.ema", train.ema, "0", 0, 0.9999999,
         "decay of the weight average that is evaluated, 0 = off"),
    INT("train.steps", train.steps, "0", 0, MANY, "optimiser steps, 0 = by epochs"),
    REAL("train.epochs", train.epochs, "2", 0, 1e6, "passes over the data"),
    INT("train.batch_sequences", train.batch_sequences, "8", 1, 4096, "sequences per step"),
    INT("train.anchors", train.anchors, "0", 0, MANY,
        "draft positions per sequence and visit, 0 = every supervised one"),
    STR("train.anchor_choice", train.anchor_choice, "uniform", "uniform|visit",
        "fewer than all are drawn alike, or by how likely decoding starts a round there; losses "
        "are "
        "reweighted to the same objective"),
    REAL(
        "train.anchor_far", train.anchor_far, "0.5", 0, 100,
        "visit: added to the odds of an anchor by every doubling of its context beyond the window"),
    INT("train.tile", train.tile, "4096", 1, 1 << 24,
        "anchors rolled out at once; the memory of a step grows with it, its time hardly falls"),
    STR("train.dtype", train.dtype, "auto", "auto|f32|bf16", "storage of what enters the GEMMs"),
    INT("train.dev_every", train.dev_every, "50", 0, MANY,
        "steps between evaluations on dev, 0 = only at the end"),
    INT("train.save_every", train.save_every, "100", 1, MANY, "steps between checkpoints"),
    INT("train.keep", train.keep, "0", 0, MANY, "checkpoints kept beside the best and newest two"),
    INT("train.seed", train.seed, "0", 0, MANY, "seed of order and anchors"),

    INT("eval.draft_tokens", eval.draft_tokens, "9", 1, 16, "largest k measured"),
    INT("eval.select_k", eval.select_k, "7", 1, 16,
        "k whose simulated tokens per target step choose the best checkpoint"),
    INT("eval.bootstrap", eval.bootstrap, "2000", 100, 1000000, "resamples of the intervals"),
    REAL("eval.confidence", eval.confidence, "0.95", 0.5, 0.9999, "of the intervals"),
    INT("eval.audit_prompts", eval.audit_prompts, "8", 0, MANY,
        "prompts decoded live beside the simulator"),
    INT("eval.audit_draws", eval.audit_draws, "1000", 0, MANY,
        "answers that audit draws with and without drafts, 0 = none"),
    STR("eval.drafter", eval.drafter, "", NULL,
        "folder of a trained drafter for eval alone; empty: the best checkpoint"),
    STR("eval.cost", eval.cost, "measure", NULL,
        "what a round costs: measure it here, none, or the JSON file of another device"),
    INT("eval.cost_context", eval.cost_context, "512", 1, 1 << 20,
        "rows of context while it is measured, fewer where the model allows fewer"),
    STRS("eval.drafters", eval.drafters, "", NULL,
         "more drafters measured in the same run: PATH or NAME=PATH, a folder or a .gguf file"),
    STRS("eval.p_min", eval.p_min, "0.3,0.5,0.7,0.8,0.9,0.95", NULL,
         "p-min thresholds that are counted beside 0"),
    BOOL("eval.imatrix", eval.imatrix, "false",
         "importance of every column, from the drafter's own rollout: eval/imatrix.gguf and .dat"),
    STRS("eval.sensitivity", eval.sensitivity, "", "mlx|gguf|target",
         "what each module loses at each width, and the mixture of widths that follows"),
    STR("eval.mix_method", eval.mix_method, "tokens", "tokens|optiq",
        "mixture by lost tokens per step and byte, or by KL as mlx-optiq does"),
    REAL(
        "eval.mix_bpw", eval.mix_bpw, "5", 2, 16,
        "bits per weight of the mixture: at most (tokens), or at least and without scales (optiq)"),
    STR("eval.calibrate_on", eval.calibrate_on, "train", "train|dev",
        "captured split that imatrix and sensitivity are measured on"),
    INT("eval.calibrate_sequences", eval.calibrate_sequences, "64", 1, MANY,
        "sequences of it, as many of every category"),
    INT("eval.seed", eval.seed, "0", 0, MANY, "seed of the bootstrap"),

    STRS("export.to", export_.to, "hf,mlx,target-hf",
         "hf|mlx|mlx:*|target-hf|target-mlx|target-mlx:*|mtplx|mtplx:*",
         "formats written; `export --help` tells them"),
    INT("export.draft_tokens", export_.draft_tokens, "0", 0, 16,
        "num_assistant_tokens, 0 = the stock's"),
    BOOL("export.force", export_.force, "false", "export even when below stock"),
    STR("export.checkpoint", export_.checkpoint, "", NULL, "checkpoint folder; empty: the best"),
    INT("export.group", export_.group, "64", 32, 128,
        "weights that share a scale in affine MLX files: 32, 64 or 128"),
    BOOL("export.heads", export_.heads, "false",
         "quantise table and centroids of an ordered head in MLX files too: mlx-vlm cannot draft "
         "from them"),
    STR("export.requant", export_.requant, "auto", "auto|never|always",
        "MLX codes chosen for the scale as it is stored: less error than mx.quantize, other bytes; "
        "auto: at 8 bits"),
    STR("export.mix", export_.mix, "", NULL,
        "file that says how mlx:mixed stores each module; empty: eval/mix-mlx.json"),
    STR("export.target_mix", export_.target_mix, "", NULL,
        "the same for target-mlx:mixed; empty: eval/mix-target.json"),

    STR("generate.prompt", generate.prompt, "", NULL, "a user turn"),
    INT("generate.max_new_tokens", generate.max_new_tokens, "256", 1, 1 << 20,
        "tokens of the answer at most"),
    INT("generate.draft_tokens", generate.draft_tokens, "4", 0, 16, "0 = no drafter"),
    STR("generate.drafter", generate.drafter, "", NULL,
        "drafter folder; empty: the stock assistant"),
    STR("generate.draft_rule", generate.draft_rule, "rejection", "rejection|strict|best",
        "which drafts stand where regenerate.temperature is not 0"),
    REAL("generate.p_min", generate.p_min, "0", 0, 1,
         "drafts end before one whose best token has less probability"),
    BOOL("generate.raw", generate.raw, "false", "the prompt is already rendered text"),

    STR("bench.shapes", bench.shapes, "all", "demo|e4b|all", "model sizes measured"),
    INT("bench.seq", bench.seq, "1024", 16, 1 << 17, "tokens of a sequence"),
    INT("bench.k", bench.k, "6", 1, 16, "rollout depth"),
    INT("bench.repeat", bench.repeat, "3", 1, 1000, "timed repetitions; the median counts"),
    BOOL("bench.peers", bench.peers, "false", "run the PyTorch peers beside it"),
    STR("bench.peer_path", bench.peer_path, "", NULL, "folder of the peers' scripts"),
    STR("bench.peer_tokenizer", bench.peer_tokenizer, "tests/peer_tokenizer.py", NULL,
        "script that encodes with Hugging Face's tokenizers"),
    STR("bench.tokenizer", bench.tokenizer, "", NULL, "tokenizer.json timed, empty: the target's"),
    STRS("bench.text", bench.text, "configs/demo/prompts/general.train.jsonl.zst", NULL,
         "JSON lines whose text is encoded"),
    STR("bench.python", bench.python, "python3", NULL, "interpreter of the peers"),

    STR("report.out", report.out, "", NULL,
        "folder of the report; empty: beside the acceptance.json, for several \"report\""),

    STR("runtime.device", runtime.device, "auto", "auto|cpu|cuda|cuda:[0-9]|cuda:[0-9][0-9]",
        "where it computes"),
    INT("runtime.threads", runtime.threads, "0", 0, 4096, "0 = all cores"),
    STR("runtime.dtype", runtime.dtype, "auto", "auto|f32|bf16", "precision of inference"),
};

const int settings_field_count = (int)(sizeof settings_fields / sizeof settings_fields[0]);
