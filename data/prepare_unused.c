// data/prepare_unused.c - what the data hold and no model will see: counted by items, told at the
// end.
#include "data/prepare.h"
#include "infer/base/log.h"

enum { UNUSED_KINDS = 32 }; // told apart

typedef struct {
    json_t *seen;  // of one item
    json_t *kinds; // over all
} Note;

static void note_unused(void *ctx, const char *what) {
    const Note *n = ctx;
    const json_int_t items = json_integer_value(json_object_get(n->kinds, what));
    if (json_object_get(n->seen, what) != NULL) return;
    if (items == 0 && json_object_size(n->kinds) >= UNUSED_KINDS) return;
    json_object_set_new(n->seen, what, json_true());
    json_object_set_new(n->kinds, what, json_integer(items + 1));
}

void unused_look(Unused *u, Dialogue *d, int64_t turns, bool answers) {
    Note n = {json_object(), u->kinds};
    const int64_t recorded = dialogue_unused(d, turns, answers, note_unused, &n);
    if (!answers) u->answers += recorded;
    json_decref(n.seen);
}

void unused_tell(const Unused *u, Input input) {
    const char *what;
    json_t *n;
    json_object_foreach(u->kinds, what, n)
        log_warn("data.%s: the template leaves out of %lld items: %s", input_name(input),
                 (long long)json_integer_value(n), what);
    if (u->answers > 0)
        log_info("data.%s: %lld given answers are not used, the target answers itself",
                 input_name(input), (long long)u->answers);
}
