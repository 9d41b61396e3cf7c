// data/prepare_count.c - the counts: that they add up, as JSON, as a table.
#include <stdio.h>
#include <string.h>

#include "data/prepare.h"
#include "infer/base/utf8.h"

const char *input_name(Input input) {
    return input == INPUT_EVAL ? "eval" : "train";
}

int64_t prepare_skipped(const PrepareCount *c) {
    return c->too_long + c->in_eval + c->duplicate + c->over_limit + c->media + c->too_few;
}

static void add(PrepareCount *sum, const PrepareCount *c) {
    sum->in += c->in;
    sum->out += c->out;
    sum->too_long += c->too_long;
    sum->in_eval += c->in_eval;
    sum->duplicate += c->duplicate;
    sum->over_limit += c->over_limit;
    sum->media += c->media;
    sum->too_few += c->too_few;
    sum->failed += c->failed;
}

PrepareCount prepared_sum(const Prepared *p, Input input) {
    PrepareCount sum = {0};
    for (int i = 0; i < p->sources[input].n; i++) add(&sum, &p->count[input][i].items);
    return sum;
}

void prepared_check(const Prepared *p) {
    for (int i = 0; i < INPUT_COUNT; i++) {
        int64_t samples = 0, taken = 0;
        for (int k = 0; k < p->sources[i].n; k++) {
            const PrepareCount *c = &p->count[i][k].items;
            CHECK(c->in == c->out + prepare_skipped(c) + c->failed,
                  "(%s: %lld in, %lld out, %lld skipped, %lld failed)", p->sources[i].item[k].label,
                  (long long)c->in, (long long)c->out, (long long)prepare_skipped(c),
                  (long long)c->failed);
            samples += p->count[i][k].samples;
        }
        const PrepareCount sum = prepared_sum(p, (Input)i);
        CHECK(p->rejects.lines[i][0] == prepare_skipped(&sum), "(%lld lines say skipped)",
              (long long)p->rejects.lines[i][0]);
        CHECK(p->rejects.lines[i][1] == sum.failed, "(%lld lines say failed)",
              (long long)p->rejects.lines[i][1]);
        for (int split = 0; split < SPLIT_COUNT; split++)
            if ((split == SPLIT_EVAL) == (i == INPUT_EVAL)) {
                samples -= p->split[split].samples;
                taken += p->split[split].n;
            }
        CHECK(samples == 0 && taken == sum.out, "(%lld items taken of %lld)", (long long)taken,
              (long long)sum.out);
    }
}

static json_t *count_json(const PrepareCount *c) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "in", (json_int_t)c->in,
                     "out", (json_int_t)c->out, "skipped", (json_int_t)prepare_skipped(c), "failed",
                     (json_int_t)c->failed, "too_long", (json_int_t)c->too_long, "in_eval",
                     (json_int_t)c->in_eval, "duplicate", (json_int_t)c->duplicate, "over_limit",
                     (json_int_t)c->over_limit, "media", (json_int_t)c->media, "too_few",
                     (json_int_t)c->too_few);
}

static json_t *sources_json(const Prepared *p) {
    json_t *list = json_array();
    for (int i = INPUT_COUNT - 1; i >= 0; i--)
        for (int k = 0; k < p->sources[i].n; k++) {
            const SourceCount *c = &p->count[i][k];
            json_t *o = json_pack("{s:s, s:s, s:f}", "source", p->sources[i].item[k].label, "input",
                                  input_name((Input)i), "weight", p->sources[i].item[k].weight);
            json_t *counts = count_json(&c->items);
            json_object_update(o, counts);
            json_decref(counts);
            json_object_set_new(o, "samples", json_integer(c->samples));
            json_object_set_new(o, "tokens", json_integer(c->tokens));
            json_object_set_new(o, "turns_left_out", json_integer(c->left_out));
            json_object_set_new(o, "members_skipped", json_integer(c->members));
            json_array_append_new(list, o);
        }
    return list;
}

static json_t *input_json(const Prepared *p, Input input) {
    const PrepareCount sum = prepared_sum(p, input);
    json_t *o = count_json(&sum);
    json_object_set_new(o, "answers_not_used", json_integer(p->unused[input].answers));
    json_object_set(o, "left_out_by_template", p->unused[input].kinds);
    return o;
}

json_t *prepared_json(const Prepared *p) {
    json_t *splits = json_object();
    for (int i = 0; i < SPLIT_COUNT; i++)
        json_object_set_new(splits, split_name((Split)i),
                            json_pack("{s:I, s:I, s:I}", "prompts", (json_int_t)p->split[i].n,
                                      "samples", (json_int_t)p->split[i].samples, "tokens",
                                      (json_int_t)p->split[i].tokens));
    return json_pack("{s:o, s:o, s:o, s:o}", "splits", splits, "train", input_json(p, INPUT_TRAIN),
                     "eval", input_json(p, INPUT_EVAL), "sources", sources_json(p));
}

static long long number(const json_t *o, const char *key) {
    return (long long)json_integer_value(json_object_get(o, key));
}

static void print_row(const char *name, const json_t *o) {
    static const char *const keys[] = {"in",         "out",   "too_long", "in_eval", "duplicate",
                                       "over_limit", "media", "too_few",  "failed"};
    char shown[33];
    printf("%-32s", utf8_fit(shown, sizeof shown, name));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) printf(" %9lld", number(o, keys[i]));
    printf("\n");
}

void prepared_table(const json_t *result) {
    size_t i;
    json_t *source;
    const char *input = "";
    const json_t *sources = json_object_get(result, "sources");
    printf("%-32s %9s %9s %9s %9s %9s %9s %9s %9s %9s\n", "items", "in", "out", "too long",
           "in eval", "repeated", "not taken", "media", "too few", "failed");
    json_array_foreach(sources, i, source) {
        const char *now = json_string_value(json_object_get(source, "input"));
        char name[160];
        if (strcmp(now, input) != 0) {
            snprintf(name, sizeof name, "data.%s", now);
            print_row(name, json_object_get(result, now));
            input = now;
        }
        snprintf(name, sizeof name, "  %s", json_string_value(json_object_get(source, "source")));
        print_row(name, source);
    }
    for (int k = 0; k < SPLIT_COUNT; k++) {
        const json_t *o = json_object_get(json_object_get(result, "splits"), split_name((Split)k));
        printf("%-6s %9lld prompts %9lld samples %12lld tokens\n", split_name((Split)k),
               number(o, "prompts"), number(o, "samples"), number(o, "tokens"));
    }
    long long turns = 0, members = 0;
    json_array_foreach(sources, i, source) {
        turns += number(source, "turns_left_out");
        members += number(source, "members_skipped");
    }
    if (turns > 0) printf("%lld turns of these were left out as too long\n", turns);
    if (members > 0) printf("%lld members of archives are no corpus and were not read\n", members);
    printf("in = out + skipped + failed holds for every source\n");
}
