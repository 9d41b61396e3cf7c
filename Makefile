# draftsmith: make [CUDA=1] [MODE=release|debug|asan] [TARGET]      `make help` lists the targets.
MODE  ?= release
CC    ?= gcc
BUILD := build/$(MODE)-$(if $(CUDA),cuda,cpu)

PKGS  := hdf5-serial libarchive jansson libcrypto libxxhash
DNNL  := $(shell test -f /usr/include/dnnl.h && echo 1)
MPI   := $(if $(WITH_MPI),1)

OPT_release := -O3 -g1
OPT_debug   := -O0 -g
OPT_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# -ffp-contract=off: contraction changes bytes of the quantisers and bits between compilers.
CFLAGS  += -std=gnu11 -D_GNU_SOURCE $(OPT_$(MODE)) -ffp-contract=off -fopenmp -Wall -Wextra -Wshadow -Wundef -Wvla \
           -Wstrict-prototypes -Wmissing-prototypes $(if $(CI),-Werror) -I. $(shell pkg-config --cflags $(PKGS)) \
           $(if $(DNNL),-DWITH_DNNL) $(if $(CUDA),-DWITH_CUDA)
LDLIBS  += $(shell pkg-config --libs $(PKGS)) -lopenblas $(if $(DNNL),-ldnnl) -lm -lpthread -ldl
LDFLAGS += -fopenmp $(if $(filter asan,$(MODE)),-fsanitize=address,undefined)

SRC   := $(wildcard infer/*/*.c infer/tensor/cpu/*.c data/*.c train/*.c eval/*.c)
OBJ   := $(SRC:%.c=$(BUILD)/%.o)
LIB   := $(BUILD)/libdraftsmith.a
TESTS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/*/*_test.c tests/*/*/*_test.c))

.PHONY: all test clean format lint help
all: draftsmith

draftsmith: $(BUILD)/draftsmith
	cp $< $@
$(BUILD)/draftsmith: $(BUILD)/main.o $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(LIB): $(OBJ)
	rm -f $@ && ar rcs $@ $^
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/tests/%_test: $(BUILD)/tests/%_test.o $(BUILD)/tests/testing.o $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LDLIBS)

test: $(TESTS)
	@set -e; for t in $(TESTS); do echo "== $$t"; $$t; done
clean:
	rm -rf build draftsmith

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
