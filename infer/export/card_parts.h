// infer/export/card_parts.h - what the files of the model card share. Private to card*.c.
#ifndef EXPORT_CARD_PARTS_H
#define EXPORT_CARD_PARTS_H

#include "infer/export/card.h"

// A row of the table of artifacts: a format that the exporter learns adds one.
typedef struct {
    CardKind kind;
    bool drafter; // false: a target
    const char *title, *library, *relation;
    const char *tags;    // beyond the common ones, separated by spaces
    const char *changed; // what is different from the model it was made from
} CardFormat;
const CardFormat *card_format(CardKind kind);

// "## Measured": the tables of acceptance.json that this artifact can be held against.
MUST_CHECK bool card_measured(OutFile *f, const CardFacts *c, const char *weights_sha, Err *err);
// "## Use": the runtimes that load this artifact; "## Known limits".
void card_use(OutFile *f, const CardFacts *c);
void card_limits(OutFile *f, const CardFacts *c);

#endif
