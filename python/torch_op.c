/* python/torch_op.c - the kernel of the PyTorch operator sfq::linear, in C from the dispatcher on:
 * a decode step calls it a hundred times, and Python in between would cost as much as a small
 * matrix.
 *
 * It uses PyTorch's stable C functions (torch/csrc/inductor/aoti_torch/c/shim.h) and none of its
 * headers: they are looked up in the libtorch that Python has loaded, so one build serves all
 * versions that have them. A kernel owns the tensors that it gets and gives its result away. Errors
 * are raised by aoti_torch_check, a C++ exception that passes through the frames here; nothing is
 * held when it is called. */
#include "torch_op.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef struct op_tensor_data *op_tensor;
typedef struct op_library_data *op_library;
typedef void (*op_kernel)(uint64_t *stack, uint64_t arguments, uint64_t results);

/* X(result, name, parameters). Those that return int32_t return 0 where nothing failed, but for the
 * dtype and device functions. */
#define TORCH_MAP(X)                                                                       \
    X(int32_t, aoti_torch_library_init_impl,                                               \
      (const char *, const char *, const char *, uint32_t, op_library *))                  \
    X(int32_t, aoti_torch_library_impl, (op_library, const char *, op_kernel))             \
    X(void, aoti_torch_check, (bool, const char *, const char *, uint32_t, const char *))  \
    X(int32_t, aoti_torch_delete_tensor_object, (op_tensor))                               \
    X(int32_t, aoti_torch_get_data_ptr, (op_tensor, void **))                              \
    X(int32_t, aoti_torch_get_dim, (op_tensor, int64_t *))                                 \
    X(int32_t, aoti_torch_get_sizes, (op_tensor, int64_t **))                              \
    X(int32_t, aoti_torch_get_dtype, (op_tensor, int32_t *))                               \
    X(int32_t, aoti_torch_is_contiguous, (op_tensor, bool *))                              \
    X(int32_t, aoti_torch_empty_strided,                                                   \
      (int64_t, const int64_t *, const int64_t *, int32_t, int32_t, int32_t, op_tensor *)) \
    X(int32_t, aoti_torch_copy_, (op_tensor, op_tensor, int32_t))                          \
    X(int32_t, aoti_torch_device_type_cpu, (void))                                         \
    X(int32_t, aoti_torch_dtype_float64, (void))                                           \
    X(int32_t, aoti_torch_dtype_float32, (void))                                           \
    X(int32_t, aoti_torch_dtype_float16, (void))                                           \
    X(int32_t, aoti_torch_dtype_bfloat16, (void))                                          \
    X(int32_t, aoti_torch_dtype_uint8, (void))

#define TORCH_MEMBER(result, name, parameters) result(*name) parameters;

/* A process has one dispatcher, and a kernel gets nothing but its arguments: so this is global. */
static struct {
    TORCH_MAP(TORCH_MEMBER)
    sfq_workers *workers;
} torch;

enum { X = 0, CODES, SCALES, BIAS, TENSORS, MOST_DIMS = 64, PROBLEM = 700 };

typedef struct op_call {
    op_tensor in[TENSORS]; /* owned */
    int64_t n, k, bits, activation_bits;
    char problem[PROBLEM];
} op_call;

