/* A directory's weights: one file or shards, what the index may say, what is refused by name;
 * and how a model's name becomes a directory. */
#include "unit/format_files.h"

#include "format/checkpoint.h"

#define ONE(name) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}"
#define INDEX "model.safetensors.index.json"

static char notes[512];

static void keep_note(void *ud, sfq_log_level level, const char *message)
{
    (void)ud, (void)level;
    snprintf(notes, sizeof notes, "%s", message);
}

/* Two shards and a good index; the tests damage one thing each. */
static void good_shards(void)
{
    static const char *const old[] = {"model.safetensors", "pytorch_model.bin", INDEX};
    for (size_t i = 0; i < 3; i++)
        unlink(in_scratch(old[i]));
    put_safetensors("m-1.safetensors", ONE("b"), 3);
    put_safetensors("m-2.safetensors", ONE("a"), 3);
    put_text(INDEX, "{\"metadata\":{\"total_size\":6},\"weight_map\":{\"b\":\"m-1.safetensors\","
                    "\"a\":\"m-2.safetensors\"}}");
}

static bool stop(void *ud)
{
    return *(const bool *)ud;
}

/* Weights in huge pages are the file's, whatever becomes of it; a copy that is stopped leaves
 * everything as it was. */
static void copied(void **state)
{
    const bool now = true;
    const sfq_hooks hooks = {.ud = (void *)(uintptr_t)&now, .cancelled = stop};
    sfq_checkpoint *ck;
    (void)state;
    good_shards();
    assert_int_equal(sfq_checkpoint_open(&ck, scratch, NULL, NULL), SFQ_OK);
    const void *mapped = sfq_checkpoint_find(ck, "a")->data;
    assert_int_equal(sfq_checkpoint_copy(ck, NULL, &hooks, NULL), SFQ_E_INTERRUPTED);
    assert_ptr_equal(sfq_checkpoint_find(ck, "a")->data, mapped);
    assert_int_equal(sfq_checkpoint_copy(ck, NULL, NULL, NULL), SFQ_OK);
    assert_ptr_not_equal(sfq_checkpoint_find(ck, "a")->data, mapped);
    put_safetensors("m-2.safetensors", ONE("a"), 0); /* shorter in place: a map would fault */
    assert_memory_equal(sfq_checkpoint_find(ck, "a")->data, "\0\1\2", 3);
    assert_int_equal(sfq_checkpoint_copy(ck, NULL, NULL, NULL), SFQ_OK); /* nothing to do */
    sfq_checkpoint_close(&ck);
}

static void expect(sfq_status wanted, const char *words)
{
    sfq_checkpoint *ck = NULL;
    sfq_error err = {0};
    sfq_status status = sfq_checkpoint_open(&ck, scratch, NULL, &err);
    if (status != wanted || (words && !strstr(err.message, words)))
        fail_msg("%d \"%s\", expected %d \"%s\"", status, err.message, wanted, words);
    assert_int_equal(ck != NULL, status == SFQ_OK);
    sfq_checkpoint_close(&ck);
}

static void shards(void **state)
{
    const sfq_hooks hooks = {.log = keep_note};
    sfq_checkpoint *ck;
    (void)state;
    good_shards();
    assert_int_equal(sfq_checkpoint_open(&ck, scratch, &hooks, NULL), SFQ_OK);
    assert_string_equal(notes, "");
    assert_int_equal(sfq_checkpoint_count(ck), 2);
    assert_string_equal(sfq_checkpoint_at(ck, 0)->name, "a");
    assert_string_equal(sfq_checkpoint_at(ck, 1)->name, "b");
    assert_ptr_equal(sfq_checkpoint_find(ck, "b"), sfq_checkpoint_at(ck, 1));
    assert_null(sfq_checkpoint_find(ck, "c"));
    assert_string_equal(sfq_checkpoint_file(ck, "a"), in_scratch("m-2.safetensors"));
    assert_string_equal(sfq_checkpoint_file(ck, "c"), scratch);
    assert_int_equal(sfq_checkpoint_bytes(ck), 2 * (8 + strlen(ONE("a")) + 3));
    assert_int_equal(sfq_checkpoint_verify(ck, &hooks, NULL), SFQ_OK);
    sfq_checkpoint_close(&ck);
    put_text(INDEX, "{\"metadata\":{\"total_size\":7},\"weight_map\":{\"b\":\"m-1.safetensors\","
                    "\"a\":\"m-2.safetensors\"}}");
    assert_int_equal(sfq_checkpoint_open(&ck, scratch, &hooks, NULL), SFQ_OK);
    assert_non_null(strstr(notes, "total_size is 7, the tensors take 6"));
    sfq_checkpoint_close(&ck);
}

