// eval/count/acceptance_notes.h - the Markdown tables behind those of tau. Private to
// acceptance*.c.
#ifndef EVAL_ACCEPTANCE_NOTES_H
#define EVAL_ACCEPTANCE_NOTES_H

#include <stdio.h>

#include "eval/count/acceptance_read.h"

// Slices at select_k; p-min, recall, other tools' numbers.
void acceptance_slices(FILE *out, const json_t *report, const DrafterNames *names);
void acceptance_notes(FILE *out, const json_t *report, const DrafterNames *names);

#endif
