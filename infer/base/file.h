// infer/base/file.h - whole files in, whole files out: what we write appears complete or not at
// all.
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "infer/base/err.h"

enum { PATH_ROOM = 4096 };

// "a/b" into out; CHECKs the room. Returns out.
char *path_join(char out[PATH_ROOM], const char *a, const char *b);
const char *path_base(const char *path); // the part after the last '/'
// The folder that holds path ("." without a '/') into out. Returns out.
char *path_folder(char out[PATH_ROOM], const char *path);

bool file_exists(const char *path);
bool dir_exists(const char *path);
MUST_CHECK bool file_size(const char *path, int64_t *size, Err *err);
// Reads everything (at most `limit` bytes, more is ERR_INPUT); caller frees; a 0 byte is appended.
MUST_CHECK char *file_read(const char *path, int64_t limit, size_t *size, Err *err);
MUST_CHECK bool dir_make(const char *path, Err *err);   // with parents, their names synced
MUST_CHECK bool dir_remove(const char *path, Err *err); // recursively; absent is fine
MUST_CHECK bool file_copy(const char *from, const char *to, Err *err); // atomic, fsynced
// Names in a directory, sorted; caller frees with dir_list_free.
MUST_CHECK char **dir_list(const char *path, int *n, Err *err);
void dir_list_free(char **names, int n);
int64_t disk_free_bytes(const char *path); // of the file system that holds path; -1 unknown

// Atomic output: open a temporary sibling, write, then commit = flush, fsync, rename, fsync folder.
// A dropped file leaves nothing behind. Write errors are sticky and reported by commit, disk full
// included (ERR_FAILED). Two processes writing the same path at once: the second is refused.
typedef struct {
    int fd; // -1: closed; not to be written directly
    char path[PATH_ROOM], tmp[PATH_ROOM];
    int64_t written; // bytes given so far
    char *buffer;    // small writes gather here
    size_t buffered;
    int error; // errno of the first failed write
} OutFile;

MUST_CHECK bool out_open(OutFile *f, const char *path, Err *err);
void out_write(OutFile *f, const void *data, size_t size);
void out_printf(OutFile *f, const char *fmt, ...) PRINTF_LIKE(2, 3);
MUST_CHECK bool out_commit(OutFile *f, Err *err);
void out_drop(OutFile *f); // fine on a closed file
MUST_CHECK bool file_write(const char *path, const void *data, size_t size,
                           Err *err); // open+write+commit
MUST_CHECK bool dir_sync(const char *path, Err *err);
// rename(2) of a finished folder or file, then fsync of the parent folder.
MUST_CHECK bool path_publish(const char *tmp, const char *final, Err *err);

// A lock file with pid and host: a second writer is refused by name, a dead owner is taken over
// (on another host nobody can tell: then the message says which file to delete).
MUST_CHECK bool lock_take(const char *path, Err *err);
void lock_release(const char *path);

#endif
