// infer/base/settings.c - a configuration: defaults, a file, overrides; refused by name where
// wrong.
#include "infer/base/settings.h"

#include <inttypes.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/base/nearest.h"
#include "infer/base/settings_value.h"

enum { CONFIG_BYTES = 1 << 20, NAME_ROOM = 96 };

static const Field *field_of(const char *name) {
    for (int i = 0; i < settings_field_count; i++)
        if (!strcmp(settings_fields[i].name, name)) return &settings_fields[i];
    return NULL;
}

// "train.lr" -> "lr"; "output_dir" -> itself
static const char *short_name(const Field *f) {
    const char *dot = strchr(f->name, '.');
    return dot ? dot + 1 : f->name;
}

static bool is_section(const char *name) {
    const size_t n = strlen(name);
    for (int i = 0; i < settings_field_count; i++)
        if (!strncmp(settings_fields[i].name, name, n) && settings_fields[i].name[n] == '.')
            return true;
    return false;
}

static void section_of(const Field *f, char out[NAME_ROOM]) {
    const char *dot = strchr(f->name, '.');
    snprintf(out, NAME_ROOM, "%.*s", dot ? (int)(dot - f->name) : 0, f->name);
}

// The nearest full name to a whole name; short names and sections are tried for names without a
// dot.
static bool unknown_key(const char *name, Err *err) {
    const char *full = NULL, *brief = NULL, *shown = NULL;
    char section[NAME_ROOM], kept[NAME_ROOM] = "";
    for (int i = 0; i < settings_field_count; i++) {
        const Field *f = &settings_fields[i];
        nearest_offer(name, f->name, &full);
        if (strchr(name, '.') != NULL) continue;
        const char *was = brief;
        nearest_offer(name, short_name(f), &brief);
        if (brief != was) shown = f->name;
        section_of(f, section);
        const char *best = kept[0] ? kept : NULL;
        nearest_offer(name, section, &best);
        if (best == section) strcpy(kept, section);
    }
    if (full == NULL) full = kept[0] ? kept : shown;
    if (full == NULL) return err_set(err, ERR_USAGE, "unknown key \"%s\"", name);
    return err_set(err, ERR_USAGE, "unknown key \"%s\", did you mean \"%s\"?", name, full);
}

bool settings_find(const char *name, char out[96], Err *err) {
    char plain[NAME_ROOM];
    snprintf(plain, sizeof plain, "%s", name);
    for (char *p = plain; *p; p++)
        if (*p == '-') *p = '_';
    const Field *hit = field_of(plain);
    for (int i = 0; i < settings_field_count && strchr(plain, '.') == NULL; i++) {
        const Field *f = &settings_fields[i];
        if (f == hit || strcmp(short_name(f), plain) != 0) continue;
        if (hit != NULL)
            return err_set(err, ERR_USAGE, "\"%s\" is ambiguous: \"%s\" or \"%s\"?", name,
                           hit->name, f->name);
        hit = f;
    }
    if (hit == NULL) return unknown_key(plain, err);
    snprintf(out, NAME_ROOM, "%s", hit->name);
    return true;
}

static bool apply_member(Settings *s, const char *section, const char *key, const json_t *v,
                         Err *err) {
    char name[256];
    snprintf(name, sizeof name, "%s%s%s", section, *section ? "." : "", key);
    const Field *f = field_of(name);
    const char *dot = strchr(key, '.');
    if (f != NULL && dot != NULL)
        return err_set(err, ERR_USAGE, "\"%s\" stands in a file as {\"%.*s\": {\"%s\": ...}}", key,
                       (int)(dot - key), key, dot + 1);
    return f ? field_set_json(s, f, v, err) : unknown_key(name, err);
}

static bool apply_object(Settings *s, json_t *o, Err *err) {
    const char *key, *inner;
    json_t *v, *w;
    if (!json_is_object(o)) return err_set(err, ERR_USAGE, "not a JSON object");
    json_object_foreach(o, key, v) {
        if (!is_section(key)) {
            if (!apply_member(s, "", key, v, err)) return false;
            continue;
        }
        if (!json_is_object(v)) return err_set(err, ERR_USAGE, "\"%s\" must be an object", key);
        json_object_foreach(v, inner, w) {
            if (!apply_member(s, key, inner, w, err)) return false;
        }
    }
    return true;
}

