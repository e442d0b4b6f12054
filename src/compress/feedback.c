/* compress/feedback.c - GPTQ (Frantar et al. 2022) in the form that QuIP proves equal to it (LDLQ,
 * Chee et al. 2023): with H = G C G and C = T P T^t,
 *     e^t H e = sum over j of P_j (g_j e_j + a_j)^2,   a_j = sum over i < j of g_i e_i T_ij,
 * so that the best code of weight j, given those before it, is that of w_j + a_j / g_j. The same
 * sums price the codes that were rounded to nearest, and each row keeps what costs less.
 *
 * A panel's 16 rows are 16 lanes, and both kinds of codes run side by side: one pass over T serves
 * 32 sums. No sum crosses lanes, so the codes do not depend on the vector width. */
#include "compress/feedback.h"

#include "base/ck.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

enum {
    ROWS = SFQ_PANEL_N,
    LANES = 2 * SFQ_PANEL_N, /* feedback, nearest */
    TILE = 64                /* columns whose sums and errors stay in the first cache */
};

/* Adding and subtracting 1.5 * 2^23 rounds |x| < 2^22 to the nearest integer, ties to even. */
#define ROUNDER 12582912.0F

const sfq_module *sfq_feedback_norm(const sfq_source *s, const sfq_module *m)
{
    sfq_role norm = SFQ_ROLE_FINAL_NORM;
    if (!s->arch->pre_norm || !sfq_moment_possible(s->arch))
        return NULL;
    switch (m->role) {
    case SFQ_ROLE_Q:
    case SFQ_ROLE_K:
    case SFQ_ROLE_V:
    case SFQ_ROLE_QKV:
        norm = SFQ_ROLE_ATTN_NORM;
        break;
    case SFQ_ROLE_GATE:
    case SFQ_ROLE_UP:
        norm = SFQ_ROLE_FFN_NORM;
        break;
    case SFQ_ROLE_WORD_EMBEDDING:
        if (!s->arch->tied_head || s->arch->head != SFQ_MODEL_HEAD_LM)
            return NULL;
        break;
    case SFQ_ROLE_LM_HEAD:
        break;
    default:
        return NULL;
    }
    const sfq_module *found =
        sfq_modules_find(s->modules, norm, norm == SFQ_ROLE_FINAL_NORM ? -1 : m->layer);
    return found != NULL && found->k == m->k ? found : NULL;
}

sfq_status sfq_feedback_gain(float **out, const sfq_source *s, const sfq_module *module,
                             sfq_error *err)
{
    const sfq_module *norm = sfq_feedback_norm(s, module);
    const sfq_tensor *t = sfq_module_weight(norm, s->ck);
    float most = 0;
    float *gain = SFQ_NEW_ARRAY(float, norm->k);
    *out = NULL;
    if (gain == NULL)
        return sfq_fail_memory(err, norm->k * sizeof *gain, norm->name);
    sfq_to_f32(gain, t->data, t->dtype, norm->k);
    for (size_t i = 0; i < norm->k; i++)
        most = fabsf(gain[i]) > most ? fabsf(gain[i]) : most;
    for (size_t i = 0; i < norm->k; i++)
        if (fabsf(gain[i]) < 1e-3F * most)
            gain[i] = copysignf(1e-3F * most, gain[i]);
    if (most > 0)
        *out = gain;
    else
        sfq_mem_free(gain);
    return SFQ_OK;
}

/* a += sum over i < n of t[i] * e[i], i ascending */
static void sum_errors(float *restrict a, const float *restrict t, const float *restrict e,
                       size_t n)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 4, e += 4 * (size_t)LANES) {
        const float t0 = t[i];
        const float t1 = t[i + 1];
        const float t2 = t[i + 2];
        const float t3 = t[i + 3];
        for (int r = 0; r < LANES; r++)
            a[r] = (((a[r] + t0 * e[r]) + t1 * e[LANES + r]) + t2 * e[2 * LANES + r]) +
                   t3 * e[3 * LANES + r];
    }
    for (; i < n; i++, e += LANES)
        for (int r = 0; r < LANES; r++)
            a[r] += t[i] * e[r];
}

/* What one segment's rows have: a scale, and whether nearest found nothing but zeros, as in a
 * cluster that no scale fits; such rows are left as they are. */
typedef struct segment_rows {
    float scale[ROWS];
    bool still[ROWS];
} segment_rows;

