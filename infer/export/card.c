// infer/export/card.c - front matter, the measured table, definitions, and how to run it.
#include "infer/export/card.h"

#include <stdio.h>
#include <string.h>

#include "infer/base/json.h"

// The rule that the measurement is about; files of before there were others have none.
static const char *rule(const json_t *acceptance) {
    const char *first = json_string_value(json_array_get(json_object_get(acceptance, "rules"), 0));
    return first != NULL ? first : "greedy";
}

static const json_t *deployed(const json_t *acceptance, const char *drafter) {
    return json_object_get(json_object_get(json_object_get(acceptance, "drafters"), drafter),
                           rule(acceptance));
}

static const json_t *paired(const json_t *acceptance) {
    return json_object_get(json_object_get(acceptance, "paired"), rule(acceptance));
}

static bool number_at(const json_t *array, size_t i, double *out) {
    const json_t *x = json_array_get(array, i);
    *out = json_number_value(x);
    return json_is_number(x);
}

static bool pair_at(const json_t *array, size_t i, double *lo, double *hi) {
    const json_t *pair = json_array_get(array, i);
    return number_at(pair, 0, lo) && number_at(pair, 1, hi);
}

bool measurement_at(Measurement *m, const json_t *acceptance, int64_t k, Err *err) {
    *m = (Measurement){0};
    const json_t *list = json_object_get(acceptance, "draft_tokens");
    size_t at = 0;
    while (at < json_array_size(list) && json_integer_value(json_array_get(list, at)) != k) at++;
    const json_t *stock = deployed(acceptance, "stock"), *trained = deployed(acceptance, "trained");
    if (at == json_array_size(list) || stock == NULL || trained == NULL) return true;
    if (!number_at(json_object_get(stock, "tau"), at, &m->stock) ||
        !number_at(json_object_get(trained, "tau"), at, &m->trained) ||
        !number_at(json_object_get(paired(acceptance), "gain"), at, &m->gain) ||
        !pair_at(json_object_get(paired(acceptance), "ci"), at, &m->lo, &m->hi))
        return err_set(err, ERR_INPUT,
                       "acceptance.json: tau, gain or ci at %lld draft tokens is not a number",
                       (long long)k);
    m->known = true;
    return true;
}

void card_model_name(const char *dir, char out[256]) {
    const char *hub = strstr(dir, "models--");
    char clean[PATH_ROOM];
    snprintf(clean, sizeof clean, "%s", hub ? hub + 8 : dir);
    size_t n = strlen(clean);
    while (n > 1 && clean[n - 1] == '/') clean[--n] = '\0';
    if (hub == NULL) {
        snprintf(out, 256, "%.255s", path_base(clean));
        return;
    }
    clean[strcspn(clean, "/")] = '\0';
    char *dash = strstr(clean, "--");
    if (dash == NULL)
        snprintf(out, 256, "%.255s", clean);
    else
        snprintf(out, 256, "%.*s/%.127s", (int)(dash - clean > 120 ? 120 : dash - clean), clean,
                 dash + 2);
}

static void front_matter(OutFile *f, const CardFacts *c, const char *stock) {
    const bool mlx = c->format == CARD_MLX;
    out_printf(
        f,
        "---\nlicense: apache-2.0\nlicense_link: https://www.apache.org/licenses/LICENSE-2.0\n"
        "base_model:\n- \"%s\"\nbase_model_relation: finetune\nlibrary_name: %s\n"
        "pipeline_tag: text-generation\ntags:\n- gemma4\n- gemma4_assistant\n"
        "- speculative-decoding\n- mtp\n- drafter\n",
        stock, mlx ? "mlx" : "transformers");
    if (mlx) out_printf(f, "- mlx\n");
    out_printf(f, "---\n");
}

static void provenance(OutFile *f, const CardFacts *c, const char *stock, const char *target) {
    char adapter[256];
    out_printf(f,
               "\n# Drafter for %s\n\nA Gemma 4 assistant (multi-token-prediction drafter), "
               "retrained from "
               "`%s` for one fine-tuned target. It drafts for that target only.\n\n",
               target, stock);
    out_printf(f, "| | |\n|---|---|\n| target | `%s` |\n", target);
    if (c->adapter_dir != NULL && c->adapter_dir[0] != '\0') {
        card_model_name(c->adapter_dir, adapter);
        out_printf(f, "| adapter merged into it | `%s` |\n", adapter);
    }
    if (c->target_fingerprint[0] != '\0')
        out_printf(f, "| target fingerprint (SHA-256) | `%s` |\n", c->target_fingerprint);
    out_printf(f, "| stock drafter | `%s` |\n| recommended draft tokens k | %lld |\n", stock,
               (long long)c->draft_tokens);
    if (c->trained_k > 0)
        out_printf(
            f, "| trained draft steps | %lld |\n| optimiser steps of this checkpoint | %lld |\n",
            (long long)c->trained_k, (long long)c->steps);
    out_printf(f, "| SHA-256 of model.safetensors | `%s` |\n", c->sha256);
}

