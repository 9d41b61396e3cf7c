// infer/base/memory.h - what a stage will take, said before it starts, and what the process took.
//
// A plan is a list of parts in bytes. What the process holds already (program, libraries,
// tokenizer) is measured, everything else is priced by whoever will take it. The peak is the
// kernel's high-water mark of resident memory (VmHWM, else ru_maxrss).
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stdint.h>
#include <stdio.h>

#include "infer/base/err.h"

enum { MEMORY_PARTS = 16 };

typedef struct {
    struct {
        const char *name; // a literal
        int64_t bytes;
        bool on_device;
    } part[MEMORY_PARTS];
    int n;
    int64_t device; // bytes of a device that has memory of its own, 0: there is none
    int64_t spent;  // the peak when the plan was begun
} MemoryPlan;

// Call before a stage opens anything: gives freed memory back and restarts the high-water mark, so
// that it is the stage's own. Where the kernel allows no restart it stays that of the process.
void memory_begin(void);
int64_t memory_held(void); // resident now, 0 = unknown
int64_t memory_peak(void); // since memory_begin, 0 = unknown

// Starts a plan with what is held now as the part "program".
void memory_plan(MemoryPlan *p);
void memory_add(MemoryPlan *p, const char *name, int64_t bytes); // 0: left out of the line
// What tensors take: memory of the device where it has its own (p->device), else like memory_add.
void memory_add_tensors(MemoryPlan *p, const char *name, int64_t bytes);
// False when the device is smaller than what it is to hold.
MUST_CHECK bool memory_fits(const MemoryPlan *p, Err *err);
// The sum of the host's parts, but at least what had been needed when the plan was begun.
int64_t memory_announced(const MemoryPlan *p);
// "412.3 MiB: program 24.1, target 50.1, ...", and with a device of its own memory "; 300.0 of
// 4096.0 MiB on the device: target 50.1, ...", no newline
void memory_print(FILE *out, const MemoryPlan *p);

// Behind a stage that ran: dir/memory.json gets {"STAGE": {"announced_mib", "peak_mib"}}, one line
// is logged, a warning when the peak is more than a tenth above. announced 0: nothing was.
MUST_CHECK bool memory_record(const char *dir, const char *stage, int64_t announced, Err *err);

#endif
