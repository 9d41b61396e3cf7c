// infer/export/card.c - front matter, where it comes from, its files; the sections of card_*.c
// between them.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/hash_cache.h"
#include "infer/export/card_parts.h"
#include "infer/export/tree.h"

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

// A file of an artifact with its hash.
typedef struct {
    char **name;
    Sha256 *sha;
    int n;
} Files;

static void files_free(Files *f) {
    dir_list_free(f->name, f->n);
    free(f->sha);
}

static bool hash_files(Files *f, const char *dir, const char *cache, Err *err) {
    char path[PATH_ROOM];
    *f = (Files){0};
    if ((f->name = tree_list(dir, &f->n, err)) == NULL) return false;
    f->sha = calloc((size_t)f->n + 1, sizeof *f->sha);
    CHECK_MEMORY(f->sha);
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->name[i], "README.md") != 0 &&
            !sha256_remembered(&f->sha[i], path_join(path, dir, f->name[i]), cache, err))
            return false;
    return true;
}

static const char *hash_of(const Files *f, const char *name) {
    for (int i = 0; name != NULL && i < f->n; i++)
        if (strcmp(f->name[i], name) == 0) return f->sha[i].hex;
    return NULL;
}

typedef struct {
    char stock[256], target[256], adapter[256]; // adapter "": none
} Names;

static void front_matter(OutFile *f, const CardFacts *c, const Names *n) {
    const CardFormat *format = card_format(c->kind);
    out_printf(f, "---\nlicense: apache-2.0\n"
                  "license_link: https://www.apache.org/licenses/LICENSE-2.0\nbase_model:\n");
    if (!format->drafter || c->kind == CARD_MTPLX) out_printf(f, "- \"%s\"\n", n->target);
    if (format->drafter) out_printf(f, "- \"%s\"\n", n->stock);
    out_printf(f,
               "base_model_relation: %s\nlibrary_name: %s\npipeline_tag: text-generation\ntags:\n"
               "- gemma4\n",
               format->relation, format->library);
    if (format->drafter)
        out_printf(f, "- gemma4_assistant\n- speculative-decoding\n- mtp\n- drafter\n");
    for (const char *p = format->tags; *p != '\0'; p += strspn(p, " ")) {
        const int word = (int)strcspn(p, " ");
        out_printf(f, "- %.*s\n", word, p);
        p += word;
    }
    out_printf(f, "---\n");
}

static void title(OutFile *f, const CardFacts *c, const Names *n) {
    if (c->kind == CARD_MTPLX)
        out_printf(f,
                   "\n# %s with its drafter\n\nA fine-tuned Gemma 4 target and a drafter that "
                   "was retrained for it.\n",
                   n->target);
    else if (card_format(c->kind)->drafter)
        out_printf(f,
                   "\n# Drafter for %s\n\nA Gemma 4 assistant (multi-token-prediction drafter), "
                   "retrained from `%s` for one fine-tuned target. It drafts for that target "
                   "only.\n",
                   n->target, n->stock);
    else
        out_printf(f, "\n# %s, merged\n\nThe target that its drafter was retrained for.\n",
                   n->target);
}

static void row(OutFile *f, const char *what, const char *value) {
    if (value != NULL && value[0] != '\0') out_printf(f, "| %s | `%s` |\n", what, value);
}

static void padding(OutFile *f, const CardFacts *c) {
    out_printf(f,
               "\n**Padded.** llama.cpp refuses an assistant as wide as its target, and this one "
               "is: %lld channels both. The file therefore says %lld. The channels beyond the "
               "first %lld are zero in every matrix, the norms' weights over them are halved and "
               "their epsilon is a quarter, which computes the same function; it costs up to %lld "
               "times the bytes. The trained shapes are in the Hugging Face, MLX and `gemma4_mtp` "
               "exports.\n",
               (long long)c->width, (long long)c->padded_width, (long long)c->width,
               (long long)(c->padded_width / c->width));
}

static void provenance(OutFile *f, const CardFacts *c, const Names *n) {
    const CardFormat *format = card_format(c->kind);
    title(f, c, n);
    out_printf(f, "\n| | |\n|---|---|\n| format | %s%s%s |\n", format->title,
               c->encoding[0] != '\0' ? ": " : "", c->encoding);
    row(f, "target", n->target);
    row(f, "adapter merged into it", n->adapter);
    row(f, "target fingerprint (SHA-256)", c->target_fingerprint);
    if (format->drafter) {
        row(f, "stock drafter", n->stock);
        out_printf(f, "| recommended draft tokens k | %lld |\n", (long long)c->draft_tokens);
        if (c->trained_k > 0)
            out_printf(f,
                       "| trained draft steps | %lld |\n| optimiser steps of this checkpoint | "
                       "%lld |\n",
                       (long long)c->trained_k, (long long)c->steps);
        row(f, "SHA-256 of the trained drafter's weights", c->drafter_sha);
    }
    out_printf(f, "\n%s\n", format->changed);
    if (c->padded_width > 0) padding(f, c);
}

static void list_files(OutFile *f, const Files *files) {
    out_printf(f, "\n## Files\n\n| file | SHA-256 |\n|---|---|\n");
    for (int i = 0; i < files->n; i++)
        if (strcmp(files->name[i], "README.md") != 0)
            out_printf(f, "| `%s` | `%s` |\n", files->name[i], files->sha[i].hex);
}

static bool write_sections(OutFile *f, const CardFacts *c, const Files *files, Err *err) {
    Names n = {.adapter = ""};
    card_model_name(c->stock_dir, n.stock);
    card_model_name(c->target_dir, n.target);
    if (c->adapter_dir != NULL && c->adapter_dir[0] != '\0')
        card_model_name(c->adapter_dir, n.adapter);
    front_matter(f, c, &n);
    provenance(f, c, &n);
    if (card_format(c->kind)->drafter && !card_measured(f, c, hash_of(files, c->weights), err))
        return false;
    card_use(f, c);
    card_limits(f, c);
    list_files(f, files);
    return true;
}

bool card_write(const char *dir, const CardFacts *c, Err *err) {
    char path[PATH_ROOM];
    Files files;
    OutFile f;
    bool ok = hash_files(&files, dir, c->hashes, err) &&
              out_open(&f, path_join(path, dir, "README.md"), err);
    if (ok) {
        ok = write_sections(&f, c, &files, err);
        if (ok)
            ok = out_commit(&f, err);
        else
            out_drop(&f);
    }
    files_free(&files);
    return ok;
}
