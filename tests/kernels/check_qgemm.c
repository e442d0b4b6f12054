/* tests/kernels/check_qgemm.c - products of packed integer weights. The integers must equal ref bit
 * by bit; so must the floats, since the epilogue is a fixed chain of correctly rounded operations.
 * Then the law of invariance: a row alone equals the same row in a batch, panels one by one equal
 * panels at once. */
#include "check.h"

#include <stdlib.h>
#include <string.h>

/* Peaked: activations as they are, scaled to a few large values that stand alone or in pairs. */
enum { DATA_RANDOM, DATA_MAX, DATA_MIN, DATA_PEAKED, DATA_KINDS };

typedef struct qgemm_case {
    sfq_qgemm_args a;
    size_t panels, k;
    int act_bits;
} qgemm_case;

static uint8_t *random_panels(const qgemm_case *c, int data)
{
    const size_t blocks = c->panels * c->a.k_blocks;
    uint8_t *codes = check_guarded(blocks * sfq_block_bytes(c->a.bits));
    uint8_t block[SFQ_BLOCK_WEIGHTS];
    const unsigned top = (1u << c->a.bits) - 1;
    for (size_t b = 0; b < blocks; b++) {
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = (uint8_t)(data == DATA_RANDOM ? check_u64() & top
                                 : data == DATA_MAX  ? top
                                                     : 0);
        sfq_block_pack(codes + b * sfq_block_bytes(c->a.bits), block, c->a.bits);
    }
    return codes;
}

/* The byte form of a->a, in new memory. */
static void pack_activations(sfq_qgemm_args *a)
{
    int8_t *bytes = CHECK_ARRAY(int8_t, a->m * a->a_planes * a->k_padded);
    const sfq_pack_rows_args pack = {.codes = a->a,
                                     .blocks = a->k_blocks,
                                     .k_blocks = a->k_blocks,
                                     .m = a->m,
                                     .planes = a->a_planes,
                                     .bytes = bytes};
    check_ref()->pack_rows(&pack, 0, a->m);
    a->a_bytes = bytes;
}

/* The code behind `last`. */
static int random_code(int data, int limit, int last)
{
    const int any = (int)check_between(0, 2 * (size_t)limit) - limit;
    if (data == DATA_MAX || data == DATA_MIN)
        return data == DATA_MAX ? limit : -limit;
    if (data == DATA_RANDOM)
        return any;
    if (last != 0 && check_between(0, 30) == 0) { /* pairs about the bound of their 16-bit sum */
        const int rest = limit + (int)check_between(0, 4) - abs(last);
        return rest > limit ? limit : last > 0 ? rest : -rest;
    }
    const bool large = check_between(0, abs(last) > limit / 2 ? 1 : 80) == 0;
    return !large ? any / 5 : any % 2 ? any : any > 0 ? limit : -limit;
}

static void random_activations(qgemm_case *c, int data)
{
    sfq_qgemm_args *a = &c->a;
    const int limit = (1 << (c->act_bits - 1)) - 1;
    int16_t *codes = CHECK_ARRAY(int16_t, a->m * a->k_padded);
    int32_t *sums = CHECK_ARRAY(int32_t, a->m * a->segments);
    float *scales = CHECK_ARRAY(float, a->m * a->segments);
    memset(codes, 0, a->m * a->k_padded * sizeof *codes);
    memset(sums, 0, a->m * a->segments * sizeof *sums);
    for (size_t m = 0; m < a->m; m++) {
        int code = 0;
        for (size_t k = 0; k < c->k; k++) {
            code = random_code(data, limit, code);
            codes[m * a->k_padded + k] = (int16_t)code;
            sums[m * a->segments + k / a->segment_k] += code;
        }
    }
    check_floats(scales, a->m * a->segments, CHECK_PLAIN);
    a->a = codes;
    a->a_sums = sums;
    a->a_scales = scales;
    a->a_planes = c->act_bits == 8 ? 1 : 2;
    pack_activations(a);
}

