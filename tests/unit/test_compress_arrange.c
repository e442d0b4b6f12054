/* The order of FFN neurons: a permutation, the same function, less loss; and left alone where
 * it cannot help or where a matrix is kept. */
#include "unit/unit.h"

#include "base/mem.h"
#include "compress/emit.h"

static sfq_error err;

typedef struct opened {
    sfq_compress_options options;
    sfq_source *source;
    sfq_plan *plan;
} opened;

static opened open_plan(const char *model, const char *keep)
{
    static const char *kept[1];
    opened o = {.options = {.struct_size = sizeof o.options,
                            .model = model,
                            .bits = 8,
                            .embedding_bits = 8,
                            .max_drop = -1,
                            .threads = 2}};
    kept[0] = keep;
    o.options.keep = kept;
    o.options.keep_count = keep != NULL;
    assert_ok(sfq_source_open(&o.source, &o.options, &err));
    assert_ok(sfq_plan_make(&o.plan, o.source, &o.options, 1, &err));
    return o;
}

static void close_plan(opened *o)
{
    sfq_plan_free(&o->plan);
    sfq_source_close(&o->source);
}

static const sfq_plan_tensor *find(const opened *o, sfq_role role, int layer, bool bias)
{
    for (size_t i = 0; i < o->plan->count; i++) {
        const sfq_plan_tensor *t = &o->plan->tensors[i];
        if (t->module->role == role && t->module->layer == layer &&
            bias == (strstr(t->source->name, ".bias") != NULL))
            return t;
    }
    return NULL;
}

static void assert_permutation(const uint32_t *order, size_t n)
{
    unsigned char *seen = calloc(n, 1);
    assert_non_null(seen);
    for (size_t i = 0; i < n; i++) {
        assert_true(order[i] < n);
        assert_int_equal(seen[order[i]]++, 0);
    }
    free(seen);
}

static void test_all_parts_move_together(void **state)
{
    (void)state;
    opened o = open_plan("models/sst2-tiny", NULL);
    assert_int_equal(o.plan->arranged_layers, o.source->arch->layers);
    for (int layer = 0; layer < o.source->arch->layers; layer++) {
        const sfq_plan_tensor *up = find(&o, SFQ_ROLE_UP, layer, false);
        const sfq_plan_tensor *bias = find(&o, SFQ_ROLE_UP, layer, true);
        const sfq_plan_tensor *down = find(&o, SFQ_ROLE_DOWN, layer, false);
        assert_permutation(up->row_order, up->module->n);
        assert_ptr_equal(bias->row_order, up->row_order);
        assert_ptr_equal(down->column_order, up->row_order);
        assert_null(up->column_order);
        assert_null(down->row_order);
        assert_null(find(&o, SFQ_ROLE_DOWN, layer, true)->row_order);
        assert_null(find(&o, SFQ_ROLE_O, layer, false)->row_order);
    }
    close_plan(&o);
}

static void test_kept_matrix_keeps_the_order(void **state)
{
    (void)state;
    opened o = open_plan("models/sst2-tiny", "layer\\.1\\.output\\.dense");
    assert_int_equal(o.plan->arranged_layers, o.source->arch->layers - 1);
    assert_null(find(&o, SFQ_ROLE_UP, 1, false)->row_order);
    assert_null(find(&o, SFQ_ROLE_UP, 1, true)->row_order);
    assert_non_null(find(&o, SFQ_ROLE_UP, 2, false)->row_order);
    close_plan(&o);
}

static void test_when_it_helps(void **state)
{
    (void)state;
    static const struct {
        size_t c, f;
        bool helps;
    } cases[] = {{256, 768, true}, {384, 1536, true}, {384, 768, false}, {4096, 11008, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sfq_module up = {.n = cases[i].f, .k = cases[i].c};
        sfq_module down = {.n = cases[i].c, .k = cases[i].f};
        assert_int_equal(sfq_arrange_helps(&up, &down), cases[i].helps);
    }
    assert_false(sfq_arrange_helps(NULL, NULL));
}

static sfq_status no_progress(void *ud, uint64_t weights, sfq_error *error)
{
    (void)ud, (void)weights, (void)error;
    return SFQ_OK;
}

static double loss_of(const sfq_fuse_input *in, sfq_fuser *fuser)
{
    sfq_fuse_output out = {.codes = sfq_mem_raw(sfq_cluster_code_bytes(in->cluster, in->bits)),
                           .scales = sfq_mem_raw(sfq_cluster_scales(in->cluster) * sizeof(float))};
    assert_non_null(out.codes);
    assert_non_null(out.scales);
    assert_ok(sfq_fuser_pack(fuser, in, no_progress, NULL, &out, &err));
    sfq_mem_free(out.codes);
    sfq_mem_free(out.scales);
    return out.error;
}

/* 8 bits: at least 3 % less in the matrices whose rows share scales, and never more elsewhere */
static void test_less_loss(void **state)
{
    (void)state;
    static const char *const models[] = {"models/sst2-tiny", "models/novels-5m"};
    for (size_t m = 0; m < 2; m++) {
        opened o = open_plan(models[m], NULL);
        sfq_fuser *fuser;
        double with = 0;
        double without = 0;
        assert_ok(sfq_fuser_open(&fuser, o.source->pool, 1024, &err));
        for (int layer = 0; layer < o.source->arch->layers; layer++) {
            sfq_fuse_input in = sfq_plan_fuse_input(find(&o, SFQ_ROLE_UP, layer, false));
            with += loss_of(&in, fuser);
            in.row_order = NULL;
            without += loss_of(&in, fuser);
        }
        assert_true(with < 0.97 * without);
        sfq_fuser_close(&fuser);
        close_plan(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_parts_move_together),
        cmocka_unit_test(test_kept_matrix_keeps_the_order),
        cmocka_unit_test(test_when_it_helps),
        cmocka_unit_test(test_less_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
