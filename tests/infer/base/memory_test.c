// tests/infer/base/memory_test.c - the plan adds up, the peak is the kernel's and can be begun
// anew, the record says both.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/memory.h"
#include "tests/testing.h"

enum { MIB = 1 << 20 };

static void the_peak_holds_what_is_gone_until_it_is_begun_anew(void **state) {
    (void)state;
    memory_begin();
    const int64_t before = memory_held();
    assert_true(before > 0 && memory_peak() >= before);
    // not by malloc: sanitizers keep what is freed
    char *block = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(block != MAP_FAILED);
    memset(block, 1, 64 * MIB);
    assert_true(memory_held() > before + 60 * MIB);
    assert_int_equal(munmap(block, 64 * MIB), 0);
    assert_true(memory_held() < before + 30 * MIB);
    assert_true(memory_peak() > before + 60 * MIB);
    memory_begin();
    assert_true(memory_peak() < before + 30 * MIB);
}

static void a_plan_is_the_sum_of_its_parts_but_no_less_than_was_spent(void **state) {
    (void)state;
    char line[256] = "";
    MemoryPlan p = {0};
    memory_add(&p, "target", 3 * MIB);
    memory_add(&p, "nothing", 0);
    memory_add(&p, "rows", MIB / 2);
    assert_int_equal(memory_announced(&p), 3 * MIB + MIB / 2);
    FILE *f = fmemopen(line, sizeof line, "w");
    memory_print(f, &p);
    fclose(f);
    assert_string_equal(line, "3.5 MiB: target 3.0, rows 0.5");
    p.spent = 9 * MIB;
    assert_int_equal(memory_announced(&p), 9 * MIB);
    memory_plan(&p);
    assert_true(p.n == 1 && memory_announced(&p) >= memory_held() - MIB);
}

static void tensors_are_the_devices_where_it_has_memory(void **state) {
    (void)state;
    for (int apart = 0; apart < 2; apart++) {
        char line[256] = "";
        Err err = {0};
        MemoryPlan p = {.device = apart ? 4 * MIB : 0};
        memory_add(&p, "program", MIB);
        memory_add_tensors(&p, "target", 3 * MIB);
        assert_int_equal(memory_announced(&p), apart ? MIB : 4 * MIB);
        assert_ok(memory_fits(&p, &err), err);
        memory_add_tensors(&p, "rows", 2 * MIB);
        FILE *f = fmemopen(line, sizeof line, "w");
        memory_print(f, &p);
        fclose(f);
        assert_string_equal(line, apart ? "1.0 MiB: program 1.0; 5.0 of 4.0 MiB on the device: "
                                          "target 3.0, rows 2.0"
                                        : "6.0 MiB: program 1.0, target 3.0, rows 2.0");
        assert_true(memory_fits(&p, &err) == !apart);
        if (apart) assert_non_null(strstr(err.text, "5.0 MiB"));
    }
}

static double said(const json_t *all, const char *stage, const char *key) {
    const json_t *v = json_object_get(json_object_get(all, stage), key);
    assert_true(json_is_real(v));
    return json_real_value(v);
}

static void a_record_keeps_other_stages_and_survives_damage(void **state) {
    (void)state;
    char path[PATH_ROOM];
    Err err = {0};
    path_join(path, test_dir(), "memory.json");
    assert_ok(memory_record(test_dir(), "none", 0, &err), err);
    assert_false(file_exists(path));
    assert_ok(memory_record(test_dir(), "capture", 1000 * (int64_t)MIB, &err), err);
    assert_ok(memory_record(test_dir(), "eval", 2 * MIB, &err),
              err); // less than there is: a warning
    json_t *all = json_read_file(path, 1 << 20, &err);
    assert_ok(all != NULL, err);
    assert_true(said(all, "capture", "announced_mib") == 1000.0);
    assert_true(said(all, "eval", "announced_mib") == 2.0);
    assert_true(said(all, "eval", "peak_mib") > 2.0 && said(all, "eval", "peak_mib") < 900.0);
    json_decref(all);
    assert_ok(file_write(path, "{", 1, &err), err);
    assert_ok(memory_record(test_dir(), "eval", 3 * MIB, &err), err);
    all = json_read_file(path, 1 << 20, &err);
    assert_ok(all != NULL, err);
    assert_true(said(all, "eval", "announced_mib") == 3.0);
    json_decref(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_peak_holds_what_is_gone_until_it_is_begun_anew),
        cmocka_unit_test(tensors_are_the_devices_where_it_has_memory),
        cmocka_unit_test(a_plan_is_the_sum_of_its_parts_but_no_less_than_was_spent),
        cmocka_unit_test(a_record_keeps_other_stages_and_survives_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
