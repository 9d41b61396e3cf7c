// infer/text/tokenizer_scheme.c - what the encoder takes for granted, checked member by member.
#include "infer/text/tokenizer_scheme.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/tokenizer_table.h"

static const char NORMALIZER[] = "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
                                 "\"content\":\"\u2581\"}";
static const char DECODER[] = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
                              "\"pattern\":{\"String\":\"\u2581\"},\"content\":\" \"},"
                              "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]}";
static const char SPLIT_ON[] = "{\"String\":\" \"}";

// `what` must be the value that `wanted` spells.
static bool same(const char *what, const json_t *value, const char *wanted, Err *err) {
    json_t *want = json_loads(wanted, JSON_DECODE_ANY, NULL);
    CHECK(want != NULL, "%s", wanted);
    const bool equal = value != NULL && json_equal(value, want);
    json_decref(want);
    if (equal) return true;
    char *found = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    err_set(err, ERR_INPUT, "%s is %.300s; Gemma 4's is %s", what, found ? found : "missing",
            wanted);
    free(found);
    return false;
}

// After the normalizer no blank is left, so splitting on blanks does nothing; any other split
// would.
static bool split_does_nothing(const json_t *split, Err *err) {
    if (split == NULL || json_is_null(split)) return true;
    return same("pre_tokenizer.type", json_object_get(split, "type"), "\"Split\"", err) &&
           same("pre_tokenizer.pattern", json_object_get(split, "pattern"), SPLIT_ON, err);
}

static bool absent_or(const json_t *model, const char *key, const char *wanted, Err *err) {
    const json_t *value = json_object_get(model, key);
    if (value == NULL || json_is_null(value)) return true;
    char what[64];
    snprintf(what, sizeof what, "model.%s", key);
    return same(what, value, wanted, err);
}

static bool added_token_check(const json_t *entry, size_t i, Err *err) {
    const json_t *content = json_object_get(entry, "content");
    if (!json_is_string(content) || json_string_length(content) == 0)
        return err_set(err, ERR_INPUT, "added_tokens[%zu].content is not a text", i);
    if (!json_is_integer(json_object_get(entry, "id")))
        return err_set(err, ERR_INPUT, "added_tokens[%zu].id is not an integer", i);
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
    for (size_t f = 0; f < sizeof flags / sizeof *flags; f++)
        if (json_is_true(json_object_get(entry, flags[f])))
            return err_set(err, ERR_INPUT,
                           "added token \"%s\": %s is true; Gemma 4's are matched as "
                           "they stand",
                           json_string_value(content), flags[f]);
    if (!json_is_true(json_object_get(entry, "special")))
        return err_set(err, ERR_INPUT, "added token \"%s\" is not special; Gemma 4's all are",
                       json_string_value(content));
    return true;
}

bool scheme_check(const json_t *top, const json_t *model, Err *err) {
    if (!same("model.type", json_object_get(model, "type"), "\"BPE\"", err) ||
        !same("model.byte_fallback", json_object_get(model, "byte_fallback"), "true", err) ||
        !absent_or(model, "ignore_merges", "false", err) ||
        !absent_or(model, "dropout", "0.0", err) ||
        !absent_or(model, "continuing_subword_prefix", "\"\"", err) ||
        !absent_or(model, "end_of_word_suffix", "\"\"", err) ||
        !same("normalizer", json_object_get(top, "normalizer"), NORMALIZER, err) ||
        !split_does_nothing(json_object_get(top, "pre_tokenizer"), err) ||
        !same("decoder", json_object_get(top, "decoder"), DECODER, err))
        return false;
    const json_t *added = json_object_get(top, "added_tokens");
    if (!json_is_array(added) || json_array_size(added) > TOKENIZER_ADDED_LIMIT)
        return err_set(err, ERR_INPUT, "added_tokens is not a list of at most %d entries",
                       TOKENIZER_ADDED_LIMIT);
    for (size_t i = 0; i < json_array_size(added); i++)
        if (!added_token_check(json_array_get(added, i), i, err)) return false;
    return true;
}
