// tests/cuda_host/fibers.cu - threads of a block as fibers, and what they do together.
//
// A fiber that runs a thread to its end takes the next thread, so kernels without barriers never
// switch. A thread that waits keeps its fiber; the scheduler goes on with another one.
#include <sys/mman.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <vector>

#include "infer/tensor/cuda/cuda.cuh"
#include "tests/cuda_host/fibers.cuh"
#include "tests/cuda_host/races.cuh"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef HOST_RACES
static char begun, ended, at_barrier[2], met[32][4][2]; // places where threads meet
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

#ifdef __x86_64__
// Keeps the callee-saved registers on the stack left, takes them from the stack entered.
extern "C" void host_switch(void **leave, void *enter);
asm(R"(
    .text
    .type host_switch, @function
host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size host_switch, .-host_switch
)");
#else
#error "the emulated device needs an x86-64"
#endif

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(HOST_RACES)
constexpr size_t STACK = 512 << 10; // redzones
#else
constexpr size_t STACK = 128 << 10;
#endif
constexpr size_t SKEW = 13 * 64; // neighbours' hot lines must not share a set of the cache
constexpr unsigned MOST = 1024;
#ifdef HOST_RACES
constexpr bool ONE_EACH = true; // a fiber runs one thread of a block, or the next would be ordered
#else
constexpr bool ONE_EACH = false;
#endif

struct Copy {
    void *to;
    const void *from;
    bool there;
};

struct Fiber {
    void *sp;
    char *stack;
    unsigned thread; // that it runs
    void *tsan;      // races.sh only
};

// Lanes of one mask that meet.
struct Meeting {
    unsigned mask, came;
    int turn;
    HostTable table[2];
};

// Lanes as bits. A live lane is in one of the first three, in a meeting, or running.
struct WarpState {
    unsigned fresh, ready, at_barrier, live;
    int meetings;
    Meeting meeting[4];
};

struct Run {
    const std::function<void()> *thread;
    unsigned threads, warps, live, at_barrier;
    bool turned, copied;
    unsigned barrier_vote[2], votes;             // of __syncthreads_or and _count
    Fiber *fiber[MOST], *done[MOST];             // done: as many as have ended
    std::vector<std::vector<Copy>> copies[MOST]; // groups of copy_async, the last one open
    WarpState *warp;
};

Run run;
std::vector<Fiber *> &spare =
    *new std::vector<Fiber *>; // never destroyed: leaks are looked for after that
void *scheduler;
unsigned current; // thread
alignas(128) unsigned char shared_memory[HOST_SHARED_MAX];

dim3 place[MOST]; // threadIdx of every thread
dim3 placed;      // for this block

void set_thread(unsigned t) {
    current = t;
    threadIdx = place[t];
}

void place_threads() {
    if (placed.x == blockDim.x && placed.y == blockDim.y && placed.z == blockDim.z) return;
    for (unsigned t = 0; t < run.threads; t++)
        place[t] = dim3(t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y));
    placed = blockDim;
}

#if defined(__SANITIZE_ADDRESS__)
struct Stack {
    const void *low;
    size_t size;
} main_stack;

// Saves where it is in *leave and goes on at `enter`; a sanitizer has to know the stack entered.
void switch_to(void **leave, void *enter, Stack to) {
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, to.low, to.size);
    host_switch(leave, enter);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}
#define STACK_OF(f) (Stack{(f)->stack, STACK})
void find_main_stack() {
    pthread_attr_t attr;
    void *low;
    size_t size;
    if (pthread_getattr_np(pthread_self(), &attr) != 0) abort();
    pthread_attr_getstack(&attr, &low, &size);
    pthread_attr_destroy(&attr);
    main_stack = {low, size};
}
#elif defined(HOST_RACES)
void *main_stack;
#define STACK_OF(f) (f)->tsan
void switch_to(void **leave, void *enter, void *to) {
    __tsan_switch_to_fiber(to, 1); // 1: switching by itself orders nothing
    host_switch(leave, enter);
}
void find_main_stack() {
    main_stack = __tsan_get_current_fiber();
}
#else
int main_stack;
#define STACK_OF(f) 0
void switch_to(void **leave, void *enter, int) {
    host_switch(leave, enter);
}
void find_main_stack() {}
#endif

WarpState &warp_of(unsigned t) {
    return run.warp[t / WARP];
}
unsigned bit_of(unsigned t) {
    return 1u << t % WARP;
}

// The next thread of a warp that waits for nothing; MOST without one.
unsigned next_in_warp(unsigned w) {
    const unsigned able = run.warp[w].fresh | run.warp[w].ready;
    if (able == 0) return MOST;
    return w * WARP + (unsigned)(run.turned ? 31 - __builtin_clz(able) : __builtin_ctz(able));
}

// Whether everybody is there; then all lanes may go on.
bool complete(WarpState &w, Meeting *m) {
    if (m->came == 0 || (m->mask & w.live & ~m->came) != 0) return false;
    w.ready |= m->came;
    m->came = 0;
    m->turn ^= 1;
    return true;
}

