// infer/export/card_runtimes.c - which runtime loads which artifact, how, since when, and what is
// known to go wrong. Tables: a runtime or a limit is a row.
#include <string.h>

#include "infer/export/card_parts.h"

enum {
    CARD_ANY_MLX = CARD_MLX | CARD_MLX_PACKED,
    CARD_ANY_GGUF = CARD_GGUF | CARD_GGUF_IK,
    CARD_DRAFTERS = CARD_HF | CARD_ANY_MLX | CARD_ANY_GGUF,
};

typedef enum {
    ALWAYS,
    PLAIN_HEAD,  // unless the table of an ordered head is packed
    PACKED_HEAD, // exactly then
    ORDERED,     // centroid head
    RUNNABLE,    // a pair that MTPLX takes
    NOT_RUNNABLE,
} Condition;

static bool holds(Condition when, const CardFacts *c) {
    const bool packed = c->ordered && c->packed_head;
    switch (when) {
    case PLAIN_HEAD:
        return !packed;
    case PACKED_HEAD:
        return packed;
    case ORDERED:
        return c->ordered;
    case RUNNABLE:
        return c->mtplx_runnable;
    case NOT_RUNNABLE:
        return !c->mtplx_runnable;
    default:
        return true;
    }
}

// {k}: recommended drafts a round, {b}: k + 1. T = the target, A = this artifact.
static const struct {
    unsigned reads; // CardKind bits
    Condition when;
    const char *name, *versions, *command;
} RUNTIMES[] = {
    {CARD_HF, ALWAYS, "transformers",
     "5.8 to 5.22; tried with 5.22.2. 5.23.0 cannot build any Gemma 4 assistant",
     "assistant = AutoModelForCausalLM.from_pretrained(\"A\", dtype=torch.bfloat16)\n"
     "target.generate(**inputs, assistant_model=assistant)"},
    {CARD_HF, ALWAYS, "vLLM", "0.21.0, or 0.27 and newer: 0.25 and 0.26 crash at start",
     "vllm serve T --speculative-config "
     "'{\"method\":\"mtp\",\"model\":\"A\",\"num_speculative_tokens\":{k}}'"},
    {CARD_HF, ALWAYS, "SGLang", "since May 2026",
     "python -m sglang.launch_server --model-path T --speculative-algorithm NEXTN "
     "--speculative-draft-model-path A --speculative-num-steps {k} "
     "--speculative-num-draft-tokens {b} --speculative-eagle-topk 1"},
    {CARD_HF, ALWAYS, "mistral.rs", "with --mtp-model",
     "mistralrs run -m T --mtp-model A --mtp-n-predict {k}"},
    {CARD_HF, ALWAYS, "Ollama", "0.23.1 and newer, MLX engine; a Modelfile with",
     "FROM T\nDRAFT A"},
    {CARD_HF | CARD_ANY_MLX, PLAIN_HEAD, "mlx-vlm",
     "with --draft-kind; tried with 0.7.10 and mlx 0.32.4. It drafts {k} tokens a round",
     "python -m mlx_vlm.generate --model T --draft-model A --draft-kind mtp --draft-block-size "
     "{b}"},
    {CARD_ANY_MLX, ALWAYS, "mlx-swift-lm", "since June 2026, ordered heads since July 2026",
     "MTPDrafterModelFactory.shared.loadContainer, blockSize {b}"},
    {CARD_HF | CARD_MLX, ALWAYS, "mlx-optiq", "reads unquantised drafters; one draft a round",
     "optiq serve --model T --drafter A"},
    {CARD_GGUF, ALWAYS, "llama.cpp", "since June 2026; tried with b11434",
     "llama-server -m T.gguf -md A.gguf --spec-type draft-mtp --spec-draft-n-max {k} "
     "--spec-draft-p-min 0"},
    {CARD_ANY_GGUF, ALWAYS, "ik_llama.cpp", "as of August 2026",
     "llama-server -m T.gguf -md A.gguf --spec-type mtp:n_max={k},p_min=0.0 -ngld 99"},
    {CARD_TARGET_HF, ALWAYS, "transformers", "5.8 to 5.22",
     "target = AutoModelForCausalLM.from_pretrained(\"T\", dtype=torch.bfloat16)"},
    {CARD_TARGET_HF, ALWAYS, "vLLM", "see the drafter's card for the versions", "vllm serve T"},
    {CARD_TARGET_HF, ALWAYS, "mlx-vlm", "reads the Hugging Face folder as it is",
     "python -m mlx_vlm.generate --model T --draft-model A --draft-kind mtp"},
    {CARD_TARGET_MLX, ALWAYS, "mlx-lm", "with gemma4", "mlx_lm.generate --model T --prompt ..."},
    {CARD_MTPLX, RUNNABLE, "MTPLX", "with Gemma 4 pairs (2.x); this folder is the model",
     "mtplx bench gemma-mtp --target-model target --assistant-model assistant --prompt-suite "
     "benchmarks/held_out.jsonl --max-tokens 1000 --draft-block-sizes {b} "
     "--allow-unverified-gemma"},
};

