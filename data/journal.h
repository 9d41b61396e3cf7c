// data/journal.h - finished work, line by line, that survives a kill: a torn line does not count.
//
// A line is "XXH3 in hex, space, text, newline"; the first one holds the identity of the work.
#ifndef DATA_JOURNAL_H
#define DATA_JOURNAL_H

#include "infer/base/file.h"

typedef struct {
    int fd; // -1: closed
    char path[PATH_ROOM];
    char *data; // what was there when opened, until journal_keep
    int64_t n;  // whole lines of it, the identity apart
    int64_t
        *start; // (n + 1) where the text of each line begins; [n]: where the last one ended, + 17
} Journal;

// Reads what is there. Finished lines of another identity are refused (ERR_USAGE) unless `anew`,
// which drops them; so that nothing goes unnoticed, damage that takes lines along is said on
// stderr.
MUST_CHECK bool journal_open(Journal *j, const char *path, const char *identity, bool anew,
                             Err *err);
const char *journal_line(const Journal *j, int64_t i, size_t *size); // not 0-terminated
// Cuts behind the first n lines; from then on lines are added.
MUST_CHECK bool journal_keep(Journal *j, int64_t n, Err *err);
MUST_CHECK bool journal_add(Journal *j, const char *text, Err *err);
MUST_CHECK bool journal_sync(Journal *j, Err *err);
void journal_close(Journal *j); // fine on a zeroed, half-open or closed one

#endif