static void look_at_segment(segment_rows *out, const uint8_t *codes, const sfq_feedback_panel *p,
                            size_t segment)
{
    const sfq_cluster *c = p->cluster;
    for (size_t r = 0; r < p->rows; r++) {
        bool still = true;
        for (size_t i = sfq_segment_begin(c, segment); i < sfq_segment_end(c, segment); i++)
            still = still && codes[r * c->k + i] == 1 << (p->bits - 1);
        out->still[r] = still;
        out->scale[r] = p->scales[segment * (SFQ_PANEL_N / c->share) + r / c->share];
    }
}

/* The code of w + a / g; what is not a number gives the lowest, and its row loses. */
static float round_code(float target, float scale, float lo, float hi)
{
    float q = target / scale;
    q = q > lo ? q : lo;
    q = q < hi ? q : hi;
    return (q + ROUNDER) - ROUNDER;
}

/* Column j of both kinds: the codes of feedback, the errors e [LANES], the costs. */
static void round_column(uint8_t *fed, float *e, double cost[LANES], const float *a, size_t j,
                         const uint8_t *codes, const sfq_feedback_panel *p,
                         const segment_rows *segment)
{
    const float lo = -(float)(1 << (p->bits - 1));
    const float hi = (float)((1 << (p->bits - 1)) - 1);
    const size_t k = p->cluster->k;
    const float g = p->gain[j];
    for (size_t r = 0; r < p->rows; r++) {
        const float w = p->w[r * k + j];
        const float scale = segment->scale[r];
        const float nearest = (float)codes[r * k + j] + lo;
        float q = segment->still[r] ? nearest : round_code(w + a[r] / g, scale, lo, hi);
        fed[j * ROWS + r] = (uint8_t)(int)(q - lo);
        e[r] = g * (w - scale * q);
        e[ROWS + r] = g * (w - scale * nearest);
    }
    for (size_t r = 0; r < LANES; r++) {
        double d = (double)e[r] + (double)a[r];
        cost[r] += p->moment->pivot[j] * d * d;
    }
}

/* What the errors of all columns before the tile [begin, end) give to its sums a [TILE, LANES]. */
static void sum_before(float *a, const sfq_moment *m, const float *e, size_t begin, size_t end)
{
    memset(a, 0, (size_t)TILE * LANES * sizeof *a);
    for (size_t i = 0; i < begin; i += TILE)
        for (size_t j = begin; j < end; j++)
            sum_errors(a + (j - begin) * LANES, m->ratio + j * (j - 1) / 2 + i, e + i * LANES,
                       TILE);
}

size_t sfq_feedback_scratch(size_t k)
{
    return k * (LANES + ROWS / sizeof(float));
}

void sfq_feedback_round(uint8_t *codes, const sfq_feedback_panel *p, float *scratch,
                        double *nearest, double *chosen)
{
    const sfq_cluster *c = p->cluster;
    const size_t k = c->k;
    uint8_t *fed = (uint8_t *)(scratch + k * LANES); /* [K, 16] */
    float sums[TILE * LANES];
    double cost[LANES] = {0};
    segment_rows segment = {0};
    double total[2] = {0};
    size_t s = 0;
    memset(scratch, 0, k * LANES * sizeof *scratch); /* rows that are not there stay 0 */
    for (size_t j = 0; j < k; j++) {
        const size_t begin = j - j % TILE;
        float *a = sums + (j - begin) * LANES;
        if (s < c->segments && j == sfq_segment_begin(c, s))
            look_at_segment(&segment, codes, p, s++);
        if (j == begin)
            sum_before(sums, p->moment, scratch, j, sfq_min_size(j + TILE, k));
        if (j > begin)
            sum_errors(a, p->moment->ratio + j * (j - 1) / 2 + begin, scratch + begin * LANES,
                       j - begin);
        round_column(fed, scratch + j * LANES, cost, a, j, codes, p, &segment);
    }
    for (size_t r = 0; r < p->rows; r++) {
        bool better = cost[r] < cost[ROWS + r];
        for (size_t j = 0; j < k && better; j++)
            codes[r * k + j] = fed[j * ROWS + r];
        total[0] += cost[ROWS + r];
        total[1] += better ? cost[r] : cost[ROWS + r];
    }
    if (nearest != NULL)
        *nearest = total[0];
    if (chosen != NULL)
        *chosen = total[1];
}
