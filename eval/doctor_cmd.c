// eval/doctor_cmd.c - CPU, kernels, memory, disk, libraries.
#include "eval/doctor_cmd.h"

#include <string.h>
#include <unistd.h>

#include <archive.h>
#include <hdf5.h>
#include <openssl/crypto.h>
#include <xxhash.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/world.h"
#include "infer/tensor/device.h"

static void add_line(void *ctx, const char *name, const char *value) {
    json_object_set_new(ctx, name, json_string(value));
}

// "MemAvailable" of /proc/meminfo in GiB; -1 unknown
static double meminfo_gib(const char *name) {
    FILE *f = fopen("/proc/meminfo", "re");
    char line[256];
    double kib = -1;
    const size_t n = strlen(name);
    while (f != NULL && fgets(line, sizeof line, f))
        if (!strncmp(line, name, n) && line[n] == ':') sscanf(line + n + 1, "%lf", &kib);
    if (f != NULL) fclose(f);
    return kib < 0 ? -1 : kib / (1 << 20);
}

static void add_machine(json_t *o, const char *output_dir) {
    char text[256];
    snprintf(text, sizeof text, "%.1f GiB, %.1f GiB available", meminfo_gib("MemTotal"),
             meminfo_gib("MemAvailable"));
    add_line(o, "memory", text);
    snprintf(text, sizeof text, "%.1f GiB free at %.200s",
             (double)disk_free_bytes(output_dir) / (1 << 30), output_dir);
    add_line(o, "disk", text);
}

static void add_libraries(json_t *o) {
    char text[128];
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    snprintf(text, sizeof text, "%u.%u.%u", major, minor, release);
    add_line(o, "HDF5", text);
    add_line(o, "libarchive", archive_version_details());
    add_line(o, "jansson", jansson_version_str());
    add_line(o, "OpenSSL", OpenSSL_version(OPENSSL_VERSION));
    const unsigned v = XXH_versionNumber();
    snprintf(text, sizeof text, "%u.%u.%u", v / 10000, v / 100 % 100, v % 100);
    add_line(o, "xxHash", text);
    world_mpi_name(text);
    add_line(o, "MPI", text);
}

static bool doctor_run(const Cli *cli, Err *err) {
    Device *dev = dev_open(cli->s.runtime.device, (int)cli->s.runtime.threads, err);
    if (dev == NULL) return false;
    json_t *o = json_object(), *v;
    const char *name;
    dev_describe(dev, add_line, o);
    add_line(o, "inference dtype auto", dev_prefers_bf16(dev) ? "bf16" : "f32");
    add_machine(o, cli->s.output_dir);
    add_libraries(o);
    dev_close(dev);
    if (cli->json) {
        json_dumpf(o, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        json_object_foreach(o, name, v) printf("%-22s %s\n", name, json_string_value(v));
    }
    json_decref(o);
    return true;
}

const Verb doctor_verb = {
    .name = "doctor",
    .summary = "this machine, the kernels chosen for it, libraries, memory, disk",
    .usage = "  draftsmith doctor                       what auto settings mean here\n"
             "  draftsmith doctor --json --device cpu   the same for scripts",
    .run = doctor_run,
};
