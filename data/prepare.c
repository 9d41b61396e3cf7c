// data/prepare.c - reads every source, keeps train, dev and eval apart by the hash of the prompt,
// and accounts for every item.
#include "data/prepare.h"

#include <stdlib.h>
#include <string.h>

#include "data/hash_set.h"
#include "infer/base/cli.h"
#include "infer/base/hash.h"
#include "infer/base/log.h"
#include "infer/base/utf8.h"

typedef struct {
    Prepared *p;
    const Settings *s;
    const PrepareTools *tools;
    HashSet items[INPUT_COUNT]; // of the last prompt of each
    HashSet prompts;            // of every turn in data.eval
    HashSet ids;                // names given so far
    Input input;
    int source;
    SourceCount *count; // of that source
    Progress progress;
    int64_t read;
} Job;

static void reject(Job *j, bool failed, const CorpusLine *line, const char *id, const char *why) {
    char place[256];
    if (failed && j->count->items.failed == 0) log_warn("%s: %s", line->where, why);
    rejects_add(&j->p->rejects, j->input, failed, line->where,
                id[0] ? id : utf8_fit(place, sizeof place, line->where), why);
}

static Split split_of(const Job *j, uint64_t hash) {
    const double u = (double)(hash >> 11) / 9007199254740992.0;
    if (j->input == INPUT_EVAL) return SPLIT_EVAL;
    return u < j->s->data.dev_fraction ? SPLIT_DEV : SPLIT_TRAIN;
}

// Two prompts of one name would count as one where results are paired by name.
static void name_apart(Job *j, Sample *like) {
    char more[sizeof like->id + sizeof like->source + 32];
    for (int64_t i = 1; !hash_set_add(&j->ids, xxh3_64(like->id, strlen(like->id))); i++) {
        char tail[64];
        if (i == 1)
            snprintf(tail, sizeof tail, "@%.40s", like->source);
        else
            snprintf(tail, sizeof tail, "#%lld", (long long)(j->read + i));
        char cut[sizeof like->id];
        utf8_fit(cut, sizeof cut - strlen(tail), like->id);
        snprintf(more, sizeof more, "%s%s", cut, tail);
        utf8_fit(like->id, sizeof like->id, more);
    }
}

// Puts an item's lines aside, behind where they came from.
static bool put_aside(Job *j, Split split, const Item *item, const CorpusLine *line, Err *err) {
    Entry e = {.source = j->source, .samples = (int32_t)item->n};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    CHECK_MEMORY(out);
    fprintf(out, "%s\n%s\n", line->where, item->chain[0].sample.id);
    for (int64_t i = 0; i < item->n; i++) {
        json_t *o = chain_json(&item->chain[i]);
        CHECK(o != NULL, "(sample %s: text is not UTF-8)", item->chain[i].sample.id);
        CHECK(json_dumpf(o, out, JSON_COMPACT) == 0);
        putc('\n', out);
        json_decref(o);
        e.tokens += (int32_t)item->chain[i].sample.n;
    }
    if (fclose(out) != 0) memory_failed();
    CHECK(size <= INT32_MAX, "(an item of %zu bytes)", size);
    e.size = (int32_t)size;
    e.at = spool_add(j->p->spool, text, size, err);
    free(text);
    if (e.at < 0) return false;
    if (j->p->split[split].n == j->p->split[split].room) {
        const int64_t room = j->p->split[split].room ? 2 * j->p->split[split].room : 256;
        Entry *more = realloc(j->p->split[split].entry, (size_t)room * sizeof *more);
        if (!more) return err_set(err, ERR_FAILED, "out of memory");
        j->p->split[split].entry = more;
        j->p->split[split].room = room;
    }
    j->p->split[split].entry[j->p->split[split].n++] = e;
    j->count->left_out += item->left_out;
    return true;
}