#define FAIL(call, ...) (snprintf((call)->problem, PROBLEM, __VA_ARGS__), false)
#define NEED(call, done)                           \
    do {                                           \
        if (!(done))                               \
            return FAIL(call, "%s failed", #done); \
    } while (0)

/* ---- tensors --------------------------------------------------------------------------------- */

typedef struct op_shape {
    int64_t dims, rows; /* rows: product of all sizes but the last */
    int64_t size[MOST_DIMS];
} op_shape;

static bool shape_of(op_call *call, op_tensor t, op_shape *shape)
{
    int64_t *sizes = NULL;
    NEED(call, torch.aoti_torch_get_dim(t, &shape->dims) == 0);
    NEED(call, torch.aoti_torch_get_sizes(t, &sizes) == 0);
    if (shape->dims > MOST_DIMS)
        return FAIL(call, "a tensor has %lld dimensions", (long long)shape->dims);
    shape->rows = 1;
    for (int64_t i = 0; i < shape->dims; i++) {
        shape->size[i] = sizes[i];
        shape->rows *= i + 1 < shape->dims ? sizes[i] : 1;
    }
    return true;
}

static bool make(op_call *call, const op_shape *shape, int32_t dtype, op_tensor *out)
{
    int64_t stride[MOST_DIMS], step = 1;
    for (int64_t i = shape->dims - 1; i >= 0; i--) {
        stride[i] = step;
        step *= shape->size[i] > 1 ? shape->size[i] : 1;
    }
    NEED(call, torch.aoti_torch_empty_strided(shape->dims, shape->size, stride, dtype,
                                              torch.aoti_torch_device_type_cpu(), 0, out) == 0);
    return true;
}

/* *t becomes contiguous, of this type, and aligned as the kernels want codes: itself where it is so
 * already. */
static bool dense(op_call *call, op_tensor *t, int32_t dtype, void **data)
{
    int32_t is = 0;
    bool contiguous = false;
    op_shape shape;
    op_tensor twin = NULL;
    NEED(call, torch.aoti_torch_get_dtype(*t, &is) == 0);
    NEED(call, torch.aoti_torch_is_contiguous(*t, &contiguous) == 0);
    NEED(call, torch.aoti_torch_get_data_ptr(*t, data) == 0);
    bool aligned = dtype != torch.aoti_torch_dtype_uint8() || (uintptr_t)*data % 64 == 0;
    if (is == dtype && contiguous && aligned)
        return true;
    if (!shape_of(call, *t, &shape) || !make(call, &shape, dtype, &twin))
        return false;
    int32_t failed = torch.aoti_torch_copy_(twin, *t, 0);
    (void)torch.aoti_torch_delete_tensor_object(*t);
    *t = twin;
    NEED(call, failed == 0);
    NEED(call, torch.aoti_torch_get_data_ptr(*t, data) == 0);
    return true;
}

/* ---- checks ---------------------------------------------------------------------------------- */

static bool is_float(int32_t dtype)
{
    return dtype == torch.aoti_torch_dtype_float32() || dtype == torch.aoti_torch_dtype_float16() ||
           dtype == torch.aoti_torch_dtype_bfloat16() || dtype == torch.aoti_torch_dtype_float64();
}

static bool check_packed(op_call *call, const sfq_linear_layout *l)
{
    op_shape codes, scales;
    int32_t codes_type = 0, scales_type = 0;
    const size_t bits = (size_t)call->bits;
    if (!shape_of(call, call->in[CODES], &codes) || !shape_of(call, call->in[SCALES], &scales))
        return false;
    NEED(call, torch.aoti_torch_get_dtype(call->in[CODES], &codes_type) == 0);
    NEED(call, torch.aoti_torch_get_dtype(call->in[SCALES], &scales_type) == 0);
    if (codes_type != torch.aoti_torch_dtype_uint8() || codes.dims != 3 ||
        codes.size[0] != (int64_t)l->panels || codes.size[1] != (int64_t)l->k_blocks ||
        codes.size[2] != (int64_t)(128 * bits))
        return FAIL(
            call, "codes do not fit: %lld x %lld weights of %zu bits have uint8 (%zu, %zu, %zu)",
            (long long)call->n, (long long)call->k, bits, l->panels, l->k_blocks, 128 * bits);
    if (!is_float(scales_type) || scales.dims != 3 || scales.size[0] != (int64_t)l->panels ||
        scales.size[1] != (int64_t)l->segments || scales.size[2] != (int64_t)(16 / l->share))
        return FAIL(call, "scales do not fit: %lld x %lld weights have floats (%zu, %zu, %zu)",
                    (long long)call->n, (long long)call->k, l->panels, l->segments, 16 / l->share);
    return true;
}

static bool check_input(op_call *call, op_shape *shape, int32_t *dtype)
{
    NEED(call, torch.aoti_torch_get_dtype(call->in[X], dtype) == 0);
    if (!shape_of(call, call->in[X], shape))
        return false;
    if (!is_float(*dtype))
        return FAIL(call, "the input is of no float type; expected floats (..., %lld)",
                    (long long)call->k);
    if (shape->dims < 1 || shape->size[shape->dims - 1] != call->k)
        return FAIL(call, "the input's last size is %lld; expected floats (..., %lld)",
                    (long long)(shape->dims < 1 ? 0 : shape->size[shape->dims - 1]),
                    (long long)call->k);
    return true;
}

/* *used: a bias without elements is none. */
static bool check_bias(op_call *call, bool *used)
{
    op_shape shape;
    if (!shape_of(call, call->in[BIAS], &shape))
        return false;
    *used = shape.dims != 1 || shape.size[0] != 0;
    if (*used && (shape.dims != 1 || shape.size[0] != call->n))
        return FAIL(call, "the bias does not fit; expected %lld floats", (long long)call->n);
    return true;
}

/* ---- the kernel ------------------------------------------------------------------------------ */

static bool multiply(op_call *call, const op_shape *shape, bool biased, op_tensor y)
{
    const int32_t f32 = torch.aoti_torch_dtype_float32();
    void *x, *codes, *scales, *bias = NULL, *out;
    sfq_error err = {0};
    if (!dense(call, &call->in[X], f32, &x) || !dense(call, &call->in[SCALES], f32, &scales) ||
        !dense(call, &call->in[CODES], torch.aoti_torch_dtype_uint8(), &codes) ||
        (biased && !dense(call, &call->in[BIAS], f32, &bias)))
        return false;
    NEED(call, torch.aoti_torch_get_data_ptr(y, &out) == 0);
    sfq_linear_weight weight = {.n = (size_t)call->n,
                                .k = (size_t)call->k,
                                .bits = (int)call->bits,
                                .activation_bits = (int)call->activation_bits,
                                .codes = codes,
                                .scales = scales,
                                .bias = bias};
    if (sfq_linear_apply(torch.workers, &weight, x, (size_t)shape->rows, out, &err) != SFQ_OK)
        return FAIL(call, "%s", err.message);
    return true;
}

/* The result in the type of the input, in *y even where it fails. */
static bool run(op_call *call, op_tensor *y)
{
    sfq_linear_layout layout;
    sfq_error err = {0};
    op_shape shape;
    int32_t dtype = 0;
    bool biased = false;
    if (call->n < 1 || call->k < 1 || call->bits < 2 || call->bits > 8)
        return FAIL(call, "sizes %lld x %lld and %lld bits are none", (long long)call->n,
                    (long long)call->k, (long long)call->bits);
    if (sfq_linear_layout_get((size_t)call->n, (size_t)call->k, (int)call->bits, &layout, &err) !=
        SFQ_OK)
        return FAIL(call, "%s", err.message);
    if (!check_packed(call, &layout) || !check_input(call, &shape, &dtype) ||
        !check_bias(call, &biased))
        return false;
    shape.size[shape.dims - 1] = call->n;
    const int32_t f32 = torch.aoti_torch_dtype_float32();
    if (!make(call, &shape, f32, y) || !multiply(call, &shape, biased, *y))
        return false;
    if (dtype == f32)
        return true;
    op_tensor cast = NULL;
    if (!make(call, &shape, dtype, &cast))
        return false;
    int32_t failed = torch.aoti_torch_copy_(cast, *y, 0);
    (void)torch.aoti_torch_delete_tensor_object(*y);
    *y = cast;
    NEED(call, failed == 0);
    return true;
}

/* sfq::linear(Tensor x, Tensor codes, Tensor scales, Tensor bias, int outputs, int inputs,
 * int bits, int activation_bits) -> Tensor */
static void kernel(uint64_t *stack, uint64_t arguments, uint64_t results)
{
    op_call call = {.n = (int64_t)stack[TENSORS],
                    .k = (int64_t)stack[TENSORS + 1],
                    .bits = (int64_t)stack[TENSORS + 2],
                    .activation_bits = (int64_t)stack[TENSORS + 3]};
    op_tensor y = NULL;
    (void)arguments;
    (void)results;
    for (int i = 0; i < TENSORS; i++)
        call.in[i] = (op_tensor)(uintptr_t)stack[i];
    bool done = run(&call, &y);
    for (int i = 0; i < TENSORS; i++)
        (void)torch.aoti_torch_delete_tensor_object(call.in[i]);
    if (!done && y != NULL)
        (void)torch.aoti_torch_delete_tensor_object(y);
    torch.aoti_torch_check(done, "sfq::linear", "torch_op.c", 0, call.problem);
    stack[0] = (uint64_t)(uintptr_t)y;
}

/* ---- registration ---------------------------------------------------------------------------- */

void sfq_torch_workers(sfq_workers *workers)
{
    torch.workers = workers;
}

const char *sfq_torch_register(const char *libtorch)
{
    op_library library = NULL;
    void *handle = dlopen(libtorch, RTLD_LAZY | RTLD_NOLOAD);
    if (handle == NULL)
        return "libtorch_cpu";
#define TORCH_FIND(result, name, parameters)       \
    do {                                           \
        void *found = dlsym(handle, #name);        \
        if (found == NULL)                         \
            return #name;                          \
        memcpy(&torch.name, &found, sizeof found); \
    } while (0);
    TORCH_MAP(TORCH_FIND)
    if (torch.aoti_torch_library_init_impl("sfq", "CPU", "torch_op.c", 0, &library) != 0 ||
        torch.aoti_torch_library_impl(library, "linear", kernel) != 0)
        return "registration of sfq::linear";
    return NULL;
}
