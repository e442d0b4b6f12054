/* quantization_config: written and read back, what a damaged one gives, ragged widths, and
 * binding a packed matrix to its tensors. */
#include "unit/format_files.h"

#include "base/mem.h"
#include "format/artifact.h"

#define BASE                                                                        \
    "\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":2,"          \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"intermediate_size\":96," \
    "\"vocab_size\":100,\"rms_norm_eps\":1e-05"
#define LAYERS \
    "\"layers\":[{\"heads\":4,\"kv_heads\":2,\"ffn\":96},{\"heads\":2,\"kv_heads\":1,\"ffn\":64}]"
#define UP                                                                                 \
    "{\"shape\":[96,64],\"bits\":8,\"activation_bits\":8,\"segments\":1,\"segment_k\":64," \
    "\"share\":8}"
#define Q(method, version, layers, tensors)                                               \
    "{" BASE ",\"quantization_config\":{\"quant_method\":" method ",\"version\":" version \
    ",\"original_parameters\":1000," layers ",\"tensors\":{" tensors "}}}"
#define GOOD Q("\"sfq\"", "1", LAYERS, "\"m.up\":" UP)

static sfq_hf_config *open_config(const char *text)
{
    sfq_hf_config *c = NULL;
    sfq_error err = {0};
    put_text("config.json", text);
    if (sfq_hf_config_open(&c, scratch, &err) != SFQ_OK)
        fail_msg("%s", err.message);
    return c;
}

static void read_good(void **state)
{
    sfq_hf_config *c = open_config(GOOD);
    sfq_artifact_info *info;
    sfq_layer_dims dims[2];
    (void)state;
    assert_int_equal(sfq_artifact_read(&info, c, NULL), SFQ_OK);
    assert_int_equal(info->version, 1);
    assert_int_equal(info->original_parameters, 1000);
    assert_int_equal(info->layer_count, 2);
    assert_int_equal(info->packed_count, 1);
    const sfq_packed_spec *spec = sfq_artifact_find(info, "m.up");
    assert_ptr_equal(spec, info->packed);
    assert_null(sfq_artifact_find(info, "m.down"));
    assert_null(sfq_artifact_find(NULL, "m.up"));
    assert_int_equal(spec->bits, 8);
    assert_int_equal(spec->cluster.n, 96);
    assert_int_equal(spec->cluster.share, 8);
    assert_int_equal(sfq_hf_layer_dims(dims, c, info, NULL), SFQ_OK);
    assert_int_equal(dims[1].ffn, 64);
    assert_int_equal(dims[1].kv_heads, 1);
    sfq_artifact_free(&info);
    sfq_hf_config_close(&c);
    c = open_config("{" BASE "}");
    assert_int_equal(sfq_artifact_read(&info, c, NULL), SFQ_OK);
    assert_null(info);
    assert_int_equal(sfq_hf_layer_dims(dims, c, NULL, NULL), SFQ_OK);
    assert_int_equal(dims[1].ffn, 96);
    sfq_hf_config_close(&c);
}