static bool apply_config(Settings *s, const char *path, Err *err) {
    json_t *o = path ? json_read_file(path, CONFIG_BYTES, err)
                     : json_read_text(settings_demo, strlen(settings_demo), err);
    const bool ok = o != NULL && apply_object(s, o, err);
    json_decref(o);
    if (ok) return true;
    if (err != NULL) err->code = ERR_USAGE; // whatever is wrong with it, it is the configuration
    return err_wrap(err, "config %s", path ? path : "demo.json (built in)");
}

static bool apply_override(Settings *s, const char *text, Err *err) {
    char name[NAME_ROOM], full[NAME_ROOM];
    const char *eq = strchr(text, '=');
    CHECK(eq != NULL, "(override \"%s\")", text);
    if ((size_t)(eq - text) >= sizeof name)
        return err_set(err, ERR_USAGE, "unknown key \"%s\"", text);
    snprintf(name, sizeof name, "%.*s", (int)(eq - text), text);
    if (!settings_find(name, full, err)) return false;
    return field_set_text(s, field_of(full), eq + 1, err);
}

// What no single range can say.
static bool fits_together(const Settings *s, Err *err) {
    if (s->regenerate.temperature == 0 && s->regenerate.samples != 1)
        return err_set(err, ERR_USAGE,
                       "regenerate.samples is %" PRId64
                       " while regenerate.temperature is 0: greedy "
                       "answers are all the same, allowed 1",
                       s->regenerate.samples);
    if (s->regenerate.temperature == 0 && !strcmp(s->regenerate.held_out, "sampled"))
        return err_set(err, ERR_USAGE,
                       "regenerate.held_out is sampled while regenerate.temperature is 0");
    if (s->eval.select_k > s->eval.draft_tokens)
        return err_set(err, ERR_USAGE,
                       "eval.select_k is %" PRId64 ", eval.draft_tokens only %" PRId64,
                       s->eval.select_k, s->eval.draft_tokens);
    if (s->output_dir[0] == '\0') return err_set(err, ERR_USAGE, "output_dir is empty");
    return true;
}

bool settings_load(Settings *s, const char *path, char *const *overrides, int n, Err *err) {
    *s = (Settings){0};
    for (int i = 0; i < settings_field_count; i++) {
        const Field *f = &settings_fields[i];
        if (!field_set_text(s, f, f->initial, err)) goto fail;
    }
    if (!apply_config(s, path, err)) goto fail;
    for (int i = 0; i < n; i++)
        if (!apply_override(s, overrides[i], err)) goto fail;
    if (!fits_together(s, err)) goto fail;
    return true;
fail:
    settings_free(s);
    return false;
}

json_t *settings_json(const Settings *s) {
    json_t *root = json_object();
    char section[NAME_ROOM];
    for (int i = 0; i < settings_field_count; i++) {
        const Field *f = &settings_fields[i];
        section_of(f, section);
        json_t *into = *section ? json_object_get(root, section) : root;
        if (into == NULL) {
            into = json_object();
            json_object_set_new(root, section, into);
        }
        json_object_set_new(into, short_name(f), field_json(s, f));
    }
    return root;
}

static void print_field(FILE *out, const Field *f) {
    static const char *const type[] = {"integer", "number", "true|false", "text", "list"};
    char range[96] = "";
    if (f->type == FIELD_INT || f->type == FIELD_REAL) {
        if (f->max >= 1e9)
            snprintf(range, sizeof range, ", from %.10g", f->min);
        else
            snprintf(range, sizeof range, ", %.10g to %.10g", f->min, f->max);
    }
    fprintf(out, "  %-26s %s (%s%s%s%s)\n", f->name, f->help,
            f->choices ? f->choices : type[f->type], range, *f->initial ? "; default " : "",
            f->initial);
}

void settings_help(FILE *out, const char *section_or_null) {
    char section[NAME_ROOM];
    for (int i = 0; i < settings_field_count; i++) {
        section_of(&settings_fields[i], section);
        if (section_or_null == NULL || !strcmp(section, section_or_null))
            print_field(out, &settings_fields[i]);
    }
}

void settings_free(Settings *s) {
    for (int i = 0; i < settings_field_count; i++) field_free(s, &settings_fields[i]);
}
