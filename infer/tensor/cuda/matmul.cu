// infer/tensor/cuda/matmul.cu - C = A op B + beta C for every mix of F32 and BF16.
//
// Two BF16 operands are multiplied as they are: products are exact, sums f32. In every other mix
// the BF16 operand is converted, exactly, and the product is f32. C is rounded once.
// Few rows, as decoding has them, go to a kernel of our own: the library's are made for many.
#include "infer/tensor/cuda/cuda_parts.cuh"

// x as type t: itself, or a copy in scratch.
static Tensor ready(Device *dev, Cuda *cu, Tensor x, DType t, ScratchId id, bool contents) {
    if (x.dtype == t) return x;
    const Tensor y =
        tensor_of(cuda_scratch(cu, id, (size_t)tensor_count(x) * dtype_size(t)), t, x.rows, x.cols);
    if (y.data != NULL && contents) cuda_copy(dev, y, x);
    return y;
}

static bool multiply_f32(Device *dev, Cuda *cu, CudaGemm g) {
    const Tensor c = g.c;
    g.a = ready(dev, cu, g.a, DT_F32, SCRATCH_A, true);
    g.b = ready(dev, cu, g.b, DT_F32, SCRATCH_B, true);
    g.c = ready(dev, cu, c, DT_F32, SCRATCH_C, g.beta != 0.0f);
    if (cu->failure[0] != '\0') return true;
    if (!gemms_run(cu, &g)) return false;
    if (g.c.data != c.data) cuda_copy(dev, c, g.c);
    return true;
}

static void matmul(Device *dev, const char *name, CudaGemm g) {
    Cuda *cu = cuda_begin(dev, name);
    const int64_t m = g.c.rows, n = g.c.cols, k = g.ta ? g.a.rows : g.a.cols;
    CHECK_SHAPE(g.a, g.ta ? k : m, g.ta ? m : k);
    CHECK_SHAPE(g.b, g.tb ? n : k, g.tb ? k : n);
    CHECK(g.beta == 0.0f || g.beta == 1.0f);
    CHECK(m <= INT32_MAX && n <= INT32_MAX && k <= INT32_MAX);
    CHECK_FLOAT(g.a);
    CHECK_FLOAT(g.b);
    CHECK_FLOAT(g.c);
    if (m == 0 || n == 0) return;
    if (k == 0) { // an empty sum
        if (g.beta == 0.0f) cuda_zero(dev, g.c);
        return;
    }
    const bool both = g.a.dtype == DT_BF16 && g.b.dtype == DT_BF16;
    if (both && (few_rows_run(cu, &g) || gemms_run(cu, &g))) return;
    if (!multiply_f32(dev, cu, g)) cuda_failed(cu, "the library has no kernel for this product");
    cu->op = name;
}

void cuda_matmul_nt(Device *dev, Tensor c, Tensor a, Tensor b, float beta) {
    matmul(dev, "matmul_nt", {.c = c, .a = a, .b = b, .ta = false, .tb = true, .beta = beta});
}
void cuda_matmul_nn(Device *dev, Tensor c, Tensor a, Tensor b, float beta) {
    matmul(dev, "matmul_nn", {.c = c, .a = a, .b = b, .ta = false, .tb = false, .beta = beta});
}
void cuda_matmul_tn(Device *dev, Tensor c, Tensor a, Tensor b, float beta) {
    matmul(dev, "matmul_tn", {.c = c, .a = a, .b = b, .ta = true, .tb = false, .beta = beta});
}