static void read_damaged(void **state)
{
    static const struct {
        const char *text;
        sfq_status status;
        const char *words;
    } cases[] = {
        {Q("\"gptq\"", "1", LAYERS, ""), SFQ_E_UNSUPPORTED, "quant_method \"gptq\""},
        {Q("null", "1", LAYERS, ""), SFQ_E_FORMAT, "quant_method"},
        {Q("7", "1", LAYERS, ""), SFQ_E_FORMAT, "quant_method"},
        {Q("\"sfq\"", "2", LAYERS, ""), SFQ_E_UNSUPPORTED, "newer sfq"},
        {Q("\"sfq\"", "0", LAYERS, ""), SFQ_E_FORMAT, "version"},
        {Q("\"sfq\"", "\"1\"", LAYERS, ""), SFQ_E_FORMAT, "version"},
        {Q("\"sfq\"", "1", "\"layers\":[]", ""), SFQ_E_FORMAT, "array of 2 entries, found 0"},
        {Q("\"sfq\"", "1", "\"layers\":[1,2]", ""), SFQ_E_FORMAT, "heads"},
        {Q("\"sfq\"", "1",
           "\"layers\":[{\"heads\":4,\"kv_heads\":2,\"ffn\":97},{\"heads\":4,\"kv_heads\":2,"
           "\"ffn\":96}]",
           ""),
         SFQ_E_FORMAT, "\"ffn\": expected 0 to 96"},
        {Q("\"sfq\"", "1",
           "\"layers\":[{\"heads\":5,\"kv_heads\":2,\"ffn\":9},{\"heads\":4,\"kv_heads\":2,"
           "\"ffn\":96}]",
           ""),
         SFQ_E_FORMAT, "\"heads\": expected 0 to 4"},
        {Q("\"sfq\"", "1", LAYERS, "\"m.up\":[]"), SFQ_E_FORMAT, "m.up: expected an object"},
        {Q("\"sfq\"", "1", LAYERS, "\"m.up\":{}"), SFQ_E_FORMAT, "m.up: shape"},
        {Q("\"sfq\"", "1", LAYERS, "\"\":" UP), SFQ_E_FORMAT, "name of 0 bytes"},
        {Q("\"sfq\"", "1", LAYERS, "\"m.up\":{\"shape\":[96,0]}"), SFQ_E_FORMAT, "m.up: shape"},
        {Q("\"sfq\"", "1", LAYERS, "\"m.up\":{\"shape\":[9223372036854775807,64]}"), SFQ_E_FORMAT,
         "m.up: shape"},
        {Q("\"sfq\"", "1", LAYERS, "\"m.up\":{\"shape\":[96,64],\"bits\":9}"), SFQ_E_FORMAT,
         "\"bits\": expected 2 to 8"},
        {Q("\"sfq\"", "1", LAYERS, "\"m.up\":{\"shape\":[96,64],\"bits\":8,\"activation_bits\":7}"),
         SFQ_E_FORMAT, "\"activation_bits\": expected 8 to 14"},
        {Q("\"sfq\"", "1", LAYERS,
           "\"m.up\":{\"shape\":[96,64],\"bits\":8,\"activation_bits\":8,\"segments\":2,"
           "\"segment_k\":64,\"share\":8}"),
         SFQ_E_FORMAT, "segments is 2, its shape gives 1"},
        {Q("\"sfq\"", "1", LAYERS,
           "\"m.up\":{\"shape\":[96,64],\"bits\":8,\"activation_bits\":8,\"segments\":1,"
           "\"segment_k\":0,\"share\":8}"),
         SFQ_E_FORMAT, "segment_k is 0, its shape gives 64"},
        {Q("\"sfq\"", "1", LAYERS,
           "\"m.up\":{\"shape\":[96,64],\"bits\":8,\"activation_bits\":8,\"segments\":1,"
           "\"segment_k\":64,\"share\":0}"),
         SFQ_E_FORMAT, "share is 0, its shape gives 8"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sfq_hf_config *c = open_config(cases[i].text);
        sfq_artifact_info *info = NULL;
        sfq_error err = {0};
        sfq_status status = sfq_artifact_read(&info, c, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].words))
            fail_msg("case %zu: %d \"%s\"", i, status, err.message);
        assert_null(info);
        sfq_hf_config_close(&c);
    }
}