// Samples of too few supervised tokens go; prompts without an answer stay.
static void drop_short(const Job *j, Item *item) {
    int64_t kept = 0;
    for (int64_t i = 0; i < item->n; i++) {
        Sample *s = &item->chain[i].sample;
        int64_t valid = 0;
        for (int64_t t = 0; t < s->n; t++) valid += s->kind[t] >= TOKEN_MODEL;
        if (s->prompt < s->n && valid < j->s->data.minimum_valid_tokens) {
            chain_free(&item->chain[i]);
            continue;
        }
        item->chain[kept++] = item->chain[i];
    }
    item->n = kept;
}

// Why an item that can be read is left out all the same, counted; "": it is not.
static void left_out(Job *j, const Dialogue *d, const Hashes *h, char why[128]) {
    PrepareCount *count = &j->count->items;
    why[0] = '\0';
    if (h->n == 0) {
        count->too_long++;
        if (d->tokens > 0)
            snprintf(why, 128, "%lld tokens, data.max_length is %lld", (long long)d->tokens,
                     (long long)j->s->data.max_length);
        else
            snprintf(why, 128, "more text than data.max_length=%lld tokens can hold",
                     (long long)j->s->data.max_length);
        return;
    }
    bool held = false;
    for (int64_t i = 0; i < h->n && j->input == INPUT_TRAIN; i++)
        held = held || hash_set_has(&j->prompts, h->at[i]);
    if (held) {
        count->in_eval++;
        strcpy(why, "the prompt is in data.eval");
    } else if (hash_set_has(&j->items[j->input], h->at[h->n - 1])) {
        count->duplicate++;
        strcpy(why, "the prompt came before");
    }
}

// From here on the item counts as seen.
static void note_prompts(Job *j, const Hashes *h) {
    hash_set_add(&j->items[j->input], h->at[h->n - 1]);
    for (int64_t i = 0; i < h->n && j->input == INPUT_EVAL; i++)
        hash_set_add(&j->prompts, h->at[i]);
}

// Dev is measured by the simulator, which is exact on the target's own text only.
static bool answers_kept(const Job *j, const Dialogue *d, Split split) {
    return split == SPLIT_TRAIN && !d->row->unanswered &&
           !strcmp(j->s->regenerate.answers, "reference");
}

static bool build(Job *j, Item *item, Dialogue *d, bool given, const Sample *like, Err *err) {
    dialogue_rewind(d);
    if (!(given ? item_given(item, d, like, err) : item_open(item, d, like, err))) return false;
    if (item->n > 0) drop_short(j, item);
    return true;
}

// A row whose turns can be asked.
static bool take_dialogue(Job *j, Dialogue *d, const CorpusLine *line, Sample *like, Err *err) {
    PrepareCount *count = &j->count->items;
    Hashes h = {0};
    Item item = {0};
    Split split = SPLIT_TRAIN;
    char why[128] = "";
    bool ok = item_hashes(&h, d, err), given = false;
    if (ok) left_out(j, d, &h, why);
    if (ok && !why[0]) {
        split = split_of(j, h.at[h.n - 1]);
        given = answers_kept(j, d, split);
        ok = build(j, &item, d, given, like, err);
        if (ok && item.n == 0 && d->left_out > 0) {
            count->too_long++;
            snprintf(why, sizeof why, "%lld tokens, data.max_length is %lld", (long long)d->tokens,
                     (long long)j->s->data.max_length);
        } else if (ok && item.n == 0) {
            count->too_few++;
            snprintf(why, sizeof why, "fewer supervised tokens than data.minimum_valid_tokens=%lld",
                     (long long)j->s->data.minimum_valid_tokens);
        }
    }
    if (ok && why[0])
        reject(j, false, line, like->id, why);
    else if (ok) {
        note_prompts(j, &h);
        name_apart(j, like);
        unused_look(&j->p->unused[j->input], d, h.n, given);
        for (int64_t i = 0; i < item.n; i++) strcpy(item.chain[i].sample.id, like->id);
        ok = put_aside(j, split, &item, line, err);
    }
    item_free(&item);
    free(h.at);
    return ok;
}

