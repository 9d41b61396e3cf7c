// eval/audit/frozen.h - a drafter's files beside the stock one's: nothing may differ that training
// does not train.
#ifndef EVAL_FROZEN_H
#define EVAL_FROZEN_H

#include <stdio.h>

#include <jansson.h>

#include "infer/base/settings.h"

// Compares the tensors (names, dtypes, shapes; bytes of those that no training touches and of those
// that `freeze` names by name or pattern) and config.json, where `dir` has one. Returns {"passed",
// "skipped" or "", "tensors", "frozen", "changed": [{"name", "relative"}], "failures": [text]} as a
// new reference; NULL: a file cannot be read. The stock drafter itself is not compared: "skipped".
MUST_CHECK json_t *frozen_check(const char *dir, const char *stock, const StrList *freeze,
                                Err *err);
MUST_CHECK bool frozen_gate(const json_t *frozen, Err *err); // ERR_GATE naming what differs
void frozen_markdown(FILE *out, const json_t *frozen);

#endif
