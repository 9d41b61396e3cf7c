// data/drafter.h - drafters on the embedding of an open target.
#ifndef DATA_DRAFTER_H
#define DATA_DRAFTER_H

#include "data/workspace.h"
#include "infer/model/assistant.h"

// A drafter's artifact (weight_source.h), checked against the target. A folder without config.json
// (a checkpoint) takes configuration and constants from the stock assistant's.
MUST_CHECK Assistant *drafter_open(const OpenTarget *t, const Settings *s, const char *dir,
                                   Err *err);
// No weights: what sizes are counted from (target not loaded). a->cfg and a->dtype only.
MUST_CHECK bool drafter_price(Assistant *a, const OpenTarget *t, const Settings *s, const char *dir,
                              Err *err);
// eval.drafter, else the best checkpoint of output_dir; "" when there is none.
MUST_CHECK bool drafter_trained_path(const Settings *s, char out[PATH_ROOM], Err *err);

#endif
