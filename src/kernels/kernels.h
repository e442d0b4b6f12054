/* kernels/kernels.h - contracts of all kernels, the table through which they are called, and the
 * instruction-set ladder.
 *
 * Kernels are single-threaded and work on the range they are given; splitting is the caller's job
 * (model/linear.c). ref/ is the plain C definition of each; x86/ has faster ones. Integer results
 * are equal bit by bit on every ISA. Float results of one ISA do not depend on how the work was
 * split: one output depends on its own inputs and on nothing beside it.
 *
 * Dims: M rows (tokens), N outputs, K inputs, D head dim, T keys. */
#ifndef SFQ_KERNELS_KERNELS_H
#define SFQ_KERNELS_KERNELS_H

#include "base/status.h"
#include "tensor/cluster.h"
#include "tensor/dtype.h"

typedef enum sfq_isa {
    SFQ_ISA_REF = 0,
    SFQ_ISA_AVX2, /* + FMA, F16C, BMI2 */
    SFQ_ISA_AVXVNNI,
    SFQ_ISA_AVX512, /* F, BW, DQ, VL */
    SFQ_ISA_AVX512VNNI,
    SFQ_ISA_AMX,
    SFQ_ISA_COUNT
} sfq_isa;

/* ---- packed integer matrices -------------------------------------------------------------- */

/* Activations of one row are quantized per segment of the matrix that will read them:
 *   scale = max|x| / (2^(bits-1) - 1), code = clamp(rint(x / scale)), sum = sum of codes.
 * rint is to nearest even of the float product x * (1/scale); a segment of zeros has scale 0 and
 * codes 0. Padding inputs up to k_blocks*64 get code 0. bits 8..14. */
typedef struct sfq_quant_rows_args {
    const float *x; /* [M, ldx] */
    size_t ldx;
    size_t m, k;
    size_t segments, segment_k;
    int bits;
    int16_t *codes; /* [M, k_padded], k_padded = k_blocks*64 */
    size_t k_padded;
    float *scales; /* [M, segments] */
    int32_t *sums; /* [M, segments] */
} sfq_quant_rows_args;

/* The codes of quant_rows as bytes, in the order in which tiles of 16 rows read them:
 *   [M/16][k_blocks][planes][rows of the group: 16, in the last M - 16*(M/16)][64].
 * One plane is the codes themselves (8 bits). Two are code = 256 * hi + lo with lo in -128..127,
 * lo first (up to 14 bits). */
typedef struct sfq_pack_rows_args {
    const int16_t *codes; /* [m_end - m_begin, blocks*64]: what the call packs */
    size_t first_block, blocks;
    size_t k_blocks, m; /* of all */
    size_t planes;
    int8_t *bytes; /* [M * planes * k_blocks * 64] */
} sfq_pack_rows_args;

typedef enum sfq_activation {
    SFQ_ACT_SILU = 0,
    SFQ_ACT_GELU,      /* x/2 (1 + erf(x/sqrt 2)) */
    SFQ_ACT_GELU_TANH, /* "gelu_new", "gelu_pytorch_tanh" */
    SFQ_ACT_RELU,
    SFQ_ACT_TANH,
    SFQ_ACT_QUICK_GELU,
    SFQ_ACT_COUNT
} sfq_activation;

/* y[m, n] = bias[n] + fma-chain over segments s ascending, starting from 0:
 *   acc = sum_k (code[n,k] - zero_point) * a[m,k]   (int32, exact)
 *   y   = fma((float)acc, scale_w[n,s] * scale_a[m,s], y)
 * then + bias, then, where `activated`, act(y) with act's bits. Only panels [panel_begin,
 * panel_end) are written, and only the n true outputs. */
