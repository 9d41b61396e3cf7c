// infer/text/chat_tools.c - tool declarations, arguments and responses (the templates' macros).
#include <stdlib.h>
#include <string.h>

#include "infer/text/chat_json.h"
#include "infer/text/chat_render.h"
#include "infer/text/chat_value.h"

static const char QUOTE[] = "<|\"|>";

void render_value(ChatText *c, const json_t *v) {
    Bytes text = {0};
    value_str(&text, v);
    chat_content(c, text.text, text.size);
    free(text.text);
}

static void upper(ChatText *c, const json_t *v) {
    Bytes text = {0};
    value_upper(&text, v);
    chat_content(c, text.text, text.size);
    free(text.text);
}

static bool upper_is(const json_t *v, const char *name) {
    Bytes text = {0};
    value_upper(&text, v);
    const bool same = strcmp(text.text, name) == 0 && text.size == strlen(name);
    free(text.text);
    return same;
}

static void quoted(ChatText *c, const char *text, size_t size) {
    chat_markup(c, QUOTE);
    chat_content(c, text, size);
    chat_markup(c, QUOTE);
}

static void quoted_value(ChatText *c, const json_t *v) {
    chat_markup(c, QUOTE);
    render_value(c, v);
    chat_markup(c, QUOTE);
}

static void quoted_upper(ChatText *c, const json_t *v) {
    chat_markup(c, QUOTE);
    upper(c, v);
    chat_markup(c, QUOTE);
}

static void argument_object(ChatText *c, const json_t *v, bool escape_keys, bool april) {
    Members m = members_sorted(v);
    for (size_t i = 0; i < m.n; i++) {
        if (i > 0) chat_markup(c, ",");
        if (escape_keys)
            quoted(c, m.item[i].key, m.item[i].size);
        else
            chat_content(c, m.item[i].key, m.item[i].size);
        chat_markup(c, ":");
        render_argument(c, m.item[i].value, escape_keys, april);
    }
    members_free(&m);
}

void render_members(ChatText *c, const json_t *object, bool april) {
    argument_object(c, object, false, april);
}

void render_argument(ChatText *c, const json_t *v, bool escape_keys, bool april) {
    if (json_is_null(v)) {
        chat_markup(c, april ? "None" : "null");
    } else if (value_is_string(v)) {
        quoted(c, json_string_value(v), json_string_length(v));
    } else if (json_is_boolean(v)) {
        chat_markup(c, json_is_true(v) ? "true" : "false");
    } else if (json_is_object(v)) {
        chat_markup(c, "{");
        argument_object(c, v, escape_keys, april);
        chat_markup(c, "}");
    } else if (v == NULL || json_is_array(v)) { // undefined is an empty sequence to Jinja
        chat_markup(c, "[");
        for (size_t i = 0; i < json_array_size(v); i++) {
            if (i > 0) chat_markup(c, ",");
            render_argument(c, json_array_get(v, i), escape_keys, april);
        }
        chat_markup(c, "]");
    } else {
        render_value(c, v);
    }
}

bool render_response(ChatText *c, const json_t *name, const json_t *response, bool april,
                     Err *err) {
    if (!value_is_string(name)) return err_set(err, ERR_INPUT, "a tool response without a name");
    chat_markup(c, "response:");
    chat_content(c, json_string_value(name), json_string_length(name));
    chat_markup(c, json_is_object(response) ? "{" : "{value:");
    if (json_is_object(response))
        render_members(c, response, april);
    else
        render_argument(c, response, false, april);
    chat_markup(c, "}");
    chat_markup(c, "<tool_response|>");
    return true;
}

// required:[...] of whatever can be looped over.
static bool required(ChatText *c, const json_t *v, Err *err) {
    json_t *items = value_items(v);
    if (items == NULL) return err_set(err, ERR_INPUT, "\"required\" of a tool is not a list");
    chat_markup(c, "required:[");
    for (size_t i = 0; i < json_array_size(items); i++) {
        if (i > 0) chat_markup(c, ",");
        quoted_value(c, json_array_get(items, i));
    }
    chat_markup(c, "]");
    json_decref(items);
    return true;
}

static bool parameters(ChatText *c, const json_t *properties, bool filter_keys, bool april,
                       Err *err);

// type:... inside items: one name or a list of names.
static bool items_type(ChatText *c, const json_t *v, Err *err) {
    json_t *names = value_is_string(v) ? json_pack("[O]", v)
                    : value_true(v)    ? value_items(v)
                                    : json_array(); // the filter map gives nothing for false values
    if (names == NULL) return err_set(err, ERR_INPUT, "\"type\" of a tool's items is not a name");
    chat_markup(c, "type:");
    if (!value_is_string(v)) chat_markup(c, "[");
    for (size_t i = 0; i < json_array_size(names); i++) {
        if (i > 0) chat_markup(c, ",");
        quoted_upper(c, json_array_get(names, i));
    }
    if (!value_is_string(v)) chat_markup(c, "]");
    json_decref(names);
    return true;
}