static void hostile_index(void **state)
{
    static const struct {
        const char *text;
        sfq_status status;
        const char *words;
    } cases[] = {
        {"", SFQ_E_FORMAT, INDEX},
        {"{}", SFQ_E_FORMAT, "weight_map is missing"},
        {"{\"weight_map\":[]}", SFQ_E_FORMAT, "weight_map is missing"},
        {"{\"weight_map\":{}}", SFQ_E_FORMAT, "empty"},
        {"{\"weight_map\":{\"a\":1}}", SFQ_E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"../m-2.safetensors\"}}", SFQ_E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"/etc/m.safetensors\"}}", SFQ_E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"..\\\\m.safetensors\"}}", SFQ_E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"x\\u0000.safetensors\"}}", SFQ_E_FORMAT, INDEX},
        {"{\"weight_map\":{\"a\":\"\"}}", SFQ_E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\".safetensors\"}}", SFQ_E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"m.bin\"}}", SFQ_E_FORMAT, "plain name"},
        {"{\"weight_map\":{\"a\":\"m-3.safetensors\"}}", SFQ_E_NOT_FOUND,
         "m-3.safetensors is missing"},
        {"{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}", SFQ_E_FORMAT,
         "it lies in m-2.safetensors"},
        {"{\"weight_map\":{\"a\":\"m-2.safetensors\",\"b\":\"m-1.safetensors\","
         "\"c\":\"m-1.safetensors\"}}",
         SFQ_E_FORMAT, "no shard holds it"},
        {"{\"weight_map\":{\"a\":\"m-2.safetensors\",\"a\":\"m-2.safetensors\"}}", SFQ_E_FORMAT,
         "duplicate"},
    };
    (void)state;
    good_shards();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_text(INDEX, cases[i].text);
        expect(cases[i].status, cases[i].words);
    }
}

static void hostile_shards(void **state)
{
    (void)state;
    good_shards();
    put_safetensors("m-2.safetensors",
                    "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                    "\"x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[3,3]}}",
                    3);
    expect(SFQ_E_FORMAT, "tensor x of m-2.safetensors is not in the index");
    put_safetensors("m-2.safetensors",
                    "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                    "\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[3,3]}}",
                    3);
    expect(SFQ_E_FORMAT, "tensor b: duplicate, m-1.safetensors and m-2.safetensors");
    unlink(in_scratch("m-2.safetensors"));
    assert_int_equal(symlink("m-1.safetensors", in_scratch("m-2.safetensors")), 0);
    expect(SFQ_E_FORMAT, "tensor b: duplicate");
    unlink(in_scratch("m-2.safetensors"));
    assert_int_equal(symlink("/etc/passwd", in_scratch("m-2.safetensors")), 0);
    expect(SFQ_E_FORMAT, "m-2.safetensors");
    unlink(in_scratch("m-2.safetensors"));
    assert_int_equal(mkfifo(in_scratch("m-2.safetensors"), 0600), 0);
    expect(SFQ_E_ARGUMENT, "m-2.safetensors");
    unlink(in_scratch("m-2.safetensors"));
    assert_int_equal(mkdir(in_scratch("m-2.safetensors"), 0700), 0);
    expect(SFQ_E_ARGUMENT, "m-2.safetensors");
    rmdir(in_scratch("m-2.safetensors"));
    /* the blobs of the Hugging Face cache: a link to a good file is as good as the file */
    put_safetensors("blob", ONE("a"), 3);
    assert_int_equal(symlink("blob", in_scratch("m-2.safetensors")), 0);
    expect(SFQ_OK, NULL);
    unlink(in_scratch("m-2.safetensors"));
}

static void single_wins_and_pickle_is_refused(void **state)
{
    (void)state;
    good_shards();
    unlink(in_scratch(INDEX));
    expect(SFQ_E_NOT_FOUND, "neither model.safetensors nor");
    put_text("pytorch_model.bin", "\x80\x02");
    expect(SFQ_E_UNSUPPORTED, "pytorch_model.bin");
    put_safetensors("model.safetensors", ONE("w"), 3);
    expect(SFQ_OK, NULL);
    put_text(INDEX, "{");
    expect(SFQ_OK, NULL);
    assert_int_equal(unlink(in_scratch("model.safetensors")), 0);
    assert_int_equal(symlink("nowhere", in_scratch("model.safetensors")), 0);
    expect(SFQ_E_NOT_FOUND, "model.safetensors");
}

