// data/drafter.c - settings to drafters.
#include "data/drafter.h"

#include <stdio.h>

#include "infer/model/weight_source.h"

bool drafter_price(Assistant *a, const OpenTarget *t, const Settings *s, const char *dir,
                   Err *err) {
    *a = (Assistant){.dtype = t->dtype, .window_extra = (int)s->model.window_extra};
    const char *from = weight_source_whole(dir) ? dir : s->model.assistant_path;
    return (weight_source_config(&a->cfg, from, err) && pair_check(&t->config, &a->cfg, err)) ||
           err_wrap(err, "drafter %s", dir);
}

Assistant *drafter_open(const OpenTarget *t, const Settings *s, const char *dir, Err *err) {
    const bool whole = weight_source_whole(dir);
    const AssistantOptions opt = {.dir = whole ? dir : s->model.assistant_path,
                                  .dtype = t->dtype,
                                  .target_table = target_embedding(t->target),
                                  .target_scale = target_embed_scale(t->target),
                                  .pos_offset = (int)s->model.pos_offset,
                                  .window_extra = (int)s->model.window_extra};
    Assistant *a = assistant_open(t->dev, &opt, err);
    if (a != NULL && pair_check(target_config(t->target), &a->cfg, err) &&
        (whole || assistant_read(&a->cfg, &a->w, t->dev, dir, err)))
        return a;
    err_wrap(err, "drafter %s", dir);
    assistant_close(a);
    return NULL;
}

bool drafter_trained_path(const Settings *s, char out[PATH_ROOM], Err *err) {
    out[0] = '\0';
    if (s->eval.drafter[0] != '\0') {
        if (!weight_source_is(s->eval.drafter))
            return err_set(err, ERR_USAGE, "eval.drafter: no folder nor a drafter's file: %s",
                           s->eval.drafter);
        snprintf(out, PATH_ROOM, "%s", s->eval.drafter);
        return true;
    }
    char best[PATH_ROOM];
    path_join(best, s->output_dir, "ckpt/best");
    if (dir_exists(best)) snprintf(out, PATH_ROOM, "%s", best);
    return true;
}
