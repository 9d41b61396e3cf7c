// infer/format/mlx_rules.h - the block "quantization" of an MLX model's config.json: how each
// module is stored.
//
// The block names a default (group_size, bits, mode) and, by module path, exceptions: an object of
// the same keys, or false for what stays as it is. A module without an entry is quantised by the
// default exactly when the file has its .scales.
#ifndef FORMAT_MLX_RULES_H
#define FORMAT_MLX_RULES_H

#include <jansson.h>

#include "infer/format/mlx_blocks.h"

enum { MLX_PATH_ROOM = 256 };

typedef struct {
    char module[MLX_PATH_ROOM]; // without ".weight"
    bool keep;                  // not quantised
    MlxScheme scheme;           // of one that is
} MlxRule;

typedef struct {
    bool present; // false: the model is not quantised
    MlxScheme root;
    MlxRule *rule; // in the order of the block
    int n, room;
} MlxRules;

// Reads the block of a config.json's contents; *rules is replaced. No block: present is false.
// ERR_INPUT names the entry: a width or mode that does not exist, a member that is neither an
// object nor true or false, "quantization_config" that says otherwise.
MUST_CHECK bool mlx_rules_read(MlxRules *rules, const json_t *config, Err *err);
// The block of dir/config.json.
MUST_CHECK bool mlx_rules_load(MlxRules *rules, const char *dir, Err *err);
void mlx_rules_free(MlxRules *rules);
// NULL: the module has no entry of its own.
const MlxRule *mlx_rules_find(const MlxRules *rules, const char *module);
void mlx_rules_add(MlxRules *rules, const char *module, bool keep, const MlxScheme *scheme);
json_t *mlx_rules_json(const MlxRules *rules); // the block, new reference

// {"group_size": g, "bits": b} and "mode" where it is not affine, and back (ERR_INPUT).
json_t *mlx_scheme_json(const MlxScheme *s);
MUST_CHECK bool mlx_scheme_read(MlxScheme *s, const json_t *o, Err *err);
bool mlx_scheme_same(const MlxScheme *a, const MlxScheme *b); // as stored: requant does not count
// "Q8" of 8-bit affine, "MXFP4", ...: for people.
const char *mlx_scheme_name(const MlxScheme *s, char out[16]);

#endif