static bool take_line(Job *j, const CorpusLine *line, Err *err) {
    PrepareCount *count = &j->count->items;
    Row row;
    Dialogue d;
    Err why = {0};
    Sample like = {.min_margin = -1};
    bool ok = true;
    count->in++;
    RowVerdict verdict = row_read(&row, line, &j->tools->row, &why);
    strcpy(like.id, row.id);
    strcpy(like.category, row.category);
    strcpy(like.source, j->p->sources[j->input].item[j->source].label);
    if (verdict == ROW_READ) {
        verdict = dialogue_open(&d, &row, j->tools, &why);
        if (verdict == ROW_READ) {
            if (!take_dialogue(j, &d, line, &like, &why)) verdict = ROW_REFUSED;
            dialogue_close(&d);
        }
    }
    if (verdict == ROW_MEDIA) {
        reject(j, false, line, like.id, why.text);
        count->media++;
    } else if (verdict == ROW_REFUSED && why.code == ERR_INPUT) {
        reject(j, true, line, like.id, why.text);
        count->failed++;
    } else if (verdict == ROW_REFUSED) {
        *err = why;
        ok = false;
    }
    row_free(&row);
    return ok;
}

// A line that is no object, or too long to be one: counted, or the end.
static bool take_bad(Job *j, const CorpusLine *line, Err *err) {
    PrepareCount *count = &j->count->items;
    if (!line->too_long && !strcmp(j->s->data.bad_lines, "stop")) return false;
    const size_t place = strlen(line->where); // the message begins with it
    count->in++;
    reject(j, !line->too_long, line, "",
           err->text + (strlen(err->text) > place + 2 ? place + 2 : 0));
    if (line->too_long)
        count->too_long++;
    else
        count->failed++;
    *err = (Err){0};
    return true;
}

static bool read_file(Job *j, const char *path, Err *err) {
    Corpus *c = corpus_open(path, err);
    CorpusLine line;
    CorpusStep step = CORPUS_BROKEN;
    bool ok = c != NULL;
    while (ok && (step = corpus_next(c, &line, err)) != CORPUS_END) {
        ok = step == CORPUS_LINE  ? take_line(j, &line, err)
             : step == CORPUS_BAD ? take_bad(j, &line, err)
                                  : false;
        j->read++;
        if (ok && stop_requested())
            ok = err_set(err, ERR_STOPPED, "stopped; the next run starts over");
        progress_at(&j->progress, j->read, "");
    }
    if (ok) j->count->members += corpus_skipped(c);
    corpus_close(c);
    return ok;
}

static bool read_input(Job *j, Input input, Err *err) {
    const Sources *s = &j->p->sources[input];
    j->input = input;
    for (int i = 0; i < s->n; i++) {
        j->source = i;
        j->count = &j->p->count[input][i];
        for (int k = 0; k < s->item[i].files; k++)
            if (!read_file(j, s->item[i].file[k], err)) return false;
        if (j->count->items.in == 0)
            return err_set(err, ERR_INPUT, "%s: no prompts in it%s", s->item[i].path,
                           j->count->members ? " (no member is a corpus)" : "");
    }
    return true;
}

static bool left_nothing(const Prepared *p, Input input, Err *err) {
    const Split main = input == INPUT_EVAL ? SPLIT_EVAL : SPLIT_TRAIN;
    if (p->sources[input].n == 0 || p->split[main].n > 0) return false;
    err_set(err, ERR_INPUT, "none of the %lld prompts of data.%s can be used: %s",
            (long long)prepared_sum(p, input).in, input_name(input), p->rejects.first);
    return true;
}

