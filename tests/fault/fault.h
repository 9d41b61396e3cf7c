// tests/fault/fault.h - a library that is loaded in front of libc and lets calls on files fail.
//
// Built as fault.so, loaded by LD_PRELOAD. Its environment:
//   FAULT_UNDER=DIR    only calls on files below DIR (as the program spells it) are counted
//   FAULT=KIND:N[+]:HOW  the N-th call of KIND (with +: and every later one, of EINTR every other)
//                      does HOW
//     KIND  open read write fsync close rename unlink mkdir symlink truncate lock malloc, or any:
//           every call that changes the disk. malloc counts what the program itself asks for.
//     HOW   EIO ENOSPC EDQUOT EINTR EACCES EMFILE ENOMEM: the call fails so
//           short: a write or read does half of it;  kill: the process dies before the call
//           drop, mix: power fails before the call (fault_disk.c)
//   FAULT_COUNT=FILE   at the end: how many calls of each kind there were, how many faults fired
//   FAULT_DISK=DIR     for drop and mix: DIR/shadow is scratch, DIR/crashed what the disk kept
//   FAULT_SEED=N       which of the unsynced changes mix keeps
#ifndef TESTS_FAULT_H
#define TESTS_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

// libc's own functions, past the ones that replace them here.
typedef struct {
    int (*open)(const char *, int, ...);
    ssize_t (*read)(int, void *, size_t), (*write)(int, const void *, size_t);
    ssize_t (*pread)(int, void *, size_t, off_t), (*pwrite)(int, const void *, size_t, off_t);
    int (*fsync)(int), (*fdatasync)(int), (*close)(int), (*ftruncate)(int, off_t);
    int (*rename)(const char *, const char *), (*symlink)(const char *, const char *);
    int (*unlink)(const char *), (*remove)(const char *), (*mkdir)(const char *, mode_t);
    int (*flock)(int, int);
} Libc;
extern Libc libc;

// What a disk would keep. All paths lie below FAULT_UNDER.
void disk_start(const char *under, const char *folder, unsigned seed);
void disk_before_open(const char *path); // what it holds now may be cut or written over
void disk_made(const char *path);        // a new file or folder
void disk_written(int fd);
void disk_synced(int fd);
void disk_before_removal(const char *path); // unlinked, or another file is renamed over it
__attribute__((noreturn)) void disk_power_off(bool mix);

#endif
