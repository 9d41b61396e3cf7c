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

static void add_part(MemoryPlan *p, const char *name, int64_t bytes, bool on_device) {
    CHECK(p->n < MEMORY_PARTS && bytes >= 0, "(%s: %lld)", name, (long long)bytes);
    if (bytes == 0) return;
    p->part[p->n].name = name;
    p->part[p->n].on_device = on_device;
    p->part[p->n++].bytes = bytes;
}

void memory_add(MemoryPlan *p, const char *name, int64_t bytes) {
    add_part(p, name, bytes, false);
}

void memory_add_tensors(MemoryPlan *p, const char *name, int64_t bytes) {
    add_part(p, name, bytes, p->device > 0);
}

static int64_t sum_of(const MemoryPlan *p, bool on_device) {
    int64_t sum = 0;
    for (int i = 0; i < p->n; i++)
        if (p->part[i].on_device == on_device) sum += p->part[i].bytes;
    return sum;
}

int64_t memory_announced(const MemoryPlan *p) {
    const int64_t sum = sum_of(p, false);
    return sum > p->spent ? sum : p->spent;
}

static double mib(int64_t bytes) {
    return (double)bytes / 1048576.0;
}

static void print_parts(FILE *out, const MemoryPlan *p, bool on_device) {
    const char *before = ":";
    for (int i = 0; i < p->n; i++) {
        if (p->part[i].on_device != on_device) continue;
        fprintf(out, "%s %s %.1f", before, p->part[i].name, mib(p->part[i].bytes));
        before = ",";
    }
}

void memory_print(FILE *out, const MemoryPlan *p) {
    fprintf(out, "%.1f MiB", mib(memory_announced(p)));
    print_parts(out, p, false);
    if (p->device == 0) return;
    fprintf(out, "; %.1f of %.1f MiB on the device", mib(sum_of(p, true)), mib(p->device));
    print_parts(out, p, true);
}

bool memory_fits(const MemoryPlan *p, Err *err) {
    const int64_t wanted = sum_of(p, true);
    return p->device == 0 || wanted <= p->device ||
           err_set(err, ERR_FAILED, "%.1f MiB are wanted on a device of %.1f MiB", mib(wanted),
                   mib(p->device));
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
