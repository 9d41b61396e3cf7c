// data/token_sample.h - one tokenised item as it flows prepare -> regenerate -> capture, one JSON
// line each.
//
// {"id", "category", "source", "sampler", "sample", "prompt": tokens of ids before the answer,
//  "stopped", "margin", "ids": [...], "kinds": [[kind, count], ...]}; prepare writes conversations
//  whose model turns
// may be missing (prompt == number of ids), regenerate writes the target's own answers.
#ifndef DATA_TOKEN_SAMPLE_H
#define DATA_TOKEN_SAMPLE_H

#include <stdint.h>

#include "data/corpus.h"
#include "infer/base/file.h"

typedef struct {
    char id[128], category[64], source[128];
    char sampler[64]; // "greedy", "T=0.7,top_k=64,top_p=0.95", "reference"
    int32_t sample;   // number of the answer, 0..
    int64_t prompt;   // ids[prompt] is the first token of the last model turn's answer
    int64_t n;
    int32_t *ids;
    uint8_t *kind;     // TokenKind per id
    bool stopped;      // the answer ended by itself
    double min_margin; // of a greedy answer; -1 unknown
} Sample;

// The model says it: labels and teachers of the loss are such tokens.
bool sample_supervised(const Sample *s, int64_t t); // false past the end
// Draft rounds may begin at T, 1 <= T, when x_T and x_{T+1} are supervised.
int64_t sample_anchors(const Sample *s);
// Rows in front whose hidden state nobody ever asks for: those before the row that decides the
// first token of the first anchor (training) or of the answer (walks), whichever comes first.
// Teachers are rows of anchors and behind. Less than n.
int64_t sample_bare(const Sample *s);
void sample_free(Sample *s);
json_t *sample_json(const Sample *s); // new reference; NULL: a text is not UTF-8
void sample_write(OutFile *f, const Sample *s);
MUST_CHECK bool sample_read(Sample *s, const json_t *line, int32_t vocab, const char *where,
                            Err *err);
// Reads a whole file of samples; caller frees with samples_free.
MUST_CHECK bool samples_load(const char *path, int32_t vocab, Sample **out, int64_t *n, Err *err);
MUST_CHECK bool samples_save(const char *path, const Sample *s, int64_t n, Err *err); // atomic
void samples_free(Sample *s, int64_t n);

#endif
