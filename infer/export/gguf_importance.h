// infer/export/gguf_importance.h - an imatrix file as what the GGUF exporter asks for.
#ifndef EXPORT_GGUF_IMPORTANCE_H
#define EXPORT_GGUF_IMPORTANCE_H

#include "infer/export/gguf_export.h"
#include "infer/format/imatrix_file.h"

typedef struct {
    Imatrix file;
    char name[256]; // of the file, without its folder
    GgufImportance importance;
} GgufImatrix;

// Reads either form. Every entry that names a tensor must have that tensor's columns, and one must
// name one; entries of the other dialect's names count.
MUST_CHECK bool gguf_imatrix_open(GgufImatrix *m, const char *path, GgufDialect d,
                                  const AssistantConfig *c, Err *err);
void gguf_imatrix_close(GgufImatrix *m);

#endif