bool release_barrier() {
    if (run.live == 0 || run.at_barrier < run.live) return false;
    for (unsigned w = 0; w < run.warps; w++) {
        run.warp[w].ready |= run.warp[w].at_barrier;
        run.warp[w].at_barrier = 0;
    }
    run.at_barrier = 0;
    run.votes ^= 1;
    run.barrier_vote[run.votes] = 0;
    return true;
}

void finish_thread(unsigned t) {
    WarpState &w = warp_of(t);
    w.live &= ~bit_of(t);
    run.live--;
    run.fiber[t] = nullptr;
    for (int i = 0; i < w.meetings; i++) complete(w, &w.meeting[i]);
    release_barrier();
}

Fiber *entered; // by a switch

Fiber *fiber_for(unsigned t);

// The fiber of the thread of warp w that comes next; NULL where all wait.
Fiber *next_fiber(unsigned w) {
    const unsigned t = next_in_warp(w);
    if (t == MOST) return nullptr;
    WarpState &warp = run.warp[w];
    const bool fresh = warp.fresh & bit_of(t);
    warp.fresh &= ~bit_of(t);
    warp.ready &= ~bit_of(t);
    return entered = fresh ? fiber_for(t) : run.fiber[t];
}

// This fiber waits: another thread of its warp goes on, else the scheduler. Returns when this one
// is entered again.
void leave(Fiber *f) {
    Fiber *next = next_fiber(f->thread / WARP);
    if (next != nullptr)
        switch_to(&f->sp, next->sp, STACK_OF(next));
    else
        switch_to(&f->sp, scheduler, main_stack);
    set_thread(f->thread);
}

[[noreturn]] void fiber_main() {
    Fiber *f = entered;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    for (;;) {
        set_thread(f->thread);
        RACES(__tsan_acquire(&begun));
        (*run.thread)();
        RACES(__tsan_release(&ended));
        finish_thread(f->thread);
        const unsigned next = ONE_EACH ? MOST : next_in_warp(f->thread / WARP);
        if (next != MOST && warp_of(next).fresh & bit_of(next)) {
            warp_of(next).fresh &= ~bit_of(next);
            run.fiber[next] = f;
            f->thread = next;
            continue;
        }
        if (ONE_EACH)
            run.done[run.threads - run.live - 1] = f;
        else
            spare.push_back(f);
        leave(f);
    }
}

Fiber *fiber_for(unsigned t) {
    Fiber *f;
    if (!spare.empty()) {
        f = spare.back();
        spare.pop_back();
    } else {
        static size_t count;
        f = new Fiber();
        f->stack = (char *)mmap(nullptr, STACK + 64 * SKEW, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (f->stack == MAP_FAILED) abort();
        f->stack += count++ % 64 * SKEW;
        void **sp = (void **)(((uintptr_t)f->stack + STACK) / 64 * 64);
        *--sp = nullptr;            // fiber_main's caller: nobody
        *--sp = (void *)fiber_main; // where host_switch returns to
        for (int i = 0; i < 6; i++) *--sp = nullptr;
        f->sp = sp;
        RACES(f->tsan = __tsan_create_fiber(0));
    }
    f->thread = t;
    run.fiber[t] = f;
    return f;
}

bool run_warp(unsigned w) {
    bool ran = false;
    for (Fiber *f; (f = next_fiber(w)) != nullptr; ran = true)
        switch_to(&scheduler, f->sp, STACK_OF(f));
    return ran;
}

[[noreturn]] void stuck() {
    unsigned meets = 0;
    for (unsigned w = 0; w < run.warps; w++)
        for (int i = 0; i < run.warp[w].meetings; i++)
            meets += (unsigned)__builtin_popcount(run.warp[w].meeting[i].came);
    fprintf(
        stderr,
        "a kernel hangs in block (%u, %u, %u): %u threads wait for their warp, %u at a barrier, "
        "%u ended\n",
        blockIdx.x, blockIdx.y, blockIdx.z, meets, run.at_barrier, run.threads - run.live);
    abort();
}

void run_block(const std::function<void()> &thread, size_t shared) {
    run.thread = &thread;
    run.live = run.threads;
    run.at_barrier = run.votes = run.barrier_vote[0] = run.barrier_vote[1] = 0;
    memset(shared_memory, 0xff, shared);
    RACES(__tsan_release(&begun));
    for (unsigned w = 0; w < run.warps; w++) {
        const unsigned lanes = std::min(run.threads - w * WARP, unsigned(WARP));
        WarpState &warp = run.warp[w];
        warp.fresh = warp.live = lanes == WARP ? ALL_LANES : (1u << lanes) - 1;
        warp.ready = warp.at_barrier = 0;
        warp.meetings = 0;
    }
    while (run.live > 0) {
        bool ran = false;
        for (unsigned w = 0; w < run.warps; w++)
            ran = run_warp(run.turned ? run.warps - 1 - w : w) || ran;
        if (!ran) stuck();
    }
    RACES(__tsan_acquire(&ended));
    if (ONE_EACH) spare.insert(spare.end(), run.done, run.done + run.threads);
    if (run.copied)
        for (unsigned t = 0; t < run.threads; t++) run.copies[t].clear();
    run.copied = false;
}

Meeting *meeting_of(unsigned mask) {
    WarpState *w = &run.warp[current / WARP];
    for (int i = 0; i < w->meetings; i++)
        if (w->meeting[i].mask == mask) return &w->meeting[i];
    if (w->meetings == 4) {
        fprintf(stderr, "a kernel uses more than four masks in a warp\n");
        abort();
    }
    Meeting *m = &w->meeting[w->meetings++];
    m->mask = mask;
    m->came = 0;
    m->turn = 0;
    return m;
}

} // namespace