/* The geometry of an n x k matrix with segments of segment_k and data of the given kind. */
static qgemm_case make_case(size_t m, size_t n, size_t k, size_t segment_k, int bits, int data)
{
    qgemm_case c = {.k = k, .panels = (n + 15) / 16};
    sfq_qgemm_args *a = &c.a;
    a->m = m;
    a->n = n;
    a->bits = bits;
    a->k_blocks = (k + 63) / 64;
    a->k_padded = a->k_blocks * 64;
    a->segment_k = segment_k;
    a->segments = (k + segment_k - 1) / segment_k;
    a->share = (size_t)1 << check_between(0, 4);
    a->panel_bytes = a->k_blocks * sfq_block_bytes(bits);
    c.act_bits = segment_k <= 1024 && check_u64() % 2 ? (int)check_between(8, 14) : 8;
    a->codes = random_panels(&c, data == DATA_RANDOM   ? DATA_RANDOM
                                 : data == DATA_PEAKED ? (int)check_between(0, 2)
                                                       : (int)check_between(1, 2));
    random_activations(&c, data);
    float *scales = CHECK_ARRAY(float, c.panels * a->segments * (16 / a->share));
    check_floats(scales, c.panels * a->segments * (16 / a->share), CHECK_PLAIN);
    a->scales = scales;
    float *bias = CHECK_ARRAY(float, n);
    check_floats(bias, n, CHECK_PLAIN);
    a->bias = check_between(0, 2) == 0 ? NULL : bias;
    a->ldy = n + check_between(0, 3);
    a->scratch = check_aligned(SFQ_QGEMM_SCRATCH);
    return c;
}

static void outputs(sfq_qgemm_args *a)
{
    a->y = CHECK_ARRAY(float, (a->m - 1) * a->ldy + a->n);
    a->raw = CHECK_ARRAY(int32_t, a->m * a->segments * a->n);
}

static void compare(const sfq_qgemm_args *got, const sfq_qgemm_args *want, const char *what)
{
    if (got->raw)
        check_same(got->raw, want->raw, got->m * got->segments * got->n * sizeof *got->raw, what);
    for (size_t m = 0; got->y && m < got->m; m++) {
        check_same(got->y + m * got->ldy, want->y + m * got->ldy, got->n * sizeof(float), what);
        if (m + 1 < got->m)
            check_untouched(got->y + m * got->ldy + got->n, (got->ldy - got->n) * sizeof(float),
                            "padding of y");
    }
}

/* y [M, ldy] of `plain` activated by act, against qgemm's own, in two pieces of panels. */
static void activation(const sfq_kernels *k, const qgemm_case *c, const sfq_qgemm_args *plain)
{
    sfq_qgemm_args want = *plain, got = c->a;
    outputs(&got);
    got.raw = NULL;
    got.activated = true;
    got.act = (sfq_activation)check_between(0, SFQ_ACT_COUNT - 1);
    for (size_t m = 0; m < want.m; m++)
        k->act(got.act, want.y + m * want.ldy, want.n);
    k->qgemm(&got, 0, c->panels / 2);
    k->qgemm(&got, c->panels / 2, c->panels);
    compare(&got, &want, "activated");
}

static void against_ref(const sfq_kernels *k, const qgemm_case *c)
{
    sfq_qgemm_args want = c->a, got = c->a;
    outputs(&want);
    outputs(&got);
    check_ref()->qgemm(&want, 0, c->panels);
    k->qgemm(&got, 0, c->panels);
    compare(&got, &want, "qgemm");
    sfq_qgemm_args raw_only = got;
    raw_only.raw = CHECK_ARRAY(int32_t, got.m * got.segments * got.n);
    raw_only.y = NULL;
    k->qgemm(&raw_only, 0, c->panels);
    compare(&raw_only, &want, "raw without y");
    sfq_qgemm_args y_only = c->a;
    outputs(&y_only);
    y_only.raw = NULL;
    k->qgemm(&y_only, 0, c->panels);
    compare(&y_only, &want, "y without raw");
    activation(k, c, &y_only);
}