static void layer_exceptions(void **state)
{
    static const struct {
        const char *more;
        sfq_status status;
        const char *words;
        int64_t heads, kv_heads, ffn; /* of layer 1 */
    } cases[] = {
        {"{\"1\":{\"intermediate_size\":80,\"num_attention_heads\":2,\"num_key_value_heads\":1}}",
         SFQ_OK, "", 2, 1, 80},
        {"{\"1\":{\"skip\":[\"mlp\"]}}", SFQ_OK, "", 4, 2, 0},
        {"{\"1\":{\"skip\":[\"attention\"]}}", SFQ_OK, "", 0, 0, 96},
        {"{}", SFQ_OK, "", 4, 2, 96},
        {"[]", SFQ_E_FORMAT, "expected an object", 0, 0, 0},
        {"{\"2\":{}}", SFQ_E_FORMAT, "layers 0 to 1", 0, 0, 0},
        {"{\"-1\":{}}", SFQ_E_FORMAT, "layers 0 to 1", 0, 0, 0},
        {"{\"1\":7}", SFQ_E_FORMAT, "layers 0 to 1", 0, 0, 0},
        {"{\"1\":{\"head_dim\":8}}", SFQ_E_UNSUPPORTED, "head_dim", 0, 0, 0},
        {"{\"1\":{\"skip\":[\"norm\"]}}", SFQ_E_UNSUPPORTED, "skip", 0, 0, 0},
        {"{\"1\":{\"intermediate_size\":97}}", SFQ_E_FORMAT, "expected 0 to 96", 0, 0, 0},
        {"{\"1\":{\"num_attention_heads\":3}}", SFQ_E_FORMAT, "3 heads cannot share 2", 0, 0, 0},
        {"{\"1\":{\"num_key_value_heads\":0}}", SFQ_E_FORMAT, "4 heads cannot share 0", 0, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        sfq_layer_dims dims[2];
        sfq_error err = {0};
        snprintf(text, sizeof text, "{" BASE ",\"per_layer_config\":%s}", cases[i].more);
        sfq_hf_config *c = open_config(text);
        sfq_status status = sfq_hf_layer_dims(dims, c, NULL, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].words))
            fail_msg("case %zu: %d \"%s\"", i, status, err.message);
        if (status == SFQ_OK) {
            assert_int_equal(dims[0].heads, 4);
            assert_int_equal(dims[1].heads, cases[i].heads);
            assert_int_equal(dims[1].kv_heads, cases[i].kv_heads);
            assert_int_equal(dims[1].ffn, cases[i].ffn);
        }
        sfq_hf_config_close(&c);
    }
}

/* Original -> artifact's config.json -> read again: the same description; and the exact text. */
static void round_trip(void **state)
{
    sfq_layer_dims layers[2] = {{4, 2, 96}, {2, 1, 64}};
    char name[] = "m.up";
    sfq_packed_spec spec = {.name = name, .bits = 5, .activation_bits = 9};
    sfq_artifact_info info = {.version = 1,
                              .original_parameters = 1000,
                              .layers = layers,
                              .layer_count = 2,
                              .packed = &spec,
                              .packed_count = 1};
    sfq_hf_config *c = open_config("{" BASE "}");
    sfq_artifact_info *back;
    sfq_buf text = SFQ_BUF_INIT(1 << 16), again = SFQ_BUF_INIT(1 << 16);
    json_t *root;
    (void)state;
    assert_true(sfq_cluster_make(&spec.cluster, 64, 700));
    assert_int_equal(sfq_artifact_config(&root, c, &info, NULL), SFQ_OK);
    assert_int_equal(sfq_artifact_text(&text, root, NULL), SFQ_OK);
    assert_int_equal(sfq_artifact_text(&again, root, NULL), SFQ_OK);
    assert_string_equal(text.data, again.data);
    assert_non_null(strstr(text.data, "\"rms_norm_eps\": 1e-5,\n"));
    json_decref(root);
    sfq_hf_config_close(&c);
    c = open_config(text.data);
    assert_int_equal(sfq_artifact_read(&back, c, NULL), SFQ_OK);
    assert_memory_equal(back->layers, layers, sizeof layers);
    assert_string_equal(back->packed[0].name, "m.up");
    assert_int_equal(back->packed[0].bits, 5);
    assert_int_equal(back->packed[0].activation_bits, 9);
    assert_memory_equal(&back->packed[0].cluster, &spec.cluster, sizeof spec.cluster);
    const json_t *shape =
        json_array_get(json_object_get(json_object_get(c->quantization, "shapes"), "m.up"), 1);
    assert_int_equal(json_integer_value(shape), 700);
    const json_t *layer = json_object_get(json_object_get(c->root, "per_layer_config"), "1");
    assert_int_equal(json_object_size(layer), 3);
    assert_int_equal(json_integer_value(json_object_get(layer, "intermediate_size")), 64);
    assert_true(json_is_true(json_object_get(c->root, "allow_global_per_layer_attribute_access")));
    sfq_artifact_free(&back);
    sfq_hf_config_close(&c);
    sfq_buf_free(&text);
    sfq_buf_free(&again);
}

static void uniform_widths_need_no_exceptions(void **state)
{
    sfq_layer_dims layers[2] = {{4, 2, 96}, {4, 2, 96}};
    sfq_artifact_info info = {
        .version = 1, .original_parameters = 1, .layers = layers, .layer_count = 2};
    sfq_hf_config *c = open_config("{" BASE "}");
    json_t *root;
    (void)state;
    assert_int_equal(sfq_artifact_config(&root, c, &info, NULL), SFQ_OK);
    assert_null(json_object_get(root, "per_layer_config"));
    assert_null(json_object_get(root, "allow_global_per_layer_attribute_access"));
    json_decref(root);
    sfq_hf_config_close(&c);
}

