// infer/export/tree.h - the files of an artifact, folders inside it included.
#ifndef EXPORT_TREE_H
#define EXPORT_TREE_H

#include "infer/base/file.h"

// Paths of all files below dir, relative to it, sorted; caller frees with dir_list_free.
MUST_CHECK char **tree_list(const char *dir, int *n, Err *err);

#endif