/* Row m of the case, with its part of the outputs of `all`. */
static sfq_qgemm_args row_alone(const qgemm_case *c, size_t m, const sfq_qgemm_args *all)
{
    sfq_qgemm_args row = c->a;
    row.m = 1;
    row.a += m * row.k_padded;
    pack_activations(&row);
    row.a_scales += m * row.segments;
    row.a_sums += m * row.segments;
    row.y = all->y + m * row.ldy;
    row.raw = all->raw + m * row.segments * row.n;
    return row;
}

static void invariance(const sfq_kernels *k, const qgemm_case *c)
{
    sfq_qgemm_args whole = c->a, split = c->a;
    outputs(&whole);
    outputs(&split);
    k->qgemm(&whole, 0, c->panels);
    for (size_t m = 0; m < c->a.m; m++) {
        const sfq_qgemm_args row = row_alone(c, m, &split);
        for (size_t p = c->panels; p-- > 0;)
            k->qgemm(&row, p, p + 1);
    }
    compare(&split, &whole, "row and panel alone");
    for (size_t streams = 1; streams <= 4; streams += 3) {
        outputs(&split);
        for (size_t m = 0; m < c->a.m; m++) {
            sfq_qgemm_args row = row_alone(c, m, &split);
            row.streams = streams;
            k->qgemm(&row, 0, c->panels);
        }
        compare(&split, &whole, streams == 1 ? "rows by one stream" : "rows by four streams");
    }
    sfq_qgemm_args one = c->a;
    outputs(&one);
    one.raw = NULL;
    k->qgemm(&one, 0, 1);
    for (size_t m = 0; c->panels > 1 && m < one.m; m++)
        check_untouched(one.y + m * one.ldy + 16, (one.n - 16) * sizeof(float), "other panels");
}

/* One case with a value worked out by hand: N = 2, K = 3, scale 0.5 and 2, bias. */
static void by_hand(const sfq_kernels *k)
{
    uint8_t block[SFQ_BLOCK_WEIGHTS];
    const int bits = 4;
    memset(block, 8, sizeof block);
    const int w[2][3] = {{1, -8, 7}, {-3, 0, 2}};
    for (size_t n = 0; n < 2; n++)
        for (size_t i = 0; i < 3; i++)
            block[n * 4 + i] = (uint8_t)(w[n][i] + 8);
    sfq_qgemm_args a = {.bits = bits, .n = 2, .k_blocks = 1, .segments = 1, .segment_k = 64};
    uint8_t *codes = check_guarded(sfq_block_bytes(bits));
    sfq_block_pack(codes, block, bits);
    const int16_t acts[64] = {10, -20, 30};
    const float scales[16] = {0.5f, 2.0f}, bias[2] = {1.0f, -1.0f}, a_scale = 0.25f;
    const int32_t sum = 20;
    float y[2];
    int32_t raw[2];
    a.codes = codes;
    a.panel_bytes = sfq_block_bytes(bits);
    a.share = 1;
    a.scales = scales;
    a.bias = bias;
    a.a = acts;
    a.a_planes = 1;
    a.k_padded = 64;
    a.a_scales = &a_scale;
    a.a_sums = &sum;
    a.m = 1;
    pack_activations(&a);
    a.y = y;
    a.ldy = 2;
    a.raw = raw;
    a.scratch = check_aligned(SFQ_QGEMM_SCRATCH);
    k->qgemm(&a, 0, 1);
    CHECK(raw[0] == 380 && raw[1] == 30, "raw %d %d, want 380 30", raw[0], raw[1]);
    CHECK(y[0] == 48.5f && y[1] == 14.0f, "y %g %g, want 48.5 14", (double)y[0], (double)y[1]);
}

