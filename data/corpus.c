// data/corpus.c - lines and whole members as JSON; which members of an archive are read at all.
#include "data/corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/corpus_pack.h"
#include "infer/base/file.h"
#include "infer/base/utf8.h"
#include "infer/base/watchdog.h"
#include "infer/text/chat_json.h"

enum { OBJECT_LIMIT = 16 << 20 }; // bytes of a line, or of a member that is one object

typedef enum { MEMBER_LINES, MEMBER_OBJECT, MEMBER_MEDIA, MEMBER_PACK, MEMBER_OTHER } MemberForm;

struct Corpus {
    Pack *pack;
    char path[PATH_ROOM];
    char member[MEMBER_NAME]; // "" for a bare file
    bool ahead;               // the member is known, but nothing was done about it yet
    bool ended;
    bool in_lines;
    const char *data; // of the pack, not consumed yet
    size_t left;
    char *text; // the present line or member so far
    size_t size, room;
    bool overflow;    // it is longer than OBJECT_LIMIT: the rest was passed over
    int64_t number;   // of the present line in its member, 1-based; 0: a whole member
    json_t *value;    // what corpus_next gave out last
    CorpusLine group; // an object that waits for the rest of its group; value NULL: none
    char key[MEMBER_NAME], media_key[MEMBER_NAME]; // of that group; of the last medium
    int64_t skipped;
};

static void place(const Corpus *c, char out[512]) {
    char file[MEMBER_NAME];
    utf8_fit(file, sizeof file, path_base(c->path));
    int n = snprintf(out, 512, c->member[0] ? "%s(%s)" : "%s", file, c->member);
    if (c->number > 0) snprintf(out + n, 512 - (size_t)n, ":%lld", (long long)c->number);
}

Corpus *corpus_open(const char *path, Err *err) {
    if (dir_exists(path)) {
        err_set(err, ERR_INPUT, "%s: a folder, expected a JSONL file", path);
        return NULL;
    }
    if (!file_exists(path)) {
        err_set(err, ERR_INPUT, "%s: no such file", path);
        return NULL;
    }
    Corpus *c = calloc(1, sizeof *c);
    if (!c) {
        err_set(err, ERR_FAILED, "%s: out of memory", path);
        return NULL;
    }
    snprintf(c->path, sizeof c->path, "%s", path);
    if ((c->pack = pack_open(path, err)) != NULL) return c;
    corpus_close(c);
    return NULL;
}

void corpus_close(Corpus *c) {
    if (!c) return;
    pack_close(c->pack);
    json_decref(c->value);
    json_decref(c->group.value);
    free(c->text);
    free(c);
}

int64_t corpus_skipped(const Corpus *c) {
    return c->skipped + pack_skipped(c->pack);
}

static bool is_one_of(const char *ending, const char *const *list) {
    for (; *list; list++)
        if (!strcasecmp(ending, *list)) return true;
    return false;
}

static MemberForm form_of(const char *member) {
    static const char *const lines[] = {"jsonl", "ndjson", NULL};
    static const char *const packs[] = {"gz",  "zst", "xz", "bz2", "lz4",     "tar",
                                        "tgz", "zip", "7z", "rar", "parquet", NULL};
    static const char *const media[] = {"jpg",  "jpeg", "png", "webp", "gif",  "bmp",  "tif",
                                        "tiff", "ppm",  "mp3", "wav",  "flac", "ogg",  "opus",
                                        "m4a",  "mp4",  "avi", "mov",  "mkv",  "webm", NULL};
    const char *base = path_base(member), *dot = strrchr(base, '.');
    if (base[0] == '.') return MEMBER_OTHER; // what a desktop leaves behind
    if (!dot || is_one_of(dot + 1, lines)) return MEMBER_LINES;
    if (!strcasecmp(dot + 1, "json")) return MEMBER_OBJECT;
    if (is_one_of(dot + 1, media)) return MEMBER_MEDIA;
    return is_one_of(dot + 1, packs) ? MEMBER_PACK : MEMBER_OTHER;
}

// The name of a member's group: up to the first dot behind the folder.
static void key_of(const char *member, char key[MEMBER_NAME]) {
    const char *dot = strchr(path_base(member), '.');
    snprintf(key, MEMBER_NAME, "%.*s", dot ? (int)(dot - member) : (int)strlen(member), member);
}

static bool append(Corpus *c, const char *data, size_t size, Err *err) {
    if (c->overflow || c->size + size > OBJECT_LIMIT) {
        c->overflow = true;
        return true;
    }
    if (c->size + size > c->room) {
        const size_t wanted = 2 * (c->size + size),
                     room = wanted < OBJECT_LIMIT ? wanted : OBJECT_LIMIT;
        char *text = realloc(c->text, room);
        if (!text) return err_set(err, ERR_FAILED, "%s: out of memory", c->path);
        c->text = text;
        c->room = room;
    }
    if (size > 0) memcpy(c->text + c->size, data, size);
    c->size += size;
    return true;
}