static bool item_member(ChatText *c, const Member *m, bool april, Err *err) {
    const json_t *v = m->value;
    if (strcmp(m->key, "properties") == 0) {
        chat_markup(c, "properties:{");
        if (json_is_object(v) && !parameters(c, v, april, april, err)) return false;
        chat_markup(c, "}");
        return true;
    }
    if (strcmp(m->key, "required") == 0) return required(c, v, err);
    if (strcmp(m->key, "type") == 0) return items_type(c, v, err);
    chat_content(c, m->key, m->size);
    chat_markup(c, ":");
    render_argument(c, v, true, april);
    return true;
}

static bool items(ChatText *c, const json_t *v, bool april, Err *err) {
    Members m = members_sorted(v);
    bool ok = true, any = false;
    chat_markup(c, "items:{");
    for (size_t i = 0; i < m.n && ok; i++) {
        if (json_is_null(m.item[i].value)) continue;
        if (any) chat_markup(c, ",");
        any = true;
        ok = item_member(c, &m.item[i], april, err);
    }
    chat_markup(c, "}");
    members_free(&m);
    return ok;
}

// A comma before every part of a property but the first.
static void part(ChatText *c, bool *any) {
    if (*any) chat_markup(c, ",");
    *any = true;
}

static bool object_parts(ChatText *c, const json_t *v, bool *any, bool april, Err *err) {
    const json_t *inner = value_get(v, "properties");
    const bool own = json_is_object(inner);
    if (own || json_is_object(v)) {
        part(c, any);
        chat_markup(c, "properties:{");
        if (!parameters(c, own ? inner : v, april || !own, april, err)) return false;
        chat_markup(c, "}");
    }
    if (!value_true(value_get(v, "required"))) return true;
    part(c, any);
    return required(c, value_get(v, "required"), err);
}

// {description:...,...,type:...} of one property.
static bool property(ChatText *c, const json_t *v, bool april, Err *err) {
    const json_t *type = value_get(v, "type"), *description = value_get(v, "description");
    bool any = false;
    chat_markup(c, "{");
    if (value_true(description)) {
        part(c, &any);
        chat_markup(c, "description:");
        quoted_value(c, description);
    }
    if (upper_is(type, "STRING") && value_true(value_get(v, "enum"))) {
        part(c, &any);
        chat_markup(c, "enum:");
        render_argument(c, value_get(v, "enum"), true, april);
    } else if (upper_is(type, "ARRAY") && json_object_size(value_get(v, "items")) > 0) {
        part(c, &any);
        if (!items(c, value_get(v, "items"), april, err)) return false;
    }
    if (value_true(value_get(v, "nullable"))) {
        part(c, &any);
        chat_markup(c, "nullable:true");
    }
    if (upper_is(type, "OBJECT") && !object_parts(c, v, &any, april, err)) return false;
    part(c, &any);
    chat_markup(c, "type:");
    quoted_upper(c, type);
    chat_markup(c, "}");
    return true;
}

static bool standard_key(const char *key) {
    static const char *const keys[] = {"description", "type", "properties", "required", "nullable"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}

static bool parameters(ChatText *c, const json_t *properties, bool filter_keys, bool april,
                       Err *err) {
    if (!json_is_object(properties))
        return err_set(err, ERR_INPUT, "\"properties\" of a tool is not an object");
    Members m = members_sorted(properties);
    bool ok = true, any = false;
    for (size_t i = 0; i < m.n && ok; i++) {
        if (filter_keys && standard_key(m.item[i].key)) continue;
        part(c, &any);
        chat_content(c, m.item[i].key, m.item[i].size);
        chat_markup(c, ":");
        ok = property(c, m.item[i].value, april, err);
    }
    members_free(&m);
    return ok;
}

static bool declaration_parameters(ChatText *c, const json_t *params, bool april, Err *err) {
    chat_markup(c, ",parameters:{");
    if (value_true(value_get(params, "properties"))) {
        chat_markup(c, "properties:{");
        if (!parameters(c, value_get(params, "properties"), april, april, err)) return false;
        chat_markup(c, "},");
    }
    if (value_true(value_get(params, "required"))) {
        if (!required(c, value_get(params, "required"), err)) return false;
        chat_markup(c, ",");
    }
    if (value_true(value_get(params, "type"))) {
        chat_markup(c, "type:");
        quoted_upper(c, value_get(params, "type"));
        chat_markup(c, "}");
    }
    return true;
}

bool render_declaration(ChatText *c, const json_t *tool, bool april, Err *err) {
    const json_t *function = value_get(tool, "function");
    if (!json_is_object(function)) return err_set(err, ERR_INPUT, "a tool without a function");
    const json_t *params = value_get(function, "parameters");
    const json_t *response = value_get(function, "response");
    chat_markup(c, "declaration:");
    render_value(c, value_get(function, "name"));
    chat_markup(c, "{description:");
    quoted_value(c, value_get(function, "description"));
    if (value_true(params) && !declaration_parameters(c, params, april, err)) return false;
    if (response != NULL) {
        chat_markup(c, ",response:{");
        if (value_true(value_get(response, "description"))) {
            chat_markup(c, "description:");
            quoted_value(c, value_get(response, "description"));
            chat_markup(c, ",");
        }
        if (upper_is(value_get(response, "type"), "OBJECT")) {
            chat_markup(c, "type:");
            quoted_upper(c, value_get(response, "type"));
            chat_markup(c, "}");
        }
    }
    chat_markup(c, "}");
    return true;
}
