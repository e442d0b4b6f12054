/* Writing safetensors files: what is read back, the exact bytes of a small file, the order of puts,
 * and misuse. */
#include "unit/format_files.h"

#include "base/mem.h"
#include "format/checkpoint.h"

static sfq_outdir *open_out(const char *name)
{
    sfq_outdir *dir = NULL;
    sfq_error err = {0};
    if (sfq_outdir_open(&dir, in_scratch(name), true, &err) != SFQ_OK)
        fail_msg("%s", err.message);
    return dir;
}

/* model.safetensors with tensors w [2,3] U8, s [] F32, e [0] F16; puts in the order given. */
static void write_three(const char *target, const size_t order[2])
{
    static const unsigned char w[6] = {1, 2, 3, 4, 5, 6};
    static const uint64_t w_shape[] = {2, 3}, e_shape[] = {0};
    static const float s = 0.5f;
    sfq_outdir *dir = open_out(target);
    sfq_st_writer *writer;
    assert_int_equal(sfq_st_writer_open(&writer, dir, "model.safetensors", NULL), SFQ_OK);
    assert_int_equal(sfq_st_writer_metadata(writer, "sfq_version", "0.\"1\\\n", NULL), SFQ_OK);
    assert_int_equal(sfq_st_writer_metadata(writer, "format", "pt", NULL), SFQ_OK);
    assert_int_equal(sfq_st_writer_declare(writer, "w", SFQ_U8, 2, w_shape, NULL), SFQ_OK);
    assert_int_equal(sfq_st_writer_declare(writer, "s", SFQ_F32, 0, NULL, NULL), SFQ_OK);
    assert_int_equal(sfq_st_writer_declare(writer, "e", SFQ_F16, 1, e_shape, NULL), SFQ_OK);
    const uint64_t size = sfq_st_writer_size(writer);
    assert_int_equal(sfq_st_writer_begin(writer, NULL), SFQ_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(order[i] == 0 ? sfq_st_writer_put(writer, 0, w, sizeof w, NULL)
                                       : sfq_st_writer_put(writer, 1, &s, sizeof s, NULL),
                         SFQ_OK);
    assert_int_equal(sfq_st_writer_finish(&writer, NULL), SFQ_OK);
    assert_null(writer);
    assert_int_equal(sfq_outdir_put(dir, "config.json", "{}", 2, NULL), SFQ_OK);
    assert_int_equal(sfq_outdir_commit(&dir, NULL, NULL), SFQ_OK);
    char path[SCRATCH_ROOM + 64];
    uint64_t found;
    snprintf(path, sizeof path, "%s/%s/model.safetensors", scratch, target);
    assert_int_equal(sfq_file_size(&found, path, NULL), SFQ_OK);
    assert_int_equal(found, size);
}

static void exact_bytes(void **state)
{
    /* xxh3 of the empty string is 2d06800538d394c2 (test vector of the xxHash project) */
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\",\"sfq_version\":\"0.\\\"1\\\\\\u000a\","
        "\"xxh3:w\":\"%16s\",\"xxh3:s\":\"%16s\",\"xxh3:e\":\"2d06800538d394c2\"},"
        "\"w\":{\"dtype\":\"U8\",\"shape\":[2,3],\"data_offsets\":[0,6]},"
        "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[6,10]},"
        "\"e\":{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[10,10]}}";
    sfq_checkpoint *ck;
    sfq_safetensors *st;
    sfq_buf bytes = SFQ_BUF_INIT(4096);
    char text[1024];
    (void)state;
    write_three("out", (const size_t[]){1, 0});
    assert_int_equal(sfq_checkpoint_open(&ck, in_scratch("out"), NULL, NULL), SFQ_OK);
    assert_int_equal(sfq_checkpoint_verify(ck, NULL, NULL), SFQ_OK);
    assert_int_equal(sfq_checkpoint_count(ck), 3);
    const sfq_tensor *w = sfq_checkpoint_find(ck, "w");
    assert_memory_equal(w->data, "\1\2\3\4\5\6", 6);
    assert_int_equal((uintptr_t)w->data % 64, 0);
    sfq_checkpoint_close(&ck);
    assert_int_equal(sfq_safetensors_open(&st, in_scratch("out/model.safetensors"), NULL), SFQ_OK);
    assert_string_equal(sfq_safetensors_metadata(st, "sfq_version"), "0.\"1\\\n");
    snprintf(text, sizeof text, header, sfq_safetensors_metadata(st, "xxh3:w"),
             sfq_safetensors_metadata(st, "xxh3:s"));
    sfq_safetensors_close(&st);
    assert_int_equal(sfq_file_read(&bytes, in_scratch("out/model.safetensors"), 4096, NULL),
                     SFQ_OK);
    assert_int_equal(bytes.len % 64, 10);
    assert_memory_equal(bytes.data + 8, text, strlen(text));
    assert_int_equal((unsigned char)bytes.data[0] + 256 * (unsigned char)bytes.data[1],
                     bytes.len - 10 - 8);
    sfq_buf_free(&bytes);
}

static void same_bytes_in_any_order(void **state)
{
    sfq_buf a = SFQ_BUF_INIT(4096), b = SFQ_BUF_INIT(4096);
    (void)state;
    write_three("one", (const size_t[]){0, 1});
    write_three("two", (const size_t[]){1, 0});
    assert_int_equal(sfq_file_read(&a, in_scratch("one/model.safetensors"), 4096, NULL), SFQ_OK);
    assert_int_equal(sfq_file_read(&b, in_scratch("two/model.safetensors"), 4096, NULL), SFQ_OK);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    sfq_buf_free(&a);
    sfq_buf_free(&b);
}

static void nothing_declared(void **state)
{
    sfq_outdir *dir = open_out("empty");
    sfq_st_writer *writer;
    sfq_checkpoint *ck;
    (void)state;
    assert_int_equal(sfq_st_writer_open(&writer, dir, "model.safetensors", NULL), SFQ_OK);
    assert_int_equal(sfq_st_writer_begin(writer, NULL), SFQ_OK);
    assert_int_equal(sfq_st_writer_finish(&writer, NULL), SFQ_OK);
    assert_int_equal(sfq_outdir_commit(&dir, NULL, NULL), SFQ_OK);
    assert_int_equal(sfq_checkpoint_open(&ck, in_scratch("empty"), NULL, NULL), SFQ_OK);
    assert_int_equal(sfq_checkpoint_count(ck), 0);
    sfq_checkpoint_close(&ck);
}

static void misuse(void **state)
{
    static const uint64_t shape[] = {3}, huge[] = {UINT64_MAX, 3};
    sfq_outdir *dir = open_out("bad");
    sfq_st_writer *w;
    sfq_error err;
    (void)state;
    assert_int_equal(sfq_st_writer_open(&w, dir, "m.safetensors", NULL), SFQ_OK);
    assert_int_equal(sfq_st_writer_metadata(w, "format", "tf", &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_st_writer_metadata(w, "k", "\xff", &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_st_writer_declare(w, "", SFQ_U8, 1, shape, &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_st_writer_declare(w, "\xff", SFQ_U8, 1, shape, &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_st_writer_declare(w, "__metadata__", SFQ_U8, 1, shape, &err),
                     SFQ_E_ARGUMENT);
    assert_int_equal(sfq_st_writer_declare(w, "h", SFQ_U8, 2, huge, &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_st_writer_declare(w, "h", SFQ_U8, 9, huge, &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_st_writer_put(w, 0, "abc", 3, &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_st_writer_declare(w, "a", SFQ_U8, 1, shape, &err), SFQ_OK);
    assert_int_equal(sfq_st_writer_begin(w, &err), SFQ_OK);
    assert_int_equal(sfq_st_writer_declare(w, "b", SFQ_U8, 1, shape, &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_st_writer_put(w, 0, "ab", 2, &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_st_writer_put(w, 1, "abc", 3, &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_st_writer_finish(&w, &err), SFQ_E_ARGUMENT);
    assert_non_null(strstr(err.message, "never written"));
    assert_null(w);
    assert_int_equal(sfq_st_writer_open(&w, dir, "n.safetensors", NULL), SFQ_OK);
    assert_int_equal(sfq_st_writer_declare(w, "a", SFQ_U8, 1, shape, &err), SFQ_OK);
    assert_int_equal(sfq_st_writer_declare(w, "a", SFQ_U8, 1, shape, &err), SFQ_OK);
    assert_int_equal(sfq_st_writer_begin(w, &err), SFQ_E_ARGUMENT);
    assert_non_null(strstr(err.message, "declared twice"));
    sfq_st_writer_abort(&w);
    sfq_outdir_abort(&dir);
    assert_false(sfq_file_exists(in_scratch("bad")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_bytes),
        cmocka_unit_test(same_bytes_in_any_order),
        cmocka_unit_test(nothing_declared),
        cmocka_unit_test(misuse),
    };
    return cmocka_run_group_tests(tests, files_open, files_close);
}
