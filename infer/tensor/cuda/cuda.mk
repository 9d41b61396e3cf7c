# infer/tensor/cuda/cuda.mk - how kernels are compiled: by nvcc (CUDA=1) for the GPUs of CUDA_ARCH and, as
# PTX of its last one, for newer ones; or by g++ for the emulated device of the tests (CUDA=host has it in
# the program too). Tests named twins_* and *_on_cuda_test of a build without CUDA carry the emulated device.
CUDA_HOME ?= /usr/local/cuda
CUDA_ARCH ?= 80 90
.DEFAULT_GOAL := all
CU        := $(wildcard infer/tensor/cuda/*.cu)
CU_host   := $(filter-out %/gemm.cu,$(CU)) $(wildcard tests/cuda_host/*.cu)
ON_CUDA   := infer/model/kv infer/model/assistant infer/model/assistant_golden infer/model/target_golden \
             infer/model/target_experts data/capture train/gradients_golden

CXXWARN   := -Wall -Wextra -Wno-missing-field-initializers -Wno-tautological-compare
CU_FLAGS  := -std=c++20 -I. -MMD -MP
NVCC      := $(CUDA_HOME)/bin/nvcc $(CU_FLAGS) -O3 -lineinfo --fmad=false $(if $(CI),-Werror all-warnings) \
             $(foreach w,$(CXXWARN) $(if $(CI),-Werror),-Xcompiler=$w) \
             $(foreach a,$(CUDA_ARCH),-gencode=arch=compute_$a,code=sm_$a) \
             $(foreach a,$(lastword $(CUDA_ARCH)),-gencode=arch=compute_$a,code=compute_$a)
HOST_NVCC := $(CXX) $(CU_FLAGS) $(OPT_$(MODE)) -ffp-contract=off -fno-math-errno $(CXXWARN) -Wno-unknown-pragmas \
             $(if $(CI),-Werror) $(shell grep -qwm1 fma /proc/cpuinfo && echo -mavx2 -mfma) \
             -include tests/cuda_host/cuda_host.cuh -x c++

$(BUILD)/%.cu.o: %.cu
	@mkdir -p $(@D); $(if $(V),:,echo "CU $<")
	$(Q)$(if $(filter cuda,$(KIND)),$(NVCC),$(HOST_NVCC)) -c -o $@ $<
$(BUILD)/%.cuda.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -DWITH_CUDA -MMD -MP -c -o $@ $<

ifeq ($(KIND),cuda)
CU_LIB    := $(CU)
LDLIBS    += -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcudart_static -lrt -lstdc++
else ifeq ($(KIND),host)
CU_LIB    := $(CU_host)
LDLIBS    += -lstdc++
else
EMULATED  := $(CU_host:%.cu=$(BUILD)/%.cu.o) $(BUILD)/infer/tensor/device.cuda.o
$(foreach t,$(ALL_TESTS),$(if $(filter twins_%,$(notdir $t)),$t)): $(EMULATED)
$(BUILD)/tests/%_on_cuda_test: $(BUILD)/tests/%_test.o $(BUILD)/tests/testing.o $(EMULATED) $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) -lcmocka $(LDLIBS) -lstdc++
$(BUILD)/draftsmith_on_cuda: $(BUILD)/main.o $(EMULATED) $(LIB) # the program with the emulated device
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS) -lstdc++
TESTS     += $(ON_CUDA:%=$(BUILD)/tests/%_on_cuda_test)
SCRIPTS   += tests/on_cuda.sh
export ON_CUDA_PROGRAM := $(BUILD)/draftsmith_on_cuda
tests: $(ON_CUDA_PROGRAM)
endif