/* xxh3 of bytes 0, 1, 2 by the xxHash library (xxh3_64bits), and what a wrong one gives. */
static void verify(void **state)
{
    static const struct {
        const char *header;
        size_t data;
        sfq_status status;
        const char *words;
    } cases[] = {
        {"{\"__metadata__\":{\"xxh3:w\":\"5f4299fc161c9cbb\"},\"w\":{\"dtype\":\"U8\",\"shape\":[3]"
         ","
         "\"data_offsets\":[0,3]}}",
         3, SFQ_OK, ""},
        {"{\"__metadata__\":{\"xxh3:w\":\"5f4299fc161c9cbc\"},\"w\":{\"dtype\":\"U8\",\"shape\":[3]"
         ","
         "\"data_offsets\":[0,3]}}",
         3, SFQ_E_CHECKSUM, "tensor w: xxh3 is 5f4299fc161c9cbb"},
        {"{\"__metadata__\":{\"xxh3:w\":\"\"},\"w\":{\"dtype\":\"U8\",\"shape\":[3],"
         "\"data_offsets\":[0,3]}}",
         3, SFQ_E_CHECKSUM, "tensor w"},
        /* data bytes 0..127: the half at 124 is 0x7d7c, NaN */
        {"{\"w\":{\"dtype\":\"F16\",\"shape\":[64],\"data_offsets\":[0,128]}}", 128, SFQ_E_NUMERIC,
         "tensor w: element 62"},
        {"{\"w\":{\"dtype\":\"F16\",\"shape\":[62],\"data_offsets\":[0,124]}}", 124, SFQ_OK, ""},
    };
    (void)state;
    good_shards();
    unlink(in_scratch(INDEX));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sfq_checkpoint *ck = NULL;
        sfq_error err = {0};
        put_safetensors("model.safetensors", cases[i].header, cases[i].data);
        assert_int_equal(sfq_checkpoint_open(&ck, scratch, NULL, &err), SFQ_OK);
        sfq_status status = sfq_checkpoint_verify(ck, NULL, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].words))
            fail_msg("case %zu: %d \"%s\"", i, status, err.message);
        sfq_checkpoint_close(&ck);
    }
}

static void resolves(const char *model, sfq_status wanted, const char *words)
{
    char *dir = NULL;
    sfq_error err = {0};
    sfq_status status = sfq_model_dir_resolve(&dir, model, &err);
    const char *found = status == SFQ_OK ? dir : err.message;
    if (status != wanted || !strstr(found, words))
        fail_msg("%s: %d \"%s\", expected \"%s\"", model, status, found, words);
    free(dir);
}

static void names_of_models(void **state)
{
    (void)state;
    setenv("HF_HUB_CACHE", in_scratch("hub"), 1);
    resolves("models/sst2-tiny", SFQ_OK, "models/sst2-tiny");
    resolves("models/sst2-tiny/config.json", SFQ_E_ARGUMENT, "is no directory");
    resolves("/nowhere/at/all", SFQ_E_NOT_FOUND, "no such directory");
    resolves("../no-such-sibling", SFQ_E_NOT_FOUND, "no such directory");
    resolves("", SFQ_E_NOT_FOUND, "\"\": no such directory");
    resolves("org/name", SFQ_E_NOT_FOUND, "hub/models--org--name/refs/main");
    mkdir(in_scratch("hub"), 0700);
    mkdir(in_scratch("hub/models--org--name"), 0700);
    mkdir(in_scratch("hub/models--org--name/refs"), 0700);
    mkdir(in_scratch("hub/models--org--name/snapshots"), 0700);
    put_text("hub/models--org--name/refs/main", "abc123\n");
    resolves("org/name", SFQ_E_NOT_FOUND, "snapshots/abc123");
    mkdir(in_scratch("hub/models--org--name/snapshots/abc123"), 0700);
    resolves("org/name", SFQ_OK, "hub/models--org--name/snapshots/abc123");
    put_text("hub/models--org--name/refs/main", "../..");
    resolves("org/name", SFQ_E_FORMAT, "name of a commit");
    put_text("hub/models--org--name/refs/main", "");
    resolves("org/name", SFQ_E_FORMAT, "name of a commit");
    unsetenv("HF_HUB_CACHE");
    setenv("HF_HOME", in_scratch("home"), 1);
    resolves("gpt2", SFQ_E_NOT_FOUND, "home/hub/models--gpt2/refs/main");
    unsetenv("HF_HOME");
    setenv("XDG_CACHE_HOME", in_scratch("xdg"), 1);
    resolves("gpt2", SFQ_E_NOT_FOUND, "xdg/huggingface/hub/models--gpt2");
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", in_scratch("user"), 1);
    resolves("gpt2", SFQ_E_NOT_FOUND, "user/.cache/huggingface/hub/models--gpt2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards),
        cmocka_unit_test(copied),
        cmocka_unit_test(hostile_index),
        cmocka_unit_test(hostile_shards),
        cmocka_unit_test(single_wins_and_pickle_is_refused),
        cmocka_unit_test(verify),
        cmocka_unit_test(names_of_models),
    };
    return cmocka_run_group_tests(tests, files_open, files_close);
}
