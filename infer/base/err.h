// infer/base/err.h - one error value on the caller's stack; the first error wins.
//
// What can fail on input, files, memory or a device returns bool (true = ok) or a pointer and takes
// `Err *err` last. A message names the thing and both values. Callers add context in front.
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdbool.h>

// The value is the program's exit code.
typedef enum {
    ERR_NONE = 0,
    ERR_FAILED = 1,   // files, disk full, memory, device, non-finite numbers
    ERR_USAGE = 2,    // command line or configuration
    ERR_INPUT = 3,    // a file or a line that is not what it should be
    ERR_GATE = 4,     // a measured gate did not hold
    ERR_STOPPED = 75, // stopped by a signal, checkpoint written
    ERR_STUCK = 76,
} ErrCode;

typedef struct {
    ErrCode code;
    char text[1024];
} Err;

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

// Both return false, so that `return err_set(...)` reads well. err may be NULL.
bool err_set(Err *err, ErrCode code, const char *fmt, ...) PRINTF_LIKE(3, 4);
// text becomes "prefix: text"; an empty one stays empty: another rank has said it (world.h).
bool err_wrap(Err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
// Like err_set with ERR_FAILED and ": " strerror(errno) behind.
bool err_errno(Err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

// A broken promise inside the program (never bad input): prints place and text, aborts.
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond)) check_failed(__FILE__, __LINE__, #cond, " " __VA_ARGS__);                     \
    } while (0)
__attribute__((noreturn)) void check_failed(const char *file, int line, const char *cond,
                                            const char *fmt, ...) PRINTF_LIKE(4, 5);
// A small block of memory that was not to be had: one line, exit code 1. What was being written
// stays under its temporary name. Large blocks have an Err.
#define CHECK_MEMORY(block)                                                                        \
    do {                                                                                           \
        if ((block) == NULL) memory_failed();                                                      \
    } while (0)
__attribute__((noreturn)) void memory_failed(void);

#endif