void run_grid(dim3 grid, dim3 block, size_t shared, bool turned,
              const std::function<void()> &thread) {
    blockDim = block;
    gridDim = grid;
    run.threads = block.x * block.y * block.z;
    run.warps = (run.threads + WARP - 1) / WARP;
    run.turned = turned;
    place_threads();
    find_main_stack();
    if (run.warp == nullptr) run.warp = new WarpState[MOST / WARP];
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    for (uint64_t i = 0; i < blocks; i++) {
        const uint64_t b = turned ? blocks - 1 - i : i;
        blockIdx = dim3((unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                        (unsigned)(b / ((uint64_t)grid.x * grid.y)));
        run_block(thread, shared);
    }
}

unsigned host_lane() {
    return current % WARP;
}

unsigned char *host_shared_memory() {
    return shared_memory;
}

void host_no_lane(unsigned lane, unsigned there) {
    fprintf(stderr, "a lane reads from lane %u, there are %08x\n", lane, there);
    abort();
}

HostTable *host_exchange(unsigned mask, const void *mine, size_t size, bool *last) {
    const unsigned lane = host_lane();
    if (size > 64 || !(mask >> lane & 1)) {
        fprintf(stderr, "lane %u is not in the mask %08x of its collective\n", lane, mask);
        abort();
    }
    Meeting *m = meeting_of(mask);
    HostTable *table = &m->table[m->turn];
    WarpState &w = warp_of(current);
    RACES(char *const where = &met[current / WARP][m - w.meeting][m->turn]);
    if (m->came == 0) table->there = 0;
    table->step = size <= 8 ? 8 : 64;
    memcpy(table->slot + lane * table->step, mine, size);
    m->came |= 1u << lane;
    table->there |= 1u << lane;
    RACES(__tsan_release(where));
    if (complete(w, m)) {
        w.ready &= ~(1u << lane); // this lane runs
        if (last != nullptr) *last = true;
    } else
        leave(run.fiber[current]);
    RACES(__tsan_acquire(where));
    return table;
}

void __syncwarp(unsigned mask) {
    const char nothing = 0;
    host_exchange(mask, &nothing, 1);
}

unsigned __ballot_sync(unsigned mask, int v) {
    const unsigned char mine = v != 0;
    const HostTable *table = host_exchange(mask, &mine, 1);
    unsigned votes = 0;
    for (unsigned l = 0; l < WARP; l++)
        if (table->there >> l & 1 && host_take<unsigned char>(table, l)) votes |= 1u << l;
    return votes;
}

unsigned __activemask() {
    fprintf(stderr, "__activemask says nothing that a kernel may rely on\n");
    abort();
}

static unsigned barrier(unsigned vote) {
    const unsigned turn = run.votes;
    run.barrier_vote[turn] += vote;
    RACES(__tsan_release(&at_barrier[turn]));
    run.at_barrier++;
    warp_of(current).at_barrier |= bit_of(current);
    if (release_barrier())
        warp_of(current).ready &= ~bit_of(current);
    else
        leave(run.fiber[current]);
    RACES(__tsan_acquire(&at_barrier[turn]));
    return run.barrier_vote[turn];
}

void __syncthreads() {
    barrier(0);
}
int __syncthreads_count(int v) {
    return (int)barrier(v != 0);
}
int __syncthreads_or(int v) {
    return barrier(v != 0) != 0;
}

void host_copy_async(void *shared, const void *from, bool there) {
    if ((uintptr_t)shared % 16 != 0 || (uintptr_t)from % 16 != 0) {
        fprintf(stderr, "copy_async between addresses that are not aligned\n");
        abort();
    }
    auto &groups = run.copies[current];
    if (groups.empty()) groups.emplace_back();
    groups.back().push_back({shared, from, there});
    RACES(__tsan_write16(shared)); // from now until it is waited for
    RACES(there ? __tsan_read16((void *)from) : (void)0);
    run.copied = true;
}

void host_copy_async_commit() {
    auto &groups = run.copies[current];
    if (groups.empty()) groups.emplace_back();
    groups.emplace_back();
}

void host_copy_async_wait(int groups_left) {
    auto &groups = run.copies[current];
    while ((int)groups.size() - 1 > groups_left) {
        for (const Copy &c : groups.front()) {
            RACES(__tsan_write16(c.to));
            if (c.there)
                memcpy(c.to, c.from, 16);
            else
                memset(c.to, 0, 16);
        }
        groups.erase(groups.begin());
    }
}