static bool open_inputs(Prepared *p, const Settings *s, const char *dir, Err *err) {
    *p = (Prepared){0};
    if (s->data.train.n + s->data.eval.n == 0)
        return err_set(err, ERR_USAGE, "data.train and data.eval name no files");
    if (!sources_open(&p->sources[INPUT_TRAIN], "data.train", &s->data.train, false, err) ||
        !sources_open(&p->sources[INPUT_EVAL], "data.eval", &s->data.eval, true, err))
        return false;
    for (int i = 0; i < INPUT_COUNT; i++) {
        p->count[i] = calloc((size_t)p->sources[i].n + 1, sizeof **p->count);
        p->unused[i].kinds = json_object();
        CHECK_MEMORY(p->count[i] && p->unused[i].kinds ? p->count[i] : NULL);
    }
    return (p->spool = spool_open(dir, err)) != NULL &&
           (dir == NULL || rejects_open(&p->rejects, dir, err));
}

bool prepare_all(Prepared *p, const Settings *s, const PrepareTools *tools, const char *dir,
                 Err *err) {
    Job j = {.p = p, .s = s, .tools = tools};
    const uint64_t seed = (uint64_t)s->data.seed;
    bool ok = open_inputs(p, s, dir, err);
    progress_start(&j.progress, "prepare", "items", 0);
    ok = ok && read_input(&j, INPUT_EVAL, err) && !left_nothing(p, INPUT_EVAL, err) &&
         read_input(&j, INPUT_TRAIN, err) && !left_nothing(p, INPUT_TRAIN, err);
    progress_end(&j.progress, j.read, "");
    ok = ok && prepare_pick(p, SPLIT_TRAIN, s->data.max_samples, seed, err) &&
         prepare_pick(p, SPLIT_DEV, s->data.dev_samples, seed, err) &&
         prepare_pick(p, SPLIT_EVAL, s->data.eval_samples, seed, err);
    if (ok) prepared_check(p);
    for (int i = 0; i < INPUT_COUNT && ok; i++) unused_tell(&p->unused[i], (Input)i);
    for (int i = 0; i < INPUT_COUNT; i++) free(j.items[i].at);
    free(j.prompts.at);
    free(j.ids.at);
    if (!ok) prepared_free(p);
    return ok;
}

void prepared_free(Prepared *p) {
    rejects_drop(&p->rejects);
    spool_close(p->spool);
    for (int i = 0; i < SPLIT_COUNT; i++) free(p->split[i].entry);
    for (int i = 0; i < INPUT_COUNT; i++) {
        sources_free(&p->sources[i]);
        free(p->count[i]);
        json_decref(p->unused[i].kinds);
    }
    *p = (Prepared){0};
}

static bool give_lines(const char *text, size_t size, PreparedLine *each, void *ctx, Err *err) {
    const char *end = text + size;
    for (int skip = 2; text < end; skip--) { // where and id
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        CHECK(stop != NULL, "(an entry that does not end)");
        if (skip <= 0 && !each(ctx, text, (size_t)(stop - text), err)) return false;
        text = stop + 1;
    }
    return true;
}

bool prepared_lines(Prepared *p, Split split, PreparedLine *each, void *ctx, Err *err) {
    bool ok = true;
    for (int64_t i = 0; i < p->split[split].n && ok; i++) {
        const Entry *e = &p->split[split].entry[i];
        char *text = malloc((size_t)e->size);
        CHECK_MEMORY(text);
        ok = spool_read(p->spool, e->at, text, (size_t)e->size, err) &&
             give_lines(text, (size_t)e->size, each, ctx, err);
        free(text);
    }
    return ok;
}

typedef struct {
    OutFile file;
    int64_t lines;
} Save;

static bool save_line(void *ctx, const char *line, size_t size, Err *err) {
    (void)err;
    Save *s = ctx;
    out_write(&s->file, line, size);
    out_write(&s->file, "\n", 1);
    s->lines++;
    return true;
}

bool prepared_save(Prepared *p, Split split, const char *path, Err *err) {
    Save s = {0};
    if (!out_open(&s.file, path, err)) return false;
    if (!prepared_lines(p, split, save_line, &s, err)) {
        out_drop(&s.file);
        return false;
    }
    CHECK(s.lines == p->split[split].samples, "(%lld lines)", (long long)s.lines);
    return out_commit(&s.file, err);
}
