// tests/cuda_host/races.cuh - what ThreadSanitizer is told (races.sh).
//
// Every thread of a block is one of ThreadSanitizer's. Kernels are instrumented, the emulated
// device is not: it says what orders threads (barriers, collectives, begin and end of a block) and
// what its code in the place of instructions reads and writes.
#ifndef TESTS_RACES_CUH
#define TESTS_RACES_CUH

#ifdef HOST_RACES
#define RACES(call) call
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_acquire(void *at);
void __tsan_release(void *at);
void __tsan_read16(void *at);
void __tsan_write16(void *at);
}
#else
#define RACES(call) (void)0
#endif

#endif
