// infer/tensor/cpu/blas_core.c - notices that OpenBLAS fell back to kernels of 2004, and starts
// over.
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

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

void blas_core_guard(char **argv) {
    // Set by a user or by our first start: either way the choice is made, and this cannot loop.
    if (getenv("OPENBLAS_CORETYPE") != NULL) return;
    const char *core = better_core();
    if (core == NULL || !is_fallback(openblas_get_corename())) return;
    if (setenv("OPENBLAS_CORETYPE", core, 1) != 0) return;
    execv("/proc/self/exe", argv); // returns only when it fails: then run on, slowly
}
