// infer/tensor/op_checks.h - broken promises about shapes and types stop the program: for the
// bodies of operators.
#ifndef TENSOR_OP_CHECKS_H
#define TENSOR_OP_CHECKS_H

#include "infer/tensor/tensor.h"

#define CHECK_SHAPE(t, r, c)                                                                       \
    CHECK((t).rows == (r) && (t).cols == (c) && (t).ld >= (t).cols,                                \
          "(" #t " is %lld x %lld, expected %lld x %lld)", (long long)(t).rows,                    \
          (long long)(t).cols, (long long)(r), (long long)(c))
#define CHECK_FLOAT(t) CHECK((t).dtype == DT_F32 || (t).dtype == DT_BF16, "(" #t ")")
#define CHECK_TYPE(t, type) CHECK((t).dtype == (type), "(" #t " is %s)", dtype_name((t).dtype))

#endif