static const struct {
    unsigned of;
    Condition when;
    const char *text;
} LIMITS[] = {
    {CARD_DRAFTERS | CARD_MTPLX, ALWAYS,
     "It drafts for the target named above and no other: the width of the hidden states and the "
     "vocabulary must be that target's."},
    {CARD_DRAFTERS, ALWAYS,
     "It is fed the target's hidden state *after* its final norm, and the target's shared K/V. A "
     "port that feeds the state before that norm accepts a few percent."},
    {CARD_HF, ALWAYS,
     "vLLM with a quantised target: leave `quantization` unset in the speculative configuration."},
    {CARD_HF, ALWAYS,
     "transformers up to 5.17 feeds the first draft after the prompt a wrong hidden state; its "
     "acceptance there is slightly low."},
    {CARD_ANY_MLX, PACKED_HEAD,
     "mlx-vlm (0.7.10) cannot draft from it: it gathers rows of the packed table. mlx-swift-lm "
     "can."},
    {CARD_MLX_PACKED, ALWAYS,
     "transformers and vLLM cannot read MLX's quantised files; use the Hugging Face export there."},
    {CARD_ANY_MLX, ALWAYS, "mlx-lm does not load assistants."},
    {CARD_ANY_GGUF, ALWAYS,
     "Loaded alone it fails by design (\"requires ctx_other\"): give the target beside it. LM "
     "Studio (0.4.20) has no way to do so."},
    {CARD_ANY_GGUF, ORDERED,
     "The dense head is what these engines draft with: compare with the dense row of a "
     "measurement."},
    {CARD_GGUF_IK, ALWAYS,
     "In this dialect the full layer's queries rotate where the target's keys do not: acceptance "
     "is lower than with the `gemma4-assistant` file, which newer builds of this engine read too."},
    {CARD_TARGET_MLX, ALWAYS,
     "mlx-vlm wants the towers of a multimodal model: give it the Hugging Face folder."},
    {CARD_MTPLX, NOT_RUNNABLE,
     "**MTPLX does not run this pair**: it takes the dense 31B target with its assistant and "
     "refuses every other (`mtplx_runnable` is false in mtplx_pair.json). The two folders load in "
     "the runtimes of their own formats."},
    {CARD_MTPLX, ALWAYS,
     "MTPLX accepts a draft while the target's own sample equals it, so that at temperatures above "
     "0 fewer drafts stand than with rejection sampling; the output is the target's either way."},
};

// The command's lines indented as code, placeholders filled in.
static void print_filled(OutFile *f, const char *text, const CardFacts *c, const char *indent) {
    out_printf(f, "%s", indent);
    for (const char *p = text; *p != '\0'; p++) {
        if (strncmp(p, "{k}", 3) == 0 || strncmp(p, "{b}", 3) == 0) {
            out_printf(f, "%lld", (long long)(c->draft_tokens + (p[1] == 'b')));
            p += 2;
        } else if (*p == '\n') {
            out_printf(f, "\n%s", indent);
        } else {
            out_write(f, p, 1);
        }
    }
}

void card_use(OutFile *f, const CardFacts *c) {
    const bool drafter = card_format(c->kind)->drafter;
    out_printf(f, "\n## Use\n\n");
    if (c->kind == CARD_MTPLX)
        out_printf(f, "Run from this folder");
    else
        out_printf(f, drafter ? "T = the fine-tuned target, A = this artifact"
                              : "T = this folder, A = its drafter");
    if (drafter) out_printf(f, ", k = %lld drafts a round", (long long)c->draft_tokens);
    out_printf(f, ".\n");
    for (size_t i = 0; i < sizeof RUNTIMES / sizeof *RUNTIMES; i++) {
        if (!(RUNTIMES[i].reads & c->kind) || !holds(RUNTIMES[i].when, c)) continue;
        out_printf(f, "\n%s (", RUNTIMES[i].name);
        print_filled(f, RUNTIMES[i].versions, c, "");
        out_printf(f, "):\n\n");
        print_filled(f, RUNTIMES[i].command, c, "    ");
        out_printf(f, "\n");
    }
}

void card_limits(OutFile *f, const CardFacts *c) {
    out_printf(f, "\n## Known limits\n\n");
    for (size_t i = 0; i < sizeof LIMITS / sizeof *LIMITS; i++)
        if ((LIMITS[i].of & c->kind) && holds(LIMITS[i].when, c))
            out_printf(f, "* %s\n", LIMITS[i].text);
}
