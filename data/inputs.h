// data/inputs.h - what data.train and data.eval name: files, folders, and their weights.
#ifndef DATA_INPUTS_H
#define DATA_INPUTS_H

#include <jansson.h>

#include "infer/base/file.h"
#include "infer/base/settings.h"

// One entry of the list: "PATH" or "PATH=WEIGHT".
typedef struct {
    char *path;      // without the weight
    char label[128]; // its short name, unique in the list: Sample.source
    double weight;   // 1 where none is given
    char **file;     // what is read, in order
    int files;
} Source;

typedef struct {
    Source *item;
    int n;
    bool weighted; // some entry has a weight
} Sources;

// Folders: the files train.* or train-*, for held-out prompts test.*, else valid.*, or, where there
// are none of these names, every corpus in the folder. Parquet and Arrow files are refused with
// the command that converts them.
MUST_CHECK bool sources_open(Sources *s, const char *setting, const StrList *list, bool held_out,
                             Err *err);
void sources_free(Sources *s);
// SHA-256 of every file: contents, not paths. New reference, NULL with err set.
MUST_CHECK json_t *sources_hashes(const Sources *s, Err *err);
json_t *sources_weights(const Sources *s); // new reference: null where none is given

#endif