typedef struct sfq_qgemm_args {
    const uint8_t *codes; /* panel p starts at p * panel_bytes; 64-byte aligned */
    size_t panel_bytes;
    int bits; /* 2..8 */
    size_t n, k_blocks;
    size_t segments, segment_k, share;
    const float *scales;   /* [panels][segments][16/share], already float */
    const float *bias;     /* [N] or NULL */
    const int16_t *a;      /* [M, k_padded]; a table with `bytes` set reads a_bytes instead */
    const int8_t *a_bytes; /* as pack_rows makes them; M and the rows' groups must be the same */
    size_t a_planes;
    size_t k_padded;
    const float *a_scales; /* [M, segments] */
    const int32_t *a_sums; /* [M, segments] */
    size_t m;
    float *y; /* [M, ldy]; may be NULL when raw is set and nothing is activated */
    size_t ldy;
    bool activated;
    sfq_activation act;
    int32_t *raw;   /* [M, segments, N] exact acc for the checks, or NULL */
    size_t streams; /* one row: places of the codes that are read by turns, 1 or 4; 0: whichever is
                       faster on this processor */
    void *scratch;  /* SFQ_QGEMM_SCRATCH bytes, 64-byte aligned, one per worker */
} sfq_qgemm_args;

/* ---- float matrices ------------------------------------------------------------------------ */

/* y[m, n] = bias[n] + sum_k x[m,k] * w[n,k], float accumulation in an order that depends on K and
 * `many` alone. w is row-major [N, K] of F32, F16 or BF16, as it lies in the file (2-byte aligned
 * at least). Rows n in [n_begin, n_end). */
typedef struct sfq_gemm_args {
    const void *w;
    sfq_dtype dtype;
    size_t n, k;
    size_t ldw; /* elements between rows */
    const float *bias;
    const float *x; /* [M, ldx] */
    size_t ldx, m;
    float *y; /* [M, ldy] */
    size_t ldy;
    bool many;     /* part of a product of many rows, for which levels may have another order */
    void *scratch; /* SFQ_QGEMM_SCRATCH bytes, 64-byte aligned */
} sfq_gemm_args;

#define SFQ_QGEMM_SCRATCH ((size_t)1088 * 1024)
/* Rows that a pass over the panels may take: a caller with more cuts them to this or less, to
 * multiples of 16, so that groups of packed rows stay whole. */
enum { SFQ_QGEMM_ROWS = 512 };

/* ---- attention ------------------------------------------------------------------------------ */

enum {
    SFQ_ATTN_CHUNK = 64, /* keys whose (max, sum, weighted V) are computed from scratch */
    SFQ_ATTN_SPAN = 512, /* keys whose chunks are merged before the spans are */
    SFQ_ATTN_KEYS = 16,  /* keys of a block of the cache's layout */
    SFQ_MAX_HEAD_DIM = 512
};
#define SFQ_ATTN_SCRATCH ((size_t)512 * 1024)

/* One query vector over keys [t_begin, t_end) of a KV head: out = softmax(scale * q.k_t) V.
 * t_begin < t_end. */
typedef struct sfq_attn_query {
    const float *q; /* [D] */
    float *out;     /* [D]; partial: [D+2] */
    size_t t_begin, t_end;
} sfq_attn_query;

/* A block of queries that read the same KV head, to share its loads: tokens of one sequence, query
 * heads of a group, in any order and with any ranges. Chunks and spans are anchored at position 0;
 * a chunk is computed from scratch, chunks are merged in ascending order to their span's
 * (max, sum, weighted V), spans likewise. A result depends on its own query and keys alone: not on
 * the block, nor on how the prompt was cut, nor on whether spans were computed apart (partial).
 *
 * Values, and keys unless they are blocked, are rows: t at t * stride. Blocked keys lie in blocks
 * [D][16 keys], one after the other, which are readable whole, as are k_scale in sixteens.
 * Otherwise what is read is within the first t_begin to the last t_end. */
typedef struct sfq_attn_args {
    const sfq_attn_query *query;
    size_t count;
    sfq_dtype kind; /* F32, F16 or I8 (code * scale, rounded) */
    bool blocked;   /* not: F32 */
    bool partial;   /* every query within one span: out = weighted V [D], max, sum */
    const void *k;
    const void *v;
    size_t stride;        /* elements */
    const float *k_scale; /* I8: [T] */
    const float *v_scale; /* I8: [T] */
    size_t d;             /* at most SFQ_MAX_HEAD_DIM */
    float scale;
    void *scratch; /* SFQ_ATTN_SCRATCH bytes, 64-byte aligned */
} sfq_attn_args;

/* ---- element and row operations ------------------------------------------------------------- */

