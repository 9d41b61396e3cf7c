// data/prepare_rejects.c - side files: what was left out, where it stood, and why.
#include <stdlib.h>
#include <string.h>

#include "data/prepare.h"
#include "infer/base/utf8.h"

bool rejects_open(Rejects *r, const char *dir, Err *err) {
    char path[PATH_ROOM], name[32];
    for (int i = 0; i < INPUT_COUNT; i++)
        for (int k = 0; k < 2; k++) r->file[i][k].fd = -1;
    r->written = true;
    for (int i = 0; i < INPUT_COUNT; i++)
        for (int k = 0; k < 2; k++) {
            snprintf(name, sizeof name, "%s_%s.jsonl", input_name((Input)i),
                     k ? "error" : "skipped");
            if (out_open(&r->file[i][k], path_join(path, dir, name), err)) continue;
            rejects_drop(r);
            return false;
        }
    return true;
}

void rejects_add(Rejects *r, Input input, bool failed, const char *where, const char *id,
                 const char *why) {
    char said[512]; // a message may have been cut within a character
    utf8_fit(said, sizeof said, why);
    if (!r->first[0]) snprintf(r->first, sizeof r->first, "%.200s: %.300s", where, said);
    r->lines[input][failed]++;
    if (!r->written) return;
    json_t *o = json_pack("{s:s, s:s, s:s}", "where", where, "id", id, "why", said);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    CHECK(text != NULL, "(left out: %s: %s)", where, said);
    out_printf(&r->file[input][failed], "%s\n", text);
    free(text);
    json_decref(o);
}

void rejects_drop(Rejects *r) {
    for (int i = 0; r->written && i < INPUT_COUNT; i++)
        for (int k = 0; k < 2; k++) out_drop(&r->file[i][k]);
    r->written = false;
}

bool prepared_commit_rejects(Prepared *p, Err *err) {
    bool ok = true;
    for (int i = 0; p->rejects.written && i < INPUT_COUNT; i++)
        for (int k = 0; k < 2 && ok; k++) ok = out_commit(&p->rejects.file[i][k], err);
    rejects_drop(&p->rejects);
    return ok;
}
