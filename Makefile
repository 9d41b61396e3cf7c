# draftsmith: make [CUDA=1|host] [MODE=release|debug|asan] [V=1] [TARGET]      `make help` lists the targets.
MODE  ?= release
CC    := $(if $(filter default,$(origin CC)),gcc,$(CC))
Q     := $(if $(V),,@)
KIND  := $(if $(CUDA),$(CUDA:1=cuda),cpu)
BUILD := build/$(MODE)-$(KIND)
JOBS   = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc)) # where nobody said how many

DEBS  := gcc make pkg-config libopenblas-openmp-dev libhdf5-dev libarchive-dev libjansson-dev \
         libxxhash-dev libssl-dev librandom123-dev libcmocka-dev
DEBS_OPTIONAL := libdnnl-dev libopenmpi-dev openmpi-bin
PKGS  := hdf5-serial libarchive jansson libcrypto libxxhash
DNNL  := $(shell test -f /usr/include/dnnl.h && echo 1)
MPI   := $(shell pkg-config --exists ompi-c 2>/dev/null && echo ompi-c)

OPT_release := -O3 -g1
OPT_debug   := -O0 -g
OPT_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# At -O1 the kernels' sums do not stay in registers: 2 to 3 times as long.
KERNELS_asan := -O2
OPT_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
# -ffp-contract=off: contraction changes bytes of the quantisers and bits between compilers.
# -fno-math-errno: nobody reads errno after sqrtf; without it no square root becomes a vector.
CFLAGS  += -std=gnu11 -D_GNU_SOURCE $(OPT_$(MODE)) -ffp-contract=off -fno-math-errno -fopenmp -Wall -Wextra -Wshadow \
           -Wundef -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wno-psabi $(if $(CI),-Werror) -I. \
           $(shell pkg-config --cflags $(PKGS) 2>/dev/null) $(if $(DNNL),-DWITH_DNNL) \
           $(if $(MPI),-DWITH_MPI $(patsubst -I%,-isystem %,$(shell pkg-config --cflags-only-I $(MPI)))) $(if $(CUDA),-DWITH_CUDA)
LDLIBS  += $(shell pkg-config --libs $(PKGS) $(MPI) 2>/dev/null) -lopenblas $(if $(DNNL),-ldnnl) -lm -lpthread -ldl
LINK_asan   := -fsanitize=address,undefined
LINK_fuzz   := $(LINK_asan)
LDFLAGS += -fopenmp $(LINK_$(MODE))
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

