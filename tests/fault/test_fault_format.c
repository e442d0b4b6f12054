/* The readers and the writer of src/format under the seam: every n-th allocation and every n-th
 * call that reads or writes fails once, and from there on. After each failure: a code with its
 * message, no memory kept, and no half-written model. */
#include "fault/seam.h"

#include "base/mem.h"
#include "format/artifact.h"
#include "unit/unit.h"

static char dir[SCRATCH_ROOM];
static char target[2 * SCRATCH_ROOM];

static const char header[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"b\\u0041\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
    "\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,8]}}";
static const char index_text[] = "{\"weight_map\":{\"bA\":\"m-1.safetensors\","
                                 "\"a\":\"m-1.safetensors\"}}";
static const char config[] =
    "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":64,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"intermediate_size\":96,\"vocab_size\":100,\"id2label\":{\"0\":\"x\"},"
    "\"per_layer_config\":{\"1\":{\"intermediate_size\":64}}}";
static const char described[] =
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":4,\"intermediate_size\":96,\"vocab_size\":100,"
    "\"quantization_config\":{\"quant_method\":\"sfq\",\"version\":1,\"original_parameters\":9,"
    "\"layers\":[{\"heads\":4,\"kv_heads\":4,\"ffn\":96}],\"tensors\":{\"up\":{\"shape\":[96,64],"
    "\"bits\":8,\"activation_bits\":8,\"segments\":1,\"segment_k\":64,\"share\":8}}}}";

static void put_weights(const char *name)
{
    char path[2 * SCRATCH_ROOM];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        fputc((int)(strlen(header) >> (8 * i) & 0xff), file);
    fputs(header, file);
    fputs("01234567", file);
    assert_int_equal(fclose(file), 0);
}

static int setup(void **state)
{
    (void)state;
    scratch_open(dir);
    snprintf(target, sizeof target, "%s/out", dir);
    scratch_put(dir, "one/config.json", config);
    scratch_put(dir, "one/generation_config.json", "{\"eos_token_id\":[1,2]}");
    scratch_put(dir, "packed/config.json", described);
    scratch_put(dir, "shards/model.safetensors.index.json", index_text);
    scratch_put(dir, "hub/models--org--name/refs/main", "abc\n");
    scratch_put(dir, "hub/models--org--name/snapshots/abc/config.json", "{}");
    put_weights("one/model.safetensors");
    put_weights("shards/m-1.safetensors");
    return setenv("HF_HUB_CACHE", scratch_path(dir, "hub"), 1);
}

static int teardown(void **state)
{
    (void)state;
    scratch_close(dir);
    return 0;
}

/* ---- what is done under faults ---- */

static sfq_status read_weights(const char *name, sfq_error *err)
{
    sfq_checkpoint *ck;
    SFQ_TRY(sfq_checkpoint_open(&ck, scratch_path(dir, name), NULL, err));
    sfq_status status = sfq_checkpoint_copy(ck, NULL, NULL, err);
    if (status == SFQ_OK)
        status = sfq_checkpoint_verify(ck, NULL, err);
    if (status == SFQ_OK && memcmp(sfq_checkpoint_at(ck, 0)->data, "4567", 4) != 0)
        status = SFQ_E_INTERNAL;
    if (sfq_checkpoint_count(ck) != 2 || !sfq_checkpoint_find(ck, "bA"))
        status = SFQ_E_INTERNAL;
    sfq_checkpoint_close(&ck);
    return status;
}

static sfq_status read_one(sfq_error *err)
{
    return read_weights("one", err);
}

static sfq_status read_shards(sfq_error *err)
{
    return read_weights("shards", err);
}

static sfq_status read_config(sfq_error *err)
{
    sfq_layer_dims dims[2];
    sfq_hf_config *c;
    SFQ_TRY(sfq_hf_config_open(&c, scratch_path(dir, "one"), err));
    sfq_status status = sfq_hf_layer_dims(dims, c, NULL, err);
    if (status == SFQ_OK && (dims[1].ffn != 64 || c->eos_count != 2))
        status = SFQ_E_INTERNAL;
    sfq_hf_config_close(&c);
    return status;
}

static sfq_status find_model(sfq_error *err)
{
    char *found;
    SFQ_TRY(sfq_model_dir_resolve(&found, "org/name", err));
    sfq_mem_free(found);
    return SFQ_OK;
}

/* Reads an artifact's description and writes it again. */
static sfq_status describe(sfq_error *err)
{
    sfq_hf_config *c;
    sfq_artifact_info *info = NULL;
    json_t *root = NULL;
    sfq_buf text = SFQ_BUF_INIT(1 << 16);
    sfq_status status;
    SFQ_TRY(sfq_hf_config_open(&c, scratch_path(dir, "packed"), err));
    SFQ_DO(sfq_artifact_read(&info, c, err));
    SFQ_DO(sfq_artifact_config(&root, c, info, err));
    SFQ_DO(sfq_artifact_text(&text, root, err));
done:
    json_decref(root);
    sfq_buf_free(&text);
    sfq_artifact_free(&info);
    sfq_hf_config_close(&c);
    return status;
}

static sfq_status write_weights(sfq_error *err)
{
    static const uint64_t shape[] = {3};
    sfq_outdir *out = NULL;
    sfq_st_writer *w = NULL;
    sfq_status status;
    SFQ_DO(sfq_outdir_open(&out, target, true, err));
    SFQ_DO(sfq_st_writer_open(&w, out, "model.safetensors", err));
    SFQ_DO(sfq_st_writer_declare(w, "x\"", SFQ_U8, 1, shape, err));
    SFQ_DO(sfq_st_writer_begin(w, err));
    SFQ_DO(sfq_st_writer_put(w, 0, "abc", 3, err));
    SFQ_DO(sfq_st_writer_finish(&w, err));
    SFQ_DO(sfq_outdir_put(out, "config.json", "{}", 2, err));
    status = sfq_outdir_commit(&out, NULL, err);
done:
    sfq_st_writer_abort(&w);
    sfq_outdir_abort(&out);
    return status;
}

/* ---- the loops ---- */

typedef sfq_status (*action)(sfq_error *err);

/* Runs act with the n-th call of op failing, n = 1, 2, ... until none fails. */
static unsigned sweep(const char *op, action act, sfq_status expected)
{
    unsigned n = 0;
    for (bool fired = true; fired;) {
        char spec[64];
        sfq_error err;
        sfq_error_clear(&err);
        snprintf(spec, sizeof spec, "%s:%u", op, ++n);
        assert_true(seam_arm(spec));
        sfq_status status = act(&err);
        long live = seam_live();
        fired = seam_fired();
        seam_disarm();
        if (live != 0)
            fail_msg("%s: %ld pieces of memory kept", spec, live);
        if (status != (fired ? expected : SFQ_OK) || (fired && err.code != status))
            fail_msg("%s: status %d, %s", spec, status, err.message);
        if (status != SFQ_OK && act == write_weights && sfq_dir_exists(target))
            fail_msg("%s: a model that is not whole", spec);
        if (act == write_weights && status == SFQ_OK)
            nftw(target, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
        assert_true(n < 10000);
    }
    return n - 1;
}

static void every_allocation(void **state)
{
    static const action acts[] = {read_one,   read_shards, read_config,
                                  find_model, describe,    write_weights};
    (void)state;
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        assert_true(sweep("alloc", acts[i], SFQ_E_MEMORY) > 0);
        assert_true(sweep("alloc+", acts[i], SFQ_E_MEMORY) > 0);
    }
}

static void every_call_of_reading(void **state)
{
    static const action acts[] = {read_one, read_shards, read_config};
    (void)state;
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        assert_true(sweep("open", acts[i], SFQ_E_IO) > 0);
    assert_true(sweep("read", read_shards, SFQ_E_IO) > 0);
    assert_true(sweep("read+", read_config, SFQ_E_IO) > 1);
    assert_int_equal(sweep("mmap", read_one, SFQ_E_MEMORY), 1);
}

static void every_write(void **state)
{
    (void)state;
    assert_true(sweep("write", write_weights, SFQ_E_IO) >= 3);
    assert_true(sweep("fsync", write_weights, SFQ_E_IO) >= 1);
    assert_true(sweep("fallocate", write_weights, SFQ_E_NO_SPACE) >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation),
        cmocka_unit_test(every_call_of_reading),
        cmocka_unit_test(every_write),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