void check_qgemm(const sfq_kernels *k)
{
    by_hand(k);
    for (int turn = 0; turn < 420; turn++) {
        const int bits = 2 + turn % 7;
        const int data = turn % 5 == 0  ? (int)check_between(0, DATA_KINDS - 1)
                         : turn % 5 < 3 ? DATA_PEAKED
                                        : DATA_RANDOM;
        const bool large = turn % 10 == 9;
        size_t kk = check_between(1, turn % 2 ? 130 : 1500);
        size_t segment = 64 * check_between(1, 16);
        size_t m = check_between(1, large ? 70 : 9);
        if (turn % 35 == 34) { /* a segment longer than any tile */
            kk = check_between(2049, 4500);
            segment = 64 * check_between(33, 71);
        }
        qgemm_case c = make_case(m, check_between(1, large ? 210 : 70), kk, segment, bits, data);
        against_ref(k, &c);
        invariance(k, &c);
        check_reset();
    }
    for (int turn = 0; turn < 12; turn++) { /* rows too long for some or all forms of scratch */
        size_t kk = 1000 * (turn % 2 ? check_between(107, 120) : check_between(213, 230));
        qgemm_case c = make_case(check_between(1, 3), 17, kk, 1024, turn % 3 ? 8 : 5,
                                 turn % 4 < 2 ? DATA_RANDOM : DATA_PEAKED);
        against_ref(k, &c);
        invariance(k, &c);
        check_reset();
    }
    qgemm_case many = make_case(600, 20, 200, 128, 6, DATA_RANDOM);
    against_ref(k, &many);
    invariance(k, &many);
    check_reset();
    for (int bits = 7; bits <= 8; bits++) {
        qgemm_case peaked = make_case(110, 40, 5000, 1024, bits, DATA_PEAKED);
        peaked.act_bits = 8;
        peaked.a.codes = random_panels(&peaked, DATA_MAX);
        random_activations(&peaked, DATA_PEAKED);
        against_ref(k, &peaked);
        invariance(k, &peaked);
        check_reset();
    }
    qgemm_case halves = make_case(300, 20, 4000, 1024, 5, DATA_RANDOM); /* too long for one pass */
    against_ref(k, &halves);
    check_reset();
    qgemm_case groups = make_case(33, 530, 20000, 1024, 3, DATA_RANDOM); /* more than L2 holds */
    groups.act_bits = 12;
    random_activations(&groups, DATA_RANDOM);
    against_ref(k, &groups);
    check_reset();
    qgemm_case lines = make_case(520, 512, 200, 128, 4, DATA_RANDOM); /* outputs in whole lines */
    lines.a.ldy = 512;
    against_ref(k, &lines);
}

typedef struct qgemm_bench {
    const sfq_kernels *k;
    qgemm_case c;
} qgemm_bench;

static void run_qgemm(void *ctx)
{
    qgemm_bench *b = ctx;
    b->k->qgemm(&b->c.a, 0, b->c.panels);
}

static void bench_shape(const sfq_kernels *k, int bits, int act_bits, size_t m, size_t n, size_t kk)
{
    char what[64];
    qgemm_bench b = {.k = k, .c = make_case(m, n, kk, 1024, bits, DATA_RANDOM)};
    b.c.act_bits = act_bits;
    random_activations(&b.c, DATA_PEAKED);
    b.c.a.y = CHECK_ARRAY(float, m *b.c.a.ldy);
    snprintf(what, sizeof what, "bits=%d,%d M=%zu N=%zu K=%zu", bits, act_bits, m, n, kk);
    check_report(what, check_seconds(run_qgemm, &b), (double)(m * n * kk),
                 m == 1 ? (double)(b.c.panels * b.c.a.panel_bytes) : 0.0);
    check_reset();
}

void bench_qgemm(const sfq_kernels *k)
{
    static const size_t rows[] = {1, 2, 4, 8, 16, 64, 512};
    const bool slow = k->isa == SFQ_ISA_REF;
    for (size_t i = 0; i < (slow ? 1 : sizeof rows / sizeof *rows); i++)
        bench_shape(k, 8, 12, rows[i], slow ? 256 : 2048, 2048);
    for (int bits = 8; bits >= 2; bits--)
        for (size_t i = 0; i < (slow ? 1 : sizeof rows / sizeof *rows); i++)
            bench_shape(k, bits, 8, rows[i], slow ? 256 : 2048, 2048);
    for (int bits = 8; !slow && bits >= 2; bits--) /* beyond the caches */
        bench_shape(k, bits, 8, 1, 65536, 2048);
}
