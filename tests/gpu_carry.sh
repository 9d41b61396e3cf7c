#!/usr/bin/env bash
# tests/gpu_carry.sh DIR [PEERS] - what a GPU box without network lacks to build and test this tree, in DIR/carry.tar.xz
# (about 3 MiB): the packages' headers that we include and, as one object file, the members of their static libraries
# that we call; libzstd, cmocka and make; a pkg-config that knows them; the PyTorch peers (PEERS, default ../shared/peers).
# OpenBLAS is replaced by tests/gpu_blas.c. Needs the Debian packages of `make deps` and a build (`make tests`).
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: tests/gpu_carry.sh DIR [PEERS]" >&2; exit 2; }
out=$1 peers=${2:-../shared/peers}
build=build/release-cpu lib=/usr/lib/x86_64-linux-gnu
[ -e $build/libdraftsmith.a ] || { echo "no $build: run make tests first" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{bin,include,lib,peers} "$out"

# Functions that we call and a static library has; the linker pulls the members behind them.
archives=()
for name in hdf5_serial archive jansson crypto xxhash z lzma bz2 sz aec nettle; do archives+=("$lib/lib$name.a"); done
find $build -name '*.o' ! -path '*/tests/fault/*' -print0 | xargs -0 nm -u | awk '$1 == "U" {print $2}' | sort -u >"$work/called"
nm -g --defined-only "${archives[@]}" 2>/dev/null | awk 'NF == 3 {print $3}' | sort -u >"$work/there"
ld -r -o "$work/lib/carry.o" $(comm -12 "$work/called" "$work/there" | sed 's/^/-u /') --start-group "${archives[@]}" --end-group
strip --strip-debug "$work/lib/carry.o"
# What those members name and nobody here calls (XML, access lists): ends the program.
nm -u "$work/lib/carry.o" | awk '{print $2}' | sort -u >"$work/open"
{ nm -D --defined-only $lib/lib{c,m}.so.* $lib/libzstd.so.1; nm -g --defined-only $lib/libc_nonshared.a; } 2>/dev/null |
    awk 'NF == 3 {print $3}' | sed 's/@.*//' | sort -u >"$work/given"
comm -23 "$work/open" "$work/given" | grep -v '^_GLOBAL_OFFSET_TABLE_$' |
    awk '{print ".weak " $1 "\n" $1 ":"} END {print "ud2\n.section .note.GNU-stack,\"\",@progbits"}' |
    gcc -c -x assembler -o "$work/lib/uncalled.o" -
ar rcs "$work/lib/libcarry.a" "$work/lib/carry.o" "$work/lib/uncalled.o"
rm "$work"/lib/*.o
cp -L $lib/libzstd.so.1 $lib/libcmocka.so.0 "$work/lib/"
cp -L $lib/libcmocka.so.0 "$work/lib/libcmocka.so"
cp -L "$(command -v make)" "$work/bin/make"

# Headers of those packages, as the compiler finds them.
flags=$(pkg-config --cflags hdf5-serial libarchive jansson libcrypto libxxhash)
printf '#include <%s>\n' setjmp.h stdarg.h stddef.h stdint.h cmocka.h archive.h archive_entry.h jansson.h xxhash.h \
    openssl/crypto.h openssl/evp.h hdf5.h cblas.h Random123/philox.h |
    gcc -std=gnu11 -D_GNU_SOURCE $flags -M -x c - | tr -s ' \\' '\n\n' |
    grep -E '/(hdf5|openssl|Random123)/|/(cmocka|archive|archive_entry|jansson|jansson_config|xxhash|cblas|openblas_config)\.h$' |
    while read -r header; do
        to=$(sed -E 's|^/usr/include/||; s|^x86_64-linux-gnu/||; s|^hdf5/serial/||' <<<"$header")
        mkdir -p "$work/include/$(dirname "$to")"
        cp -L "$header" "$work/include/$to"
    done
cat >"$work/bin/pkg-config" <<'PKG'
#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
for a; do case $a in
    --cflags) echo "-I$here/include" ;;
    --libs) echo "-L$here/lib -Wl,-rpath,$here/lib -lcarry -l:libzstd.so.1" ;;
esac; done
PKG
chmod +x "$work/bin/pkg-config"
if [ -d "$peers" ]; then cp "$peers"/*.py "$work/peers/"; else echo "no peers at $peers: carried without" >&2; fi
tar -C "$work" -c bin include lib peers | xz -9e -T1 >"$out/carry.tar.xz.tmp"
mv "$out/carry.tar.xz.tmp" "$out/carry.tar.xz"
tree=$(git ls-files -z | xargs -0 du -cb | tail -n 1 | cut -f 1)
size=$(stat -c %s "$out/carry.tar.xz")
echo "$out/carry.tar.xz: $((size / 1024)) KiB; with the tree $(((tree + size) / 1048576)) MiB travel"
[ $((tree + size)) -lt $((60 << 20)) ] || { echo "more than 60 MiB travel" >&2; exit 1; }