typedef struct sfq_kernels {
    sfq_isa isa; /* the highest that any entry uses */
    const char *isa_name;
    bool bytes; /* qgemm reads activations as packed by pack_rows */
    /* quantize rows [m_begin, m_end) */
    void (*quant_rows)(const sfq_quant_rows_args *a, size_t m_begin, size_t m_end);
    /* bytes of rows [m_begin, m_end) from their codes, all blocks or some */
    void (*pack_rows)(const sfq_pack_rows_args *a, size_t m_begin, size_t m_end);
    void (*qgemm)(const sfq_qgemm_args *a, size_t panel_begin, size_t panel_end);
    void (*gemm)(const sfq_gemm_args *a, size_t n_begin, size_t n_end);
    void (*attn)(const sfq_attn_args *a);
    /* out [D] from the partial results of a query's spans in ascending order, parts [count, D+2] */
    void (*attn_merge)(float *out, const float *parts, size_t count, size_t d);
    /* x [D] becomes what a cache of this kind gives back; `packed` [D] and (I8) *scale are what it
     * keeps, unless NULL. F16: to nearest even, beyond +-65504 to it. I8: scale = max|x| / 127,
     * code = rint(x * (1/scale)) within +-127; a row of zeros has scale 0. */
    void (*kv_round)(sfq_dtype kind, float *x, void *packed, float *scale, size_t d);
    /* y = x / sqrt(mean(x^2) + eps) * gain, one row [C]; y may be x */
    void (*rmsnorm)(float *y, const float *x, const float *gain, float eps, size_t c);
    /* y = (x - mean) / sqrt(var + eps) * gain + bias, one row [C]; y may be x */
    void (*layernorm)(float *y, const float *x, const float *gain, const float *bias, float eps,
                      size_t c);
    /* pairs (x[i], x[i + rot/2]) of the first rot elements are rotated: cos/sin [rot/2] */
    void (*rope)(float *x, const float *cos, const float *sin, size_t rot);
    void (*act)(sfq_activation kind, float *x, size_t n);
    /* gate = act(gate) * up */
    void (*act_mul)(sfq_activation kind, float *gate, const float *up, size_t n);
    void (*add)(float *y, const float *x, size_t n); /* y += x */
    /* decode one output's K weights of a packed matrix (embedding look-up): y [K] */
    void (*unpack_row)(float *y, const uint8_t *panel, int bits, const float *panel_scales,
                       const sfq_cluster *c, size_t row_in_panel);
} sfq_kernels;

/* The best table for this processor, capped by `max` (SFQ_ISA_COUNT: no cap). Only what cpuid, the
 * OS (xgetbv) and, for AMX, the kernel's grant allow. The table is constant and static. */
const sfq_kernels *sfq_kernels_get(sfq_isa max);
/* The cap from SFQ_MAX_ISA (ref|avx2|avxvnni|avx512|avx512vnni|amx); unset: SFQ_ISA_COUNT. An
 * unknown name is E_ARGUMENT. */
sfq_status sfq_isa_from_env(sfq_isa *out, sfq_error *err);
const char *sfq_isa_name(sfq_isa isa);
sfq_isa sfq_isa_detect(void); /* what the processor and the OS offer */
/* AVX-VNNI is the one level that those above it do not imply: AVX-512 came before it. */
bool sfq_isa_has_avxvnni(void);
/* Asks the kernel for tile state, once for the whole process; sfq_kernels_get does it before it
 * gives the AMX table away. False where the kernel refuses (a signal stack too small). */
bool sfq_isa_request_tiles(void);

/* ---- packing (L2, byte-deciding: plain C, one implementation) -------------------------------- */

/* One 8-bit block [16][16][4] to `bits` and back. dst of pack: bits*128 bytes. Values of src are
 * below 2^bits. */
void sfq_block_pack(uint8_t *dst, const uint8_t src[SFQ_BLOCK_WEIGHTS], int bits);
void sfq_block_unpack(uint8_t dst[SFQ_BLOCK_WEIGHTS], const uint8_t *src, int bits);
/* All codes [n, k] (row-major, unsigned) to panels; padding gets the zero point. */
void sfq_panels_pack(uint8_t *dst, const uint8_t *codes, const sfq_cluster *c, int bits,
                     size_t panel_begin, size_t panel_end);

#endif
