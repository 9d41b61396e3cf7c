// infer/base/memory.c - resident memory as the kernel counts it.
#include "infer/base/memory.h"

#include <malloc.h>
#include <string.h>
#include <sys/resource.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/log.h"

enum { RECORD_LIMIT = 1 << 20, OWN_PAGES = 4 << 20 };

// A line "NAME:   1234 kB" of /proc/self/status in bytes; 0: there is none.
static int64_t status_bytes(const char *name) {
    char line[256];
    long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    if (f == NULL) return 0;
    const size_t n = strlen(name);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, name, n) == 0 && line[n] == ':' &&
            sscanf(line + n + 1, "%lld", &kib) == 1)
            break;
    fclose(f);
    return (int64_t)kib * 1024;
}

// Blocks of some size get pages of their own, which go back when they are freed. Left to itself
// glibc puts ever larger ones among the small, where what a stage gave back stays resident.
void memory_begin(void) {
    mallopt(M_MMAP_THRESHOLD, OWN_PAGES);
    malloc_trim(0);
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (f == NULL) return;
    fputs("5", f); // see proc(5): resets VmHWM
    fclose(f);
}

int64_t memory_held(void) {
    return status_bytes("VmRSS");
}

int64_t memory_peak(void) {
    const int64_t peak = status_bytes("VmHWM");
    struct rusage used;
    if (peak > 0 || getrusage(RUSAGE_SELF, &used) != 0) return peak;
    return (int64_t)used.ru_maxrss * 1024;
}

void memory_plan(MemoryPlan *p) {
    *p = (MemoryPlan){.spent = memory_peak()};
    memory_add(p, "program", memory_held());
}

void memory_add(MemoryPlan *p, const char *name, int64_t bytes) {
    CHECK(p->n < MEMORY_PARTS && bytes >= 0, "(%s: %lld)", name, (long long)bytes);
    if (bytes == 0) return;
    p->part[p->n].name = name;
    p->part[p->n++].bytes = bytes;
}

int64_t memory_announced(const MemoryPlan *p) {
    int64_t sum = 0;
    for (int i = 0; i < p->n; i++) sum += p->part[i].bytes;
    return sum > p->spent ? sum : p->spent;
}

static double mib(int64_t bytes) {
    return (double)bytes / 1048576.0;
}

void memory_print(FILE *out, const MemoryPlan *p) {
    fprintf(out, "%.1f MiB", mib(memory_announced(p)));
    for (int i = 0; i < p->n; i++)
        fprintf(out, "%s %s %.1f", i == 0 ? ":" : ",", p->part[i].name, mib(p->part[i].bytes));
}

// Rounded to a tenth: what a reader compares.
static json_t *tenth(int64_t bytes) {
    return json_real((double)(int64_t)(mib(bytes) * 10.0 + 0.5) / 10.0);
}

bool memory_record(const char *dir, const char *stage, int64_t announced, Err *err) {
    char path[PATH_ROOM];
    Err unread = {0};
    const int64_t peak = memory_peak();
    if (announced <= 0 || peak <= 0) return true;
    log_info("%s: %.1f MiB of memory at most, %.1f announced", stage, mib(peak), mib(announced));
    if ((double)peak > 1.1 * (double)announced)
        log_warn("%s took %.1f MiB of memory, %.1f were announced", stage, mib(peak),
                 mib(announced));
    path_join(path, dir, "memory.json");
    json_t *all = file_exists(path) ? json_read_file(path, RECORD_LIMIT, &unread) : NULL;
    if (!json_is_object(all)) { // a damaged record is begun anew
        json_decref(all);
        all = json_object();
    }
    json_object_set_new(
        all, stage,
        json_pack("{s:o, s:o}", "announced_mib", tenth(announced), "peak_mib", tenth(peak)));
    const bool ok = json_write_file(path, all, err);
    json_decref(all);
    return ok;
}
