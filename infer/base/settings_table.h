// infer/base/settings_table.h - one row per setting; the rows are the schema of a configuration.
#ifndef BASE_SETTINGS_TABLE_H
#define BASE_SETTINGS_TABLE_H

#include <stddef.h>

#include "infer/base/settings.h"

typedef enum { FIELD_INT, FIELD_REAL, FIELD_BOOL, FIELD_STR, FIELD_STRS } FieldType;

typedef struct {
    const char *name; // "train.lr"
    FieldType type;
    size_t offset;       // in Settings
    const char *initial; // as on the command line
    double min, max;     // FIELD_INT, FIELD_REAL: inclusive
    const char *choices; // FIELD_STR, FIELD_STRS: "a|b|cuda:*" (fnmatch), NULL = anything
    const char *help;
} Field;

extern const Field settings_fields[];
extern const int settings_field_count;

// The configuration compiled into the program: configs/demo.json, 0-terminated.
extern const char settings_demo[];

#endif