// Up to and without `stop` (or, '\0', to the end of the member) into c->text: 1, 0 = the member was
// at its end, -1 = error.
static int gather(Corpus *c, char stop, Err *err) {
    bool any = false;
    c->size = 0;
    c->overflow = false;
    for (;; any = true) {
        if (c->left == 0) {
            const int rc = pack_read(c->pack, &c->data, &c->left, err);
            if (rc < 0) return -1;
            if (rc == 0) return any;
        }
        const char *end = stop ? memchr(c->data, stop, c->left) : NULL;
        const size_t n = end ? (size_t)(end - c->data) : c->left, used = n + (end != NULL);
        if (!append(c, c->data, n, err)) return -1;
        c->data += used;
        c->left -= used;
        if (end) return 1;
    }
}

static bool is_blank(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r' && s[i] != '\n') return false;
    return true;
}

// c->text as an object into out, or what is wrong with it.
static CorpusStep parse(const Corpus *c, CorpusLine *out, Err *err) {
    Err why = {0};
    *out = (CorpusLine){.line = c->number};
    place(c, out->where);
    out->too_long = c->overflow || chat_json_cost(c->text, c->size) > CHAT_JSON_COST;
    if (c->overflow)
        err_set(&why, ERR_INPUT, "%s longer than %d bytes", c->number ? "line" : "member",
                (int)OBJECT_LIMIT);
    else
        out->value = chat_json_read(c->text, c->size, &why);
    if (json_is_object(out->value)) return CORPUS_LINE;
    const bool whole_list = c->number == 1 && c->size > 0 && c->text[0] == '[';
    if (out->too_long)
        err_set(err, ERR_INPUT, "%s: %.300s", out->where, why.text);
    else
        err_set(err, ERR_INPUT, "%s: not a JSON object%s%.300s%s", out->where, why.code ? ": " : "",
                why.text, whole_list ? " (a list? jq -c '.[]' makes one object a line of it)" : "");
    json_decref(out->value);
    out->value = NULL;
    return CORPUS_BAD;
}

static CorpusStep give(Corpus *c, const CorpusLine *line, CorpusLine *out) {
    *out = *line;
    c->value = line->value;
    return CORPUS_LINE;
}

// The object that waited for its group is complete.
static CorpusStep give_group(Corpus *c, CorpusLine *out) {
    const CorpusLine group = c->group;
    c->group = (CorpusLine){0};
    return give(c, &group, out);
}

static CorpusStep next_line(Corpus *c, CorpusLine *out, Err *err) {
    for (;;) {
        watchdog_beat();
        c->number++;
        const int rc = gather(c, '\n', err);
        if (rc < 0) return CORPUS_BROKEN;
        if (rc == 0) {
            c->in_lines = false;
            return CORPUS_END;
        }
        if (!c->overflow && is_blank(c->text, c->size)) continue;
        const CorpusStep step = parse(c, out, err);
        c->value = out->value;
        return step;
    }
}

// A member that is one object: held back, since images may belong to it.
static CorpusStep hold_object(Corpus *c, CorpusLine *out, Err *err) {
    c->number = 0;
    const int rc = gather(c, '\0', err);
    if (rc < 0) return CORPUS_BROKEN;
    if (rc == 0 || (!c->overflow && is_blank(c->text, c->size))) return CORPUS_END;
    const CorpusStep step = parse(c, out, err);
    if (step != CORPUS_LINE) return step;
    c->group = *out;
    key_of(c->member, c->key);
    c->group.media = strcmp(c->key, c->media_key) == 0;
    return CORPUS_END;
}

// The member whose name was just read. CORPUS_END: nothing to give out yet.
static CorpusStep enter_member(Corpus *c, CorpusLine *out, Err *err) {
    char where[512], key[MEMBER_NAME];
    c->ahead = false;
    c->left = 0;
    c->number = 0;
    const MemberForm form = c->member[0] ? form_of(c->member) : MEMBER_LINES;
    switch (form) {
    case MEMBER_LINES:
        c->in_lines = true;
        return CORPUS_END;
    case MEMBER_OBJECT:
        return hold_object(c, out, err);
    case MEMBER_MEDIA:
        key_of(c->member, c->media_key);
        if (c->group.value && !strcmp(c->key, c->media_key)) c->group.media = true;
        break;
    case MEMBER_PACK:
        place(c, where);
        err_set(err, ERR_INPUT, "%s: packed inside of a pack; unpack it first", where);
        return CORPUS_BROKEN;
    case MEMBER_OTHER:
        break;
    }
    key_of(c->member, key);
    c->skipped += !(c->group.value && !strcmp(c->key, key)); // the rest of a group is no loss
    return CORPUS_END;
}

static bool same_group(const Corpus *c) {
    char key[MEMBER_NAME];
    key_of(c->member, key);
    return strcmp(key, c->key) == 0 && form_of(c->member) != MEMBER_OBJECT;
}

CorpusStep corpus_next(Corpus *c, CorpusLine *out, Err *err) {
    json_decref(c->value);
    c->value = NULL;
    for (;;) {
        CorpusStep step = CORPUS_END;
        if (c->in_lines) {
            step = next_line(c, out, err);
        } else if (c->ahead) {
            step = enter_member(c, out, err);
        } else if (!c->ended) {
            const int rc = pack_next(c->pack, c->member, err);
            if (rc < 0) return CORPUS_BROKEN;
            c->ahead = rc > 0;
            c->ended = rc == 0;
            if (c->group.value && (c->ended || !same_group(c))) return give_group(c, out);
        } else {
            return CORPUS_END;
        }
        if (step != CORPUS_END) return step;
    }
}
