// data/held_out.c - the settings' sampler beside the one that a capture names.
#include "data/held_out.h"

#include <string.h>

#include "data/regenerate.h"

Sampler held_out_sampler(const Settings *s) {
    const bool drawn =
        strcmp(s->regenerate.held_out, "sampled") == 0 && s->regenerate.temperature > 0;
    return drawn ? (Sampler){.temperature = s->regenerate.temperature,
                             .top_k = s->regenerate.top_k,
                             .top_p = s->regenerate.top_p}
                 : (Sampler){.top_p = 1};
}

bool held_out_check(const Settings *s, const ShardMeta *meta, const char *dir, Err *err) {
    char want[64];
    const Sampler sampler = held_out_sampler(s);
    sampler_name(want, &sampler);
    if (strcmp(meta->sampler, want) == 0) return true;
    return err_set(err, ERR_INPUT,
                   "%s: its text was made with \"%s\", the settings of regenerate say \"%s\": "
                   "acceptance is measured on text of the sampler that is deployed",
                   dir, meta->sampler, want);
}
