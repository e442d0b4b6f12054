/* tests/kernels/check_rope.c - rotation of pairs against ref: two roundings per result. */
#include "check.h"

#include <math.h>
#include <string.h>

typedef struct rope_case {
    const sfq_kernels *k;
    size_t rot;
    float *x, *cos, *sin;
} rope_case;

static rope_case make_case(const sfq_kernels *k, size_t rot)
{
    rope_case r = {.k = k, .rot = rot};
    r.x = CHECK_ARRAY(float, rot);
    r.cos = CHECK_ARRAY(float, rot / 2);
    r.sin = CHECK_ARRAY(float, rot / 2);
    check_floats(r.x, rot, CHECK_PLAIN);
    for (size_t i = 0; i < rot / 2; i++) {
        float angle = 3.0f * check_normal();
        r.cos[i] = cosf(angle);
        r.sin[i] = sinf(angle);
    }
    return r;
}

void check_rope(const sfq_kernels *k)
{
    for (int turn = 0; turn < 200; turn++) {
        rope_case r = make_case(k, 2 * check_between(1, 70));
        const size_t half = r.rot / 2;
        float *got = check_copy(r.x, r.rot * sizeof(float));
        float *want = check_copy(r.x, r.rot * sizeof(float));
        k->rope(got, r.cos, r.sin, r.rot);
        check_ref()->rope(want, r.cos, r.sin, r.rot);
        for (size_t i = 0; i < r.rot; i++) {
            double size = fabs((double)r.x[i % half]) + fabs((double)r.x[i % half + half]);
            check_near((double)got[i], (double)want[i], 3 * CHECK_EPS * size + 1e-44, "rope", i);
        }
        for (size_t i = 0; i < half; i++) { /* a pair alone gives the same bits */
            float pair[2] = {r.x[i], r.x[i + half]};
            k->rope(pair, r.cos + i, r.sin + i, 2);
            CHECK(pair[0] == got[i] && pair[1] == got[i + half], "pair %zu alone differs", i);
        }
        check_reset();
    }
}

static void run_rope(void *ctx)
{
    rope_case *r = ctx;
    r->k->rope(r->x, r->cos, r->sin, r->rot);
}

void bench_rope(const sfq_kernels *k)
{
    rope_case r = make_case(k, 128);
    check_report("rot=128", check_seconds(run_rope, &r), 0, 128 * 12);
}
