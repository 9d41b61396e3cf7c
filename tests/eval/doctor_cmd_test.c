// tests/eval/doctor_cmd_test.c
#include "eval/doctor_cmd.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "tests/testing.h"

static json_t *doctor_json(void) { // what the verb prints, parsed
    char path[PATH_ROOM];
    Err err = {0};
    Cli cli;
    char *args[] = {(char[]){"--json"}, (char[]){"runtime.device=cpu"}};
    path_join(path, test_dir(), "stdout.json");
    assert_ok(cli_parse(&cli, &doctor_verb, 2, args, &err), err);
    fflush(stdout);
    const int kept = dup(STDOUT_FILENO);
    assert_non_null(freopen(path, "w", stdout));
    const bool ok = doctor_verb.run(&cli, &err);
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    cli_free(&cli);
    assert_ok(ok, err);
    json_t *o = json_read_file(path, 1 << 20, &err);
    if (o == NULL) fail_msg("%s", err.text);
    return o;
}

static void doctor_names_machine_kernels_and_libraries(void **state) {
    (void)state;
    static const char *const wanted[] = {"CPU",     "threads", "OpenBLAS core", "memory",
                                         "disk",    "HDF5",    "libarchive",    "jansson",
                                         "OpenSSL", "xxHash"};
    json_t *o = doctor_json();
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        const char *value = json_string_value(json_object_get(o, wanted[i]));
        if (value == NULL || *value == '\0') fail_msg("doctor says nothing of %s", wanted[i]);
    }
    assert_null(strstr(json_string_value(json_object_get(o, "memory")), "-1.0"));
    assert_null(strstr(json_string_value(json_object_get(o, "disk")), "-0.0"));
    json_decref(o);
}

static void a_device_that_is_not_there_is_refused(void **state) {
    (void)state;
    Err err = {0};
    Cli cli;
    char *args[] = {(char[]){"runtime.device=cuda:99"}};
    assert_ok(cli_parse(&cli, &doctor_verb, 1, args, &err), err);
    assert_false(doctor_verb.run(&cli, &err));
    assert_non_null(strstr(err.text, "cuda:99"));
    cli_free(&cli);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doctor_names_machine_kernels_and_libraries),
        cmocka_unit_test(a_device_that_is_not_there_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