static bool table(OutFile *f, const json_t *a, Err *err) {
    const json_t *list = json_object_get(a, "draft_tokens");
    const char *head = json_string_value(json_object_get(deployed(a, "stock"), "head"));
    const char *sampler = json_string_value(json_object_get(a, "sampler"));
    out_printf(f,
               "\n## Measured\n\n%lld held-out prompts, %lld tokens generated by the target itself "
               "(%s), head: %s, rule: %s.\n\n",
               (long long)json_integer_value(json_object_get(a, "prompts")),
               (long long)json_integer_value(json_object_get(a, "tokens")),
               sampler ? sampler : "greedy", head ? head : "deployed", rule(a));
    double confidence = 0.95;
    if (!json_get_f64(json_object_get(a, "bootstrap"), "confidence", &confidence, err))
        return false;
    out_printf(f,
               "| k | tau stock | tau this drafter | gain | %g %% interval of the gain |\n"
               "|---|---|---|---|---|\n",
               100 * confidence);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const int64_t k = json_integer_value(json_array_get(list, i));
        Measurement m;
        if (!measurement_at(&m, a, k, err)) return false;
        if (m.known)
            out_printf(f, "| %lld | %.3f | %.3f | %+.1f %% | %+.1f to %+.1f %% |\n", (long long)k,
                       m.stock, m.trained, 100 * m.gain, 100 * m.lo, 100 * m.hi);
    }
    out_printf(f, "\ntau(k) = tokens per target step with k drafts a round: tokens generated after "
                  "the first / "
                  "rounds, bonus token included (ceiling k + 1), the last round cut at the end of "
                  "the text; greedy, "
                  "pooled over prompts. gain = tau / tau of the stock drafter - 1 on the same "
                  "prompts; the interval is "
                  "a paired bootstrap over prompts. Speculative decoding changes the speed of the "
                  "target, not its "
                  "output: greedy text stays token for token what the target writes alone (ties of "
                  "its two best "
                  "logits apart).\n");
    return true;
}

static void usage(OutFile *f, const CardFacts *c) {
    const long long k = (long long)c->draft_tokens;
    out_printf(f, "\n## Use\n\nT = the fine-tuned target, A = this folder, k = %lld.\n\n", k);
    if (c->format == CARD_MLX) {
        out_printf(f,
                   "mlx-vlm (drafts block size - 1 tokens):\n\n"
                   "    python -m mlx_vlm.generate --model T --draft-model A --draft-kind mtp "
                   "--draft-block-size %lld\n\n"
                   "mlx-swift-lm: `MTPDrafterModelFactory.shared.loadContainer`, blockSize %lld.\n",
                   k + 1, k + 1);
    } else {
        out_printf(
            f,
            "transformers (5.8 or newer; 5.23.0 cannot build any Gemma 4 assistant):\n\n"
            "    assistant = AutoModelForCausalLM.from_pretrained(\"A\", dtype=torch.bfloat16)\n"
            "    target.generate(**inputs, assistant_model=assistant)\n\n"
            "vLLM:\n\n"
            "    vllm serve T --speculative-config "
            "'{\"method\":\"mtp\",\"model\":\"A\",\"num_speculative_tokens\":%lld}'\n\n"
            "SGLang:\n\n"
            "    --speculative-algorithm NEXTN --speculative-draft-model-path A "
            "--speculative-num-steps %lld "
            "--speculative-num-draft-tokens %lld --speculative-eagle-topk 1\n\n"
            "mistral.rs:\n\n    mistralrs run -m T --mtp-model A --mtp-n-predict %lld\n",
            k, k, k + 1, k);
    }
    out_printf(f, "\nThe drafter is fed the target's hidden state *after* its final norm, and the "
                  "target's shared K/V.\n");
}

bool card_write(const char *dir, const CardFacts *c, Err *err) {
    char path[PATH_ROOM], stock[256], target[256];
    OutFile f;
    card_model_name(c->stock_dir, stock);
    card_model_name(c->target_dir, target);
    if (!out_open(&f, path_join(path, dir, "README.md"), err)) return false;
    front_matter(&f, c, stock);
    provenance(&f, c, stock, target);
    bool ok = true;
    if (c->acceptance != NULL)
        ok = table(&f, c->acceptance, err);
    else
        out_printf(&f,
                   "\n## Measured\n\nNothing: this drafter was exported without an evaluation.\n");
    if (ok) usage(&f, c);
    if (ok) return out_commit(&f, err);
    out_drop(&f);
    return false;
}
