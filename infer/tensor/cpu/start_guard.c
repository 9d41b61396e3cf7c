// infer/tensor/cpu/start_guard.c - what OpenBLAS and OpenMP read only from the environment and only
// while they are loaded: set, and the program started over.
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/tensor/device.h"

extern char *openblas_get_corename(void);

// What OpenBLAS 0.3.21 calls the kernels it falls back to: none of them uses AVX2.
static bool is_fallback(const char *core) {
    static const char *const OLD[] = {
        "Prescott",     "Core2",     "Nehalem",    "Katmai",  "Coppermine",  "Northwood",
        "Banias",       "Penryn",    "Dunnington", "Atom",    "Athlon",      "Opteron",
        "Opteron_SSE3", "Barcelona", "Nano",       "Generic", "Sandybridge", "Unknown"};
    for (size_t i = 0; i < sizeof OLD / sizeof *OLD; i++)
        if (strcasecmp(core, OLD[i]) == 0) return true;
    return false;
}

static const char *better_core(void) {
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx512) return "SkylakeX";
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "Haswell" : NULL;
}

// OpenBLAS takes kernels of 2004 for a CPU that it does not know.
static bool set_blas_core(void) {
    if (getenv("OPENBLAS_CORETYPE") != NULL) return false;
    const char *core = better_core();
    return core != NULL && is_fallback(openblas_get_corename()) &&
           setenv("OPENBLAS_CORETYPE", core, 1) == 0;
}

// Threads without work watch for more by spinning, and GCC's OpenMP spins for milliseconds unless
// told otherwise. On cores that others use too that takes the time of the very thread being waited
// for: a training step took 7 times as long. Some 10 us cost an idle machine nothing.
static bool set_spinning(void) {
    if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL) return false;
    return setenv("GOMP_SPINCOUNT", "10000", 1) == 0;
}

void start_guard(char **argv) {
    char path[PATH_ROOM];
    const bool core = set_blas_core(), spinning = set_spinning();
    if (!core && !spinning) return; // all is set, by a user or by our first start: this cannot loop
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n > 0) {
        path[n] = '\0';
        execv(path, argv); // by its own name, as ps and top show it
    }
    execv("/proc/self/exe", argv); // replaced or deleted meanwhile
}
