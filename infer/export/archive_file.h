// infer/export/archive_file.h - exported folders in one file, the same bytes every time.
#ifndef EXPORT_ARCHIVE_FILE_H
#define EXPORT_ARCHIVE_FILE_H

#include "infer/base/file.h"

// ERR_USAGE unless the name ends in .tar or .zip.
MUST_CHECK bool archive_name_check(const char *path, Err *err);
// Every file of every folder, as FOLDER/NAME, in the order given and then by name. Times, owners
// and modes are fixed and nothing is compressed: equal files give equal archives. Atomic.
MUST_CHECK bool archive_folders(const char *path, const char *const *dir, int n, Err *err);

#endif
