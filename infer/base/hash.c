// infer/base/hash.c - SHA-256 by OpenSSL, XXH3 by xxHash.
#include "infer/base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <xxhash.h>

#include "infer/base/watchdog.h"

enum { BLOCK_BYTES = 1 << 20 };

struct Hasher {
    EVP_MD_CTX *ctx;
};

Hasher *hasher_new(void) {
    Hasher *h = malloc(sizeof *h);
    if (h == NULL) return NULL;
    h->ctx = EVP_MD_CTX_new();
    if (h->ctx != NULL && EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) == 1) return h;
    EVP_MD_CTX_free(h->ctx);
    free(h);
    return NULL;
}

void hasher_add(Hasher *h, const void *data, size_t size) {
    CHECK(EVP_DigestUpdate(h->ctx, data, size) == 1);
}

void hasher_finish(Hasher *h, Sha256 *out) {
    unsigned char raw[32];
    unsigned n = 0;
    CHECK(EVP_DigestFinal_ex(h->ctx, raw, &n) == 1 && n == sizeof raw);
    for (size_t i = 0; i < sizeof raw; i++) {
        out->hex[2 * i] = "0123456789abcdef"[raw[i] >> 4];
        out->hex[2 * i + 1] = "0123456789abcdef"[raw[i] & 15];
    }
    out->hex[64] = '\0';
    EVP_MD_CTX_free(h->ctx);
    free(h);
}

bool sha256_bytes(Sha256 *out, const void *data, size_t size, Err *err) {
    Hasher *h = hasher_new();
    if (h == NULL) return err_set(err, ERR_FAILED, "SHA-256: out of memory");
    hasher_add(h, data, size);
    hasher_finish(h, out);
    return true;
}

bool sha256_file(Sha256 *out, const char *path, Err *err) {
    bool ok = false;
    char *block = malloc(BLOCK_BYTES);
    Hasher *h = hasher_new();
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || block == NULL || h == NULL) {
        err_errno(err, "%s", path);
        goto fail;
    }
    for (;;) {
        const ssize_t n = read(fd, block, BLOCK_BYTES);
        watchdog_beat();
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            err_errno(err, "%s", path);
            goto fail;
        }
        if (n == 0) break;
        hasher_add(h, block, (size_t)n);
    }
    ok = true;
fail:
    if (h != NULL) hasher_finish(h, out);
    if (fd >= 0) close(fd);
    free(block);
    return ok;
}

uint64_t xxh3_64(const void *data, size_t size) {
    return XXH3_64bits(data, size);
}
