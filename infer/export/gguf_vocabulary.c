// infer/export/gguf_vocabulary.c - tokenizer.*: the target's vocabulary, as llama.cpp's converter
// writes it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/export/gguf_keys.h"

enum { JSON_LIMIT = 16 << 20, TEMPLATE_LIMIT = 4 << 20 };
// llama.cpp's token types
enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_BYTE = 6 };

// A borrowed empty object stands for an absent file. New reference.
static json_t *read_optional(const char *dir, const char *name, Err *err) {
    char path[PATH_ROOM];
    if (!file_exists(path_join(path, dir, name))) return json_object();
    json_t *o = json_read_file(path, JSON_LIMIT, err);
    if (o == NULL || json_is_object(o)) return o;
    err_set(err, ERR_INPUT, "%s: not a JSON object", path);
    json_decref(o);
    return NULL;
}

// The same for tokenizer_config.json, whose model_max_length of 10^30 is no integer of ours.
static json_t *read_tokenizer_config(const char *dir, Err *err) {
    char path[PATH_ROOM];
    size_t size;
    json_error_t why;
    if (!file_exists(path_join(path, dir, "tokenizer_config.json"))) return json_object();
    char *text = file_read(path, JSON_LIMIT, &size, err);
    if (text == NULL) return NULL;
    json_t *o = json_loadb(text, size, JSON_DECODE_INT_AS_REAL | JSON_REJECT_DUPLICATES, &why);
    free(text);
    if (json_is_object(o)) return o;
    if (o == NULL)
        err_set(err, ERR_INPUT, "%s:%d:%d: not valid JSON: %s", path, why.line, why.column,
                why.text);
    else
        err_set(err, ERR_INPUT, "%s: not a JSON object", path);
    json_decref(o);
    return NULL;
}

// tokenizer_config.json's own template wins over the files beside it; of several, "default".
static bool read_template(GgufTexts *t, const char *dir, Err *err) {
    char path[PATH_ROOM];
    size_t size, i;
    const json_t *own = json_object_get(t->tokenizer_config, "chat_template"), *one;
    const char *text = json_string_value(own);
    json_array_foreach(own, i, one) {
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name != NULL && strcmp(name, "default") == 0)
            text = json_string_value(json_object_get(one, "template"));
    }
    if (text != NULL)
        return (t->chat_template = strdup(text)) != NULL ||
               err_set(err, ERR_FAILED, "out of memory");
    if (file_exists(path_join(path, dir, "chat_template.jinja")))
        return (t->chat_template = file_read(path, TEMPLATE_LIMIT, &size, err)) != NULL;
    json_t *o = read_optional(dir, "chat_template.json", err);
    if (o == NULL) return false;
    text = json_string_value(json_object_get(o, "chat_template"));
    if (text != NULL) t->chat_template = strdup(text);
    json_decref(o);
    return true;
}

static bool load_tokenizer(GgufTexts *t, const GgufJob *job, Err *err) {
    char path[PATH_ROOM];
    path_join(path, job->tokenizer_dir, "tokenizer.json");
    if ((t->tokenizer = tokenizer_load(path, err)) == NULL) return false;
    const int64_t have = tokenizer_vocab(t->tokenizer), rows = job->config->text.vocab;
    if (have != rows)
        return err_set(err, ERR_INPUT, "%s has %lld pieces, the assistant's vocabulary has %lld",
                       path, (long long)have, (long long)rows);
    t->merge = malloc((tokenizer_merges(t->tokenizer) + 1) * sizeof *t->merge);
    if (t->merge == NULL) return err_set(err, ERR_FAILED, "out of memory");
    tokenizer_merge_pairs(t->tokenizer, t->merge);
    return true;
}

bool gguf_texts_open(GgufTexts *t, const GgufJob *job, Err *err) {
    *t = (GgufTexts){0};
    const char *dir = job->tokenizer_dir;
    return load_tokenizer(t, job, err) &&
           (t->tokenizer_config = read_tokenizer_config(dir, err)) != NULL &&
           (t->config = read_optional(job->stock_dir, "config.json", err)) != NULL &&
           (t->generation = read_optional(job->stock_dir, "generation_config.json", err)) != NULL &&
           read_template(t, dir, err);
}

void gguf_texts_close(GgufTexts *t) {
    tokenizer_free(t->tokenizer);
    free(t->merge);
    free(t->chat_template);
    json_decref(t->tokenizer_config);
    json_decref(t->config);
    json_decref(t->generation);
    *t = (GgufTexts){0};
}

static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_byte(const char *text, size_t size) {
    return size == 6 && memcmp(text, "<0x", 3) == 0 && is_hex(text[3]) && is_hex(text[4]) &&
           text[5] == '>';
}

