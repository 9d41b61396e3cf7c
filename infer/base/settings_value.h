// infer/base/settings_value.h - one setting's value: set, checked, released, printed.
#ifndef BASE_SETTINGS_VALUE_H
#define BASE_SETTINGS_VALUE_H

#include "infer/base/settings_table.h"

// Errors are ERR_USAGE and name the setting, the value given and what is allowed.
MUST_CHECK bool field_set_text(Settings *s, const Field *f, const char *text, Err *err);
MUST_CHECK bool field_set_json(Settings *s, const Field *f, const json_t *value, Err *err);
json_t *field_json(const Settings *s, const Field *f); // new reference
void field_free(Settings *s, const Field *f);

#endif