/* [16 outputs, 64 inputs] at 2 bits: codes [1,1,256], share 8, scales [1,1,2]. Data bytes are 0, 1,
 * 2, ...: behind the codes they begin again at 0. */
#define CODES(dtype, shape, end) \
    "\"m.codes\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[0," end "]}"
#define SCALES(dtype, shape, begin, end)                                                         \
    "\"m.scales\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end \
    "]}"

static void bind_packed(void **state)
{
    static const struct {
        const char *header;
        size_t data;
        sfq_status status;
        const char *words;
    } cases[] = {
        {"{" CODES("U8", "[1,1,256]", "256") "," SCALES("F16", "[1,1,2]", "256", "260") "}", 260,
         SFQ_OK, ""},
        {"{" CODES("U8", "[1,1,256]", "256") "," SCALES("F32", "[1,1,2]", "256", "264") "}", 264,
         SFQ_OK, ""},
        {"{" CODES("U8", "[1,1,256]", "256") "}", 256, SFQ_E_FORMAT, "m.scales is missing"},
        {"{" SCALES("F16", "[1,1,2]", "0", "4") "}", 4, SFQ_E_FORMAT, "m.codes is missing"},
        {"{" CODES("U8", "[1,1,255]", "255") "," SCALES("F16", "[1,1,2]", "255", "259") "}", 259,
         SFQ_E_FORMAT, "expected [1, 1, 256]"},
        {"{" CODES("U8", "[1,256]", "256") "," SCALES("F16", "[1,1,2]", "256", "260") "}", 260,
         SFQ_E_FORMAT, "rank 2"},
        {"{" CODES("I8", "[1,1,256]", "256") "," SCALES("F16", "[1,1,2]", "256", "260") "}", 260,
         SFQ_E_FORMAT, "dtype I8, expected U8"},
        {"{" CODES("U8", "[1,1,256]", "256") "," SCALES("BF16", "[1,1,2]", "256", "260") "}", 260,
         SFQ_E_FORMAT, "dtype BF16, expected F16 or F32"},
        {"{" CODES("U8", "[1,1,256]", "256") "," SCALES("F16", "[1,1,4]", "256", "264") "}", 264,
         SFQ_E_FORMAT, "expected [1, 1, 2]"},
        /* pads of other tensors put the scales on bytes 0x7c7c.. of the pattern: F16 NaN */
        {"{" CODES("U8", "[1,1,256]",
                   "256") ",\"p\":{\"dtype\":\"U8\",\"shape\":[124],"
                          "\"data_offsets\":[256,380]}," SCALES("F16", "[1,1,2]", "380", "384") "}",
         384, SFQ_E_NUMERIC, "m.scales: scale 0 is NaN"},
    };
    char name[] = "m";
    sfq_packed_spec spec = {.name = name, .bits = 2, .activation_bits = 8};
    (void)state;
    assert_true(sfq_cluster_make(&spec.cluster, 16, 64));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const sfq_tensor *codes, *scales;
        sfq_checkpoint *ck;
        sfq_error err = {0};
        bool aligned;
        put_safetensors("model.safetensors", cases[i].header, cases[i].data);
        assert_int_equal(sfq_checkpoint_open(&ck, scratch, NULL, &err), SFQ_OK);
        sfq_status status = sfq_packed_bind(&spec, ck, &codes, &scales, &aligned, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].words))
            fail_msg("case %zu: %d \"%s\"", i, status, err.message);
        if (status == SFQ_OK) {
            assert_string_equal(codes->name, "m.codes");
            assert_string_equal(scales->name, "m.scales");
            assert_int_equal(aligned, (8 + strlen(cases[i].header)) % 64 == 0);
        }
        sfq_checkpoint_close(&ck);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_good),
        cmocka_unit_test(read_damaged),
        cmocka_unit_test(layer_exceptions),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(uniform_widths_need_no_exceptions),
        cmocka_unit_test(bind_packed),
    };
    return cmocka_run_group_tests(tests, files_open, files_close);
}
