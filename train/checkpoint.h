// train/checkpoint.h - checkpoint folders that are whole or absent (spec reliability 6).
//
//   ROOT/step-000040.tmp/   files, each fsynced by its writer; MANIFEST.json with size and SHA-256
//   of each ROOT/step-000040/       the same after one rename; then ROOT/latest moves, then old
//   ones go ROOT/latest, ROOT/best  symbolic links, replaced by rename
// What the files hold is the business of train_state.h.
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include "infer/base/file.h"

// ROOT/step-N into out.
char *ckpt_path(char out[PATH_ROOM], const char *root, int64_t step);
// Creates ROOT and an empty step-N.tmp whose path goes to tmp.
MUST_CHECK bool ckpt_begin(const char *root, int64_t step, char tmp[PATH_ROOM], Err *err);
// Manifest, rename, fsync, `latest`. On failure nothing of step N remains and `latest` is what it
// was.
MUST_CHECK bool ckpt_commit(const char *root, int64_t step, Err *err);
void ckpt_abort(const char *root, int64_t step);
// ROOT/name -> step-N, atomically.
MUST_CHECK bool ckpt_point(const char *root, const char *name, int64_t step, Err *err);
// The step that link `name` points at, -1 when there is none or its folder is gone.
int64_t ckpt_pointed(const char *root, const char *name);

// Every file of the manifest has its size and hash; the first that does not is named (ERR_INPUT).
MUST_CHECK bool ckpt_verify(const char *dir, Err *err);
// The checkpoint to resume from: `latest`, or when that is damaged (a warning names the file) the
// newest older one that verifies. *step -1: ROOT holds no checkpoint. All damaged: ERR_INPUT.
MUST_CHECK bool ckpt_find(const char *root, int64_t *step, Err *err);
// Removes finished checkpoints but the newest two, `keep` more, and the best; and every *.tmp.
void ckpt_prune(const char *root, int64_t keep, int64_t best);
// Finished steps on disk, ascending; caller frees. *n = 0 for an absent ROOT.
MUST_CHECK bool ckpt_steps(const char *root, int64_t **steps, int *n, Err *err);

#endif
