// tests/cuda_host/host_streams.cu - streams and events of the emulated device, as adverse as CUDA's
// may be: see cuda_host.cuh.
#include <stdlib.h>

#include <deque>
#include <memory>
#include <vector>

#include "infer/tensor/cuda/cuda.cuh"
#include "tests/cuda_host/host_graph.cuh"

// Work, or (run empty) a wait for the first `place` works of another stream.
struct HostStep {
    std::function<void()> run;
    std::shared_ptr<HostStream> other;
    size_t place = 0;
};
struct HostStream {
    std::deque<HostStep> queue;
    size_t asked = 0, done = 0; // steps, of all that ever were
    bool waits = false;         // for another stream
};
struct HostEvent {
    std::shared_ptr<HostStream> stream; // empty: never recorded
    size_t place;
};

namespace {

std::vector<std::shared_ptr<HostStream>> streams = {std::make_shared<HostStream>()}; // legacy first

bool blocking() {
    static const char *const s = getenv("CUDA_LAUNCH_BLOCKING");
    return s != nullptr && *s == '1';
}

// Runs the first `place` steps of a stream, but for those behind a wait for a stream that waits
// itself. Device memory is the host's only here.
void run_until(HostStream &s, size_t place) {
    while (s.done < place && !s.waits) {
        HostStep &next = s.queue.front();
        if (next.other) {
            s.waits = true;
            run_until(*next.other, next.other->asked);
            s.waits = false;
            if (next.other->done < next.place) return;
        }
        const std::function<void()> run = std::move(next.run);
        s.queue.pop_front();
        s.done++;
        if (!run) continue;
        host_open_memory();
        run();
    }
}

void drain(HostStream &s) {
    run_until(s, s.asked);
}

const std::shared_ptr<HostStream> &stream_of(cudaStream_t s) {
    for (const auto &k : streams)
        if (k.get() == s) return k;
    if (s != nullptr) abort(); // closed
    return streams[0];
}

void enqueue(cudaStream_t s, HostStep step) {
    static int runs;
    HostStream &to = *stream_of(s);
    to.queue.push_back(std::move(step));
    to.asked++;
    if (!blocking()) return;
    drain(to);
    if (++runs % 16 == 0)
        host_close_memory(); // else with the next call that is no launch: it takes time
}

cudaError_t wait_for(HostStream &s, size_t place) {
    const cudaError_t e = host_forbidden();
    if (e != cudaSuccess) return host_result(e);
    run_until(s, place);
    if (s.done < place) abort(); // streams wait for each other
    host_close_memory();
    return host_result(cudaSuccess);
}

} // namespace

void host_queue(cudaStream_t s, std::function<void()> run) {
    enqueue(s, {std::move(run), nullptr, 0});
}

void host_drain() {
    for (const auto &s : streams) drain(*s);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    streams.push_back(std::make_shared<HostStream>());
    *s = streams.back().get();
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    const cudaError_t e = cudaStreamSynchronize(s);
    std::erase_if(streams, [s](const auto &k) { return k.get() == s; });
    return e;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    return wait_for(*stream_of(s), stream_of(s)->asked);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    if (e->stream && e->stream != stream_of(s)) enqueue(s, {nullptr, e->stream, e->place});
    return host_result(cudaSuccess);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    *e = new HostEvent;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    *e = {stream_of(s), stream_of(s)->asked};
    return host_result(cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    return e->stream ? wait_for(*e->stream, e->place) : host_result(cudaSuccess);
}
