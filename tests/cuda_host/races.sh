#!/usr/bin/env bash
# tests/cuda_host/races.sh [NAME...] - races between warps of a block: the twin tests (products, attention, ..; all where
# none is named) on the emulated device with every CUDA thread a thread of ThreadSanitizer's. What no barrier and no
# collective orders is reported with both lines, copy_async and ldmatrix included; blocks of a launch run one after the
# other, so races between them stay unseen. Takes minutes.
set -eu
cd "$(dirname "$0")/../.."
build=build/release-cpu work=build/races failed=0
names=${*:-$(ls tests/infer/tensor/twins_*_test.c | sed 's|.*/twins_\(.*\)_test.c|\1|')}
mkdir -p $work
make $(printf "$build/tests/infer/tensor/twins_%s_test " $names)
cxx="g++ -std=c++20 -I. -O1 -g -ffp-contract=off -fno-math-errno -Wno-unknown-pragmas -DHOST_RACES
     $(grep -qwm1 fma /proc/cpuinfo && echo -mavx2 -mfma) -include tests/cuda_host/cuda_host.cuh -x c++ -c"
for f in infer/tensor/cuda/*.cu tests/cuda_host/*.cu; do
    case $f in
    infer/*/gemm.cu) ;;
    infer/*) $cxx -fsanitize=thread -o "$work/$(basename "$f").o" "$f" ;;
    *) $cxx -o "$work/$(basename "$f").o" "$f" ;;
    esac
done
libs="$(pkg-config --libs hdf5-serial libarchive jansson libcrypto libxxhash) $(pkg-config --libs ompi-c 2>/dev/null || true)
      $(test -f /usr/include/dnnl.h && echo -ldnnl) -lopenblas -lcmocka -lm -lpthread -ldl -lstdc++"
for n in $names; do
    t=twins_${n}_test
    gcc -fopenmp -fsanitize=thread -o $work/$t $build/tests/infer/tensor/$t.o $build/tests/testing.o $work/*.o \
        $build/infer/tensor/device.cuda.o $build/libdraftsmith.a $libs
    if OMP_NUM_THREADS=1 TSAN_OPTIONS=report_thread_leaks=0 setarch -R $work/$t >$work/$t.log 2>&1; then
        echo "$t: no races"
    else
        failed=1
        echo "$t: see $work/$t.log"
        grep -E '^SUMMARY|FAILED' $work/$t.log | sort | uniq -c
    fi
done
exit $failed
