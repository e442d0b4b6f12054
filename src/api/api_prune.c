/* api/api_prune.c - <sfq/prune.h>: checks of arguments, and forwarding. */
#include "api/api.h"
#include "compress/least_squares.h"
#include "compress/units.h"
#include "model/product.h"

#include <math.h>

static sfq_status check_unit(const sfq_prune_units *u, size_t i, sfq_error *err)
{
    if (!isfinite(u->saliency[i]))
        return sfq_fail(err, SFQ_E_NUMERIC, "the saliency of unit %zu is not finite", i);
    if (u->saliency[i] < 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "the saliency of unit %zu is %g, below 0", i,
                        u->saliency[i]);
    if (u->cost[i] == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "unit %zu costs no parameters", i);
    if (u->group[i] >= u->groups)
        return sfq_fail(err, SFQ_E_ARGUMENT, "unit %zu is in group %lu, but there are %zu groups",
                        i, (unsigned long)u->group[i], u->groups);
    return SFQ_OK;
}

sfq_status sfq_prune_choose_units(const sfq_prune_units *units, double share, bool *keep,
                                  sfq_error *err)
{
    SFQ_API_NEED(units);
    if (!(share >= 0 && share < 1))
        return sfq_fail(err, SFQ_E_ARGUMENT, "share is %g, it must be from 0 to below 1", share);
    if (units->n > 0) {
        SFQ_API_NEED(units->saliency);
        SFQ_API_NEED(units->cost);
        SFQ_API_NEED(units->group);
        SFQ_API_NEED(units->floor);
        SFQ_API_NEED(units->multiple);
        SFQ_API_NEED(keep);
    }
    if (units->n > UINT32_MAX || units->groups > UINT32_MAX)
        return sfq_fail(err, SFQ_E_LIMIT, "%zu units in %zu groups are too many", units->n,
                        units->groups);
    for (size_t i = 0; i < units->n; i++)
        SFQ_TRY(check_unit(units, i, err));
    return units->n > 0 ? sfq_units_choose(units, share, keep, err) : SFQ_OK;
}

static sfq_status check_matrix(const sfq_prune_matrix *m, sfq_error *err)
{
    SFQ_API_NEED(m->w);
    SFQ_API_NEED(m->gram);
    SFQ_API_NEED(m->keep);
    if (m->n == 0 || m->k == 0)
        return sfq_fail(err, SFQ_E_ARGUMENT, "a matrix of %zu x %zu weights is empty", m->n, m->k);
    if (!(m->ridge >= 0) || !isfinite(m->ridge))
        return sfq_fail(err, SFQ_E_ARGUMENT, "ridge is %g, it must be finite and not below 0",
                        m->ridge);
    if (m->constants >= m->k)
        return sfq_fail(err, SFQ_E_ARGUMENT, "%zu of %zu inputs cannot be constants", m->constants,
                        m->k);
    for (size_t i = m->k - m->constants; i < m->k; i++)
        if (!m->keep[i])
            return sfq_fail(err, SFQ_E_ARGUMENT, "input %zu is a constant and must stay", i);
    for (size_t i = 0; i < m->k - m->constants; i++)
        if (m->keep[i])
            return SFQ_OK;
    return sfq_fail(err, SFQ_E_ARGUMENT, "none of the %zu inputs stays", m->k - m->constants);
}

sfq_status sfq_prune_refit_matrix(sfq_workers *workers, const sfq_prune_matrix *matrix, float *out,
                                  sfq_error *err)
{
    SFQ_API_NEED(workers);
    SFQ_API_NEED(matrix);
    SFQ_API_NEED(out);
    SFQ_TRY(check_matrix(matrix, err));
    const sfq_least_squares in = {.gram = matrix->gram,
                                  .w = matrix->w,
                                  .keep = matrix->keep,
                                  .n = matrix->n,
                                  .k = matrix->k,
                                  .constants = matrix->constants,
                                  .ridge = matrix->ridge};
    sfq_pool *pool = sfq_workers_take(workers);
    const sfq_status status = sfq_least_squares_refit(pool, &in, out, err);
    sfq_workers_leave(workers);
    return status;
}