# Fuzzing needs the readers, and clang does not take the kernels' gcc attributes.
SRC   := $(wildcard infer/*/*.c $(if $(filter-out fuzz,$(MODE)),infer/tensor/cpu/*.c) data/*.c train/*.c eval/*.c eval/*/*.c)
LIB   := $(BUILD)/libdraftsmith.a
# Tests by name: *_golden_test needs golden data, *_long_test belongs to check-long, *_e2e_test runs stages.
ALL_TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/*/*_test.c tests/*/*/*_test.c))
TESTS     := $(filter-out %_long_test,$(ALL_TESTS))
GOLDENS   := $(filter %_golden_test,$(TESTS))
QUANT     := $(filter %_quant_test,$(TESTS))
UNITS     := $(filter-out %_golden_test %_e2e_test %_ids_test %_cases_test,$(TESTS))
SCRIPTS   := $(wildcard tests/arrows.sh tests/invalid.sh tests/pipeline.sh tests/kill_*.sh tests/faults.sh tests/mpi.sh tests/gpu_todo.sh)
export FAULT_SO := $(BUILD)/tests/fault/fault.so
FUZZERS   := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fuzz/*_fuzz.c))
REPLAYS   := $(FUZZERS:_fuzz=_replay)
FUZZ_SECONDS ?= 60
GOLDEN    ?=
IDS_TEST  := $(BUILD)/tests/infer/text/tokenizer_ids_test
CASE_TEST := $(BUILD)/tests/infer/text/chat_cases_test
CODE      := $(shell git ls-files -co --exclude-standard '*.c' '*.h' '*.cu' '*.cuh' 2>/dev/null)

include infer/tensor/cuda/cuda.mk
.SECONDARY:
.PHONY: all deps ensure demo demo-smoke test tests units check check-long check-golden check-tokenizer \
        check-template check-quant bench fuzz fuzz-run format lint clean help FORCE
all: draftsmith ## build ./draftsmith

draftsmith: $(BUILD)/draftsmith
	$(Q)cp $< $@.tmp && mv $@.tmp $@
$(BUILD)/draftsmith: $(BUILD)/main.o $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(LIB): $(SRC:%.c=$(BUILD)/%.o) $(CU_LIB:%.cu=$(BUILD)/%.cu.o)
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/%.o: %.c
	@mkdir -p $(@D); $(if $(V),:,echo "CC $<")
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/infer/tensor/cpu/%.o: CFLAGS += $(KERNELS_$(MODE))
$(BUILD)/main.o: CFLAGS += -DVERSION='"$(VERSION)"'
$(BUILD)/main.o: $(BUILD)/version
$(BUILD)/version: FORCE
	@mkdir -p $(@D); echo '$(VERSION)' | cmp -s - $@ || echo '$(VERSION)' > $@
$(BUILD)/infer/base/settings_table.o: configs/demo.json
$(BUILD)/tests/%_test: $(BUILD)/tests/%_test.o $(BUILD)/tests/testing.o $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) -lcmocka $(LDLIBS) $(if $(filter %.cu.o,$^),-lstdc++)
$(BUILD)/tests/synthetic_pair: $(BUILD)/tests/synthetic_pair.o $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(FAULT_SO): $(wildcard tests/fault/*.[ch])
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -fPIC -shared -o $@ $(filter %.c,$^) -ldl -lpthread
$(BUILD)/tests/fuzz/%_fuzz: $(BUILD)/tests/fuzz/%_fuzz.o $(LIB)
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)
$(BUILD)/tests/fuzz/%_replay: $(BUILD)/tests/fuzz/%_fuzz.o $(BUILD)/tests/fuzz/replay.o $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

deps: ## install the Debian packages (as root or through sudo)
	@root=; test "$$(id -u)" = 0 || root=sudo; \
	if test -n "$$root" && ! { command -v sudo && { sudo -n true || test -t 0; }; } >/dev/null 2>&1; then \
	    echo "Not root and no sudo. Type as root:"; \
	    echo "  apt-get update && apt-get install -y $(DEBS) $(DEBS_OPTIONAL)"; exit 1; fi; \
	$$root apt-get update && $$root apt-get install -y --no-install-recommends $(DEBS) && \
	for p in $(DEBS_OPTIONAL); do $$root apt-get install -y --no-install-recommends $$p || \
	  echo "no $$p: built without it (oneDNN: bf16 is slower; Open MPI: CPU ranks by sockets only)"; done
ensure:
	@pkg-config --exists $(PKGS) && printf '#include <%s>\n' cblas.h Random123/philox.h setjmp.h stdarg.h \
	    stddef.h stdint.h cmocka.h | $(CC) -E -x c - >/dev/null 2>&1 || $(MAKE) deps

demo: ensure ## build, then the whole pipeline on the demo pair
	@$(MAKE) $(JOBS) all
	./draftsmith run -c configs/demo.json
demo-smoke: ensure ## the whole pipeline on a few prompts and steps, in runs/smoke
	@$(MAKE) $(JOBS) all
	./draftsmith run -c tests/smoke.json --overwrite

tests: $(TESTS) $(FAULT_SO)
units: $(UNITS) $(REPLAYS)
test: all tests ## unit and golden tests of this build
	@tests/run.sh $(TESTS)
check: ensure ## every test of an ordinary change; last line: N passed, N failed, N skipped
	@$(MAKE) $(JOBS) all tests
	@$(MAKE) $(JOBS) MODE=asan units
	@tests/run.sh $(TESTS) $(subst $(BUILD),build/asan-$(KIND),$(UNITS) $(REPLAYS)) $(SCRIPTS)
check-long: ensure ## check, the long tests, goldens under sanitizers, fuzzing
	@$(MAKE) $(JOBS) all $(ALL_TESTS) $(FAULT_SO)
	@$(MAKE) $(JOBS) MODE=asan tests units
	@$(MAKE) fuzz
	@FAULTS=all tests/run.sh $(ALL_TESTS) $(subst $(BUILD),build/asan-$(KIND),$(TESTS) $(REPLAYS)) $(SCRIPTS)
check-golden: $(GOLDENS) ## GOLDEN=DIR [FAMILIES="e2b e4b"]: golden tests on any folder of that layout
	@GOLDEN=$(GOLDEN) FAMILIES="$(FAMILIES)" tests/run.sh $(GOLDENS)
check-tokenizer: $(IDS_TEST) ## TOKENIZER=tokenizer.json IDS=ids.jsonl.zst
	@TOKENIZER=$(TOKENIZER) IDS=$(IDS) tests/run.sh $<
check-template: $(CASE_TEST) ## CASES=file [TOKENIZER=tokenizer.json]
	@CASES=$(CASES) TOKENIZER=$(or $(TOKENIZER),tests/golden/tokenizer/gemma4-tokenizer.json.zst) tests/run.sh $<
check-quant: $(QUANT) ## GOLDEN=DIR: quantisers against golden rows
	@test -n "$(QUANT)" || { echo "there is no quantiser test yet"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
	@GOLDEN=$(GOLDEN) tests/run.sh $(QUANT)
bench: all ## ceilings of this machine, and our rates beside them
	./draftsmith bench
fuzz: ## libFuzzer targets, FUZZ_SECONDS=60 each (needs clang)
	@if command -v clang >/dev/null; then $(MAKE) MODE=fuzz CC=clang fuzz-run; else echo "skipped: no clang"; fi
fuzz-run: $(FUZZERS)
	@for f in $(FUZZERS); do seeds=tests/fuzz/seeds/$$(basename $$f _fuzz); mkdir -p $$f.corpus; \
	    echo "== $$(basename $$f)"; $$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 \
	    -verbosity=0 -print_final_stats=1 -artifact_prefix=$$f. $$f.corpus $$(test -d $$seeds && echo $$seeds) \
	    2>$$f.log || { tail -n 40 $$f.log; exit 1; }; grep number_of_executed_units $$f.log; done
format: ## clang-format on every C file
	@clang-format -i $(CODE)
lint: ## formatting, include arrows, headers that compile alone, cppcheck
	@clang-format --dry-run -Werror $(CODE)
	@for h in $(filter %.h,$(CODE)); do $(CC) $(CFLAGS) -fsyntax-only -x c $$h || exit 1; done
	tests/arrows.sh
	@! command -v cppcheck >/dev/null || cppcheck -q --std=c11 --enable=warning,portability --inline-suppr \
	    --suppress=missingIncludeSystem --suppress=unknownMacro --suppress=invalidPointerCast \
	    --suppress=shiftTooManyBitsSigned --error-exitcode=1 -I. $(SRC) main.c
clean: ## remove what was built
	rm -rf build draftsmith
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 18

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
