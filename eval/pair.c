// eval/pair.c - settings to models.
#include "eval/pair.h"

#include <stdio.h>
#include <string.h>

static EmbedScale scale_of(const char *name) {
    return strcmp(name, "f32") == 0    ? EMBED_SCALE_F32
           : strcmp(name, "bf16") == 0 ? EMBED_SCALE_BF16
                                       : EMBED_SCALE_AUTO;
}

static DType dtype_of(const char *name, const Device *dev) {
    if (strcmp(name, "auto") == 0) return dev_prefers_bf16(dev) ? DT_BF16 : DT_F32;
    return strcmp(name, "bf16") == 0 ? DT_BF16 : DT_F32;
}

bool pair_open(Pair *p, const Settings *s, int64_t max_rows, Err *err) {
    *p = (Pair){.max_rows = max_rows};
    if ((p->dev = dev_open(s->runtime.device, (int)s->runtime.threads, err)) == NULL) return false;
    p->dtype = dtype_of(s->runtime.dtype, p->dev);
    const TargetOptions opt = {.dir = s->model.target_path,
                               .adapter = s->model.adapter_path,
                               .dtype = p->dtype,
                               .scale = scale_of(s->model.embed_scale),
                               .max_rows = max_rows};
    if ((p->target = target_open(p->dev, &opt, err)) != NULL) return true;
    pair_close(p);
    return false;
}

void pair_close(Pair *p) {
    target_close(p->target);
    dev_close(p->dev);
    *p = (Pair){0};
}

Assistant *pair_drafter(const Pair *p, const Settings *s, const char *dir, Err *err) {
    char config[PATH_ROOM];
    const bool whole = file_exists(path_join(config, dir, "config.json"));
    const AssistantOptions opt = {.dir = whole ? dir : s->model.assistant_path,
                                  .dtype = p->dtype,
                                  .target_table = target_embedding(p->target),
                                  .target_scale = target_embed_scale(p->target),
                                  .pos_offset = (int)s->model.pos_offset,
                                  .window_extra = (int)s->model.window_extra};
    Assistant *a = assistant_open(p->dev, &opt, err);
    if (a != NULL && pair_check(target_config(p->target), &a->cfg, err) &&
        (whole || assistant_read(&a->cfg, &a->w, p->dev, dir, err)))
        return a;
    err_wrap(err, "drafter %s", dir);
    assistant_close(a);
    return NULL;
}

bool pair_trained_path(const Settings *s, char out[PATH_ROOM], Err *err) {
    out[0] = '\0';
    if (s->eval.drafter[0] != '\0') {
        if (!dir_exists(s->eval.drafter))
            return err_set(err, ERR_USAGE, "eval.drafter: no folder %s", s->eval.drafter);
        snprintf(out, PATH_ROOM, "%s", s->eval.drafter);
        return true;
    }
    char best[PATH_ROOM];
    path_join(best, s->output_dir, "ckpt/best");
    if (dir_exists(best)) snprintf(out, PATH_ROOM, "%s", best);
    return true;
}