// Added tokens are control tokens; seven are shown all the same, so that replies can be parsed.
static int32_t type_of(const Tokenizer *t, int32_t id) {
    static const char *const SHOWN[] = {"<|channel>",   "<channel|>",       "<|tool_call>",
                                        "<tool_call|>", "<|tool_response>", "<tool_response|>",
                                        "<|\"|>"};
    size_t size;
    const char *text = tokenizer_piece(t, id, &size);
    for (size_t i = 0; i < sizeof SHOWN / sizeof *SHOWN; i++)
        if (strlen(SHOWN[i]) == size && memcmp(SHOWN[i], text, size) == 0) return TYPE_USER_DEFINED;
    if (is_byte(text, size)) return TYPE_BYTE;
    return tokenizer_is_special(t, id) ? TYPE_CONTROL : TYPE_NORMAL;
}

static void put_tokens(GgufWriter *w, const Tokenizer *t) {
    const int32_t n = tokenizer_vocab(t);
    const float score = -1000.0f;
    gguf_put_array(w, "tokenizer.ggml.tokens", GGUF_TEXT, n);
    for (int32_t i = 0; i < n; i++) {
        size_t size;
        const char *text = tokenizer_piece(t, i, &size);
        gguf_add_text(w, text, size);
    }
    gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, n);
    for (int32_t i = 0; i < n; i++) gguf_add_number(w, &score);
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (int32_t i = 0; i < n; i++) {
        const int32_t type = type_of(t, i);
        gguf_add_number(w, &type);
    }
}

// "left right"; a blank inside a half would be read as the border, so it becomes U+0120.
static void put_merges(GgufWriter *w, const GgufTexts *t) {
    const size_t n = tokenizer_merges(t->tokenizer);
    char *pair = malloc(4 * tokenizer_longest(t->tokenizer) + 2);
    CHECK_MEMORY(pair);
    if (n > 0) gguf_put_array(w, "tokenizer.ggml.merges", GGUF_TEXT, (int64_t)n);
    for (size_t i = 0; i < n; i++) {
        size_t used = 0, size;
        for (int half = 0; half < 2; half++) {
            const char *text = tokenizer_piece(t->tokenizer, t->merge[i][half], &size);
            if (half == 1) pair[used++] = ' ';
            for (size_t k = 0; k < size; k++) {
                if (text[k] == ' ') pair[used++] = '\xC4';
                pair[used++] = text[k] == ' ' ? '\xA0' : text[k];
            }
        }
        gguf_add_text(w, pair, used);
    }
    free(pair);
}

// The id of a role: the text in tokenizer_config.json, else the number in config.json; -1 = none.
static int64_t id_of(const GgufTexts *t, const char *role) {
    char key[32];
    snprintf(key, sizeof key, "%s_token", role);
    const json_t *entry = json_object_get(t->tokenizer_config, key);
    const json_t *content = json_is_object(entry) ? json_object_get(entry, "content") : entry;
    const char *text = json_string_value(content);
    const int32_t named = text != NULL ? tokenizer_id(t->tokenizer, text) : -1;
    if (tokenizer_is_special(t->tokenizer, named)) return named;
    snprintf(key, sizeof key, "%s_token_id", role);
    const json_t *id = json_object_get(t->config, key);
    if (id == NULL || json_is_null(id))
        id = json_object_get(json_object_get(t->config, "text_config"), key);
    if (!json_is_integer(id)) return -1;
    const int64_t x = json_integer_value(id);
    return x >= 0 && x < tokenizer_vocab(t->tokenizer) ? x : -1;
}

static void put_roles(GgufWriter *w, const GgufTexts *t) {
    static const struct {
        const char *role, *key;
    } ROLES[] = {{"bos", "bos"}, {"eos", "eos"},     {"unk", "unknown"}, {"sep", "seperator"},
                 {"cls", "cls"}, {"pad", "padding"}, {"mask", "mask"}};
    char key[64];
    for (size_t i = 0; i < sizeof ROLES / sizeof *ROLES; i++) {
        const int64_t id = id_of(t, ROLES[i].role);
        snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", ROLES[i].key);
        if (id >= 0) gguf_put_u32(w, key, (uint32_t)id);
    }
    static const char *const ADDED[] = {"eos", "sep"};
    for (size_t i = 0; i < sizeof ADDED / sizeof *ADDED; i++) {
        snprintf(key, sizeof key, "add_%s_token", ADDED[i]);
        const json_t *flag = json_object_get(t->tokenizer_config, key);
        snprintf(key, sizeof key, "tokenizer.ggml.add_%s_token", ADDED[i]);
        if (json_is_boolean(flag)) gguf_put_bool(w, key, json_is_true(flag));
    }
}

void gguf_put_vocabulary(GgufWriter *w, const GgufTexts *t) {
    gguf_put_string(w, "tokenizer.ggml.model", "gemma4");
    put_tokens(w, t->tokenizer);
    put_merges(w, t);
    put_roles(w, t);
    if (t->chat_template != NULL) gguf_put_string(w, "tokenizer.chat_template", t->chat_template);
    gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", false);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", true);
}
