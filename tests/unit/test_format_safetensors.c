/* Reading one safetensors file: what is accepted, and for each rule of the format a file that
 * breaks it, with the code and the words of its message. */
#include "unit/format_files.h"

#include "format/safetensors.h"
#include "format/st_header.h"

#define T(name, dtype, shape, extent) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" extent "]}"

static const struct {
    const char *header;
    size_t data;
    sfq_status status;
    const char *words; /* part of the message */
} cases[] = {
    {"{" T("a", "F32", "2", "0,8") "}", 8, SFQ_OK, ""},
    {"{ \"a\" : {\"data_offsets\":[0,8] , \"shape\":[2 ] ,\"dtype\":\"F32\"} }  \n ", 8, SFQ_OK,
     ""},
    {"{}", 0, SFQ_OK, ""},
    {"{\"__metadata__\":{}}", 0, SFQ_OK, ""},
    {"{" T("s", "F16", "", "0,2") "}", 2, SFQ_OK, ""},
    {"{" T("e", "F16", "0,7", "0,0") "}", 0, SFQ_OK, ""},
    {"{" T("e", "F16", "0", "4,4") "," T("a", "F32", "1", "0,4") "}", 4, SFQ_OK, ""},
    {"{" T("a/\\u00e9\\ud83d\\ude00\\n", "U8", "1", "0,1") "}", 1, SFQ_OK, ""},
    /* syntax */
    {"", 0, SFQ_E_FORMAT, "begins with"},
    {"{", 0, SFQ_E_FORMAT, "header byte 1"},
    {"[]", 0, SFQ_E_FORMAT, "begins with"},
    {" {}", 0, SFQ_E_FORMAT, "begins with"},
    {"\xef\xbb\xbf{}", 0, SFQ_E_FORMAT, "begins with"},
    {"{}x", 0, SFQ_E_FORMAT, "behind the header's object"},
    {"{\"a\":1}", 0, SFQ_E_FORMAT, "expected '{'"},
    {"{\"a\":{}}", 0, SFQ_E_FORMAT, "expected '\"'"},
    {"{\"\xff\":{}}", 0, SFQ_E_FORMAT, "not UTF-8"},
    {"{\"\xc0\x80\":{}}", 0, SFQ_E_FORMAT, "not UTF-8"},
    {"{\"\\ud800\":{}}", 0, SFQ_E_FORMAT, "surrogate"},
    {"{\"\\ud800\\u0041\":{}}", 0, SFQ_E_FORMAT, "surrogate"},
    {"{\"\\udc00\":{}}", 0, SFQ_E_FORMAT, "surrogate"},
    {"{\"\\u0000\":{}}", 0, SFQ_E_FORMAT, "NUL"},
    {"{\"\\x\":{}}", 0, SFQ_E_FORMAT, "escape"},
    {"{\"a\nb\":{}}", 0, SFQ_E_FORMAT, "control character"},
    {"{" T("a", "F32", "1", "0,4") ",}", 4, SFQ_E_FORMAT, "expected '\"'"},
    /* members */
    {"{" T("", "U8", "1", "0,1") "}", 1, SFQ_E_FORMAT, "without a name"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, SFQ_E_FORMAT, "is missing"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     SFQ_E_FORMAT, "duplicate key"},
    {"{\"a\":{\"dtype\":\"F32\",\"extra\":[],\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     SFQ_E_FORMAT, "nothing else"},
    {"{" T("a", "F33", "1", "0,4") "}", 4, SFQ_E_FORMAT, "unknown dtype \"F33\""},
    {"{" T("a", "I32", "1", "0,4") "}", 4, SFQ_E_FORMAT, "I32 is not read"},
    {"{" T("a", "F64", "1", "0,8") "}", 8, SFQ_E_UNSUPPORTED, "F64 is not read"},
    {"{" T("a", "F64", "1", "0,4") "}", 4, SFQ_E_FORMAT, "F64 need 8 bytes"},
    {"{" T("a", "F4", "3", "0,2") "}", 2, SFQ_E_FORMAT, "whole number of bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, SFQ_E_FORMAT,
     "expected '['"},
    {"{" T("a", "F32", "1e3", "0,4") "}", 4, SFQ_E_FORMAT, "without fraction"},
    {"{" T("a", "F32", "1.0", "0,4") "}", 4, SFQ_E_FORMAT, "without fraction"},
    {"{" T("a", "F32", "-0", "0,4") "}", 4, SFQ_E_FORMAT, "whole number >= 0"},
    {"{" T("a", "F32", "01", "0,4") "}", 4, SFQ_E_FORMAT, "leading zero"},
    {"{" T("a", "F32", "18446744073709551616", "0,4") "}", 4, SFQ_E_FORMAT, "64 bits"},
    {"{" T("a", "U8", "1,1,1,1,1,1,1,1,1", "0,1") "}", 1, SFQ_E_LIMIT, "more than 8"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, SFQ_E_FORMAT,
     "two numbers"},
    {"{" T("a", "F32", "1", "-4,0") "}", 4, SFQ_E_FORMAT, "whole number >= 0"},
    /* arithmetic */
    {"{" T("a", "U8", "2,18446744073709551614", "0,4") "}", 4, SFQ_E_FORMAT,
     "product of its shape"},
    {"{" T("a", "U8", "4194305,4194305,211106198978564", "0,4") "}", 4, SFQ_E_FORMAT,
     "product of its shape"},
    {"{" T("a", "F32", "4611686018427387905", "0,4") "}", 4, SFQ_E_FORMAT, "size passes 64 bits"},
    /* extents */
    {"{" T("a", "F32", "1", "4,0") "}", 4, SFQ_E_FORMAT, "end before they begin"},
    {"{" T("a", "F32", "2", "0,4") "}", 4, SFQ_E_FORMAT, "need 8 bytes, data_offsets hold 4"},
    {"{" T("a", "F32", "2", "0,8") "}", 7, SFQ_E_FORMAT, "truncated"},
    {"{" T("a", "F32", "2", "0,8") "}", 9, SFQ_E_FORMAT, "behind the last tensor"},
    {"{" T("a", "U8", "4", "0,4") "," T("b", "U8", "4", "3,7") "}", 7, SFQ_E_FORMAT, "overlaps"},
    {"{" T("a", "U8", "4", "0,4") "," T("b", "U8", "4", "0,4") "}", 4, SFQ_E_FORMAT, "overlaps"},
    {"{" T("a", "U8", "4", "0,4") "," T("b", "U8", "4", "5,9") "}", 9, SFQ_E_FORMAT, "hole"},
    {"{" T("a", "U8", "1", "1,2") "}", 2, SFQ_E_FORMAT, "hole"},
    {"{" T("e", "U8", "0", "1,1") "," T("a", "U8", "2", "0,2") "}", 2, SFQ_E_FORMAT, "overlaps"},
    {"{" T("a", "U8", "18446744073709551615", "0,18446744073709551615") "}", 4, SFQ_E_FORMAT,
     "size passes"},
    {"{" T("a", "U8", "2305843009213693951", "0,2305843009213693951") "}", 4, SFQ_E_FORMAT,
     "truncated"},
    /* names and metadata */
    {"{" T("a", "U8", "1", "0,1") "," T("\\u0061", "U8", "1", "1,2") "}", 2, SFQ_E_FORMAT,
     "duplicate name"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, SFQ_E_FORMAT, "duplicate __metadata__"},
    {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, SFQ_E_FORMAT, "duplicate key k"},
    {"{\"__metadata__\":{\"k\":1}}", 0, SFQ_E_FORMAT, "not a string"},
    {"{\"__metadata__\":[]}", 0, SFQ_E_FORMAT, "expected '{'"},
    {"{\"a\":[[[[[[[[[[", 0, SFQ_E_FORMAT, "expected '{'"},
};

static void every_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *path = put_safetensors("m.safetensors", cases[i].header, cases[i].data);
        sfq_safetensors *st = NULL;
        sfq_error err = {0};
        sfq_status status = sfq_safetensors_open(&st, path, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].words))
            fail_msg("case %zu %s: %d \"%s\"", i, cases[i].header, status, err.message);
        assert_int_equal(st != NULL, status == SFQ_OK);
        if (status != SFQ_OK)
            assert_non_null(strstr(err.message, "m.safetensors"));
        sfq_safetensors_close(&st);
        assert_null(st);
    }
}

static sfq_status open_bytes(const void *data, size_t n, sfq_error *err)
{
    sfq_safetensors *st = NULL;
    sfq_status status = sfq_safetensors_open(&st, put_file("m.safetensors", data, n), err);
    sfq_safetensors_close(&st);
    return status;
}

/* The first eight bytes: too few of them, and lengths at the edges. */
static void header_lengths(void **state)
{
    static const uint64_t lengths[] = {0, 1, 3, 100000001, 1ull << 63, UINT64_MAX - 7, UINT64_MAX};
    unsigned char file[10] = "\0\0\0\0\0\0\0\0{}";
    sfq_error err;
    (void)state;
    for (size_t n = 0; n < 8; n++)
        assert_int_equal(open_bytes(file, n, &err), SFQ_E_FORMAT);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (int b = 0; b < 8; b++)
            file[b] = (unsigned char)(lengths[i] >> (8 * b));
        assert_int_equal(open_bytes(file, sizeof file, &err), SFQ_E_FORMAT);
    }
    memcpy(file, "\2\0\0\0\0\0\0\0", 8);
    assert_int_equal(open_bytes(file, sizeof file, &err), SFQ_OK);
}

/* No truncation and no single flipped bit of a small file's header crashes, and what is still
 * accepted keeps its extents inside the file. */
static void truncated_and_flipped(void **state)
{
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],"
        "\"data_offsets\":[0,24]},\"b\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[24,30]}"
        "}";
    unsigned char file[512];
    size_t n = 8 + strlen(header) + 30, refused = 0;
    sfq_error err;
    (void)state;
    memset(file, 1, sizeof file);
    memcpy(file, "\0\0\0\0\0\0\0", 8);
    file[0] = (unsigned char)strlen(header);
    memcpy(file + 8, header, strlen(header));
    assert_int_equal(open_bytes(file, n, &err), SFQ_OK);
    for (size_t cut = 0; cut < n; cut++)
        assert_int_equal(open_bytes(file, cut, &err), SFQ_E_FORMAT);
    for (size_t bit = 0; bit < 8 * (8 + strlen(header)); bit++) {
        file[bit / 8] ^= (unsigned char)(1u << bit % 8);
        refused += open_bytes(file, n, &err) != SFQ_OK;
        file[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    assert_true(refused > 8 * 100); /* what remains are letters of names and of metadata */
}

static void what_is_read(void **state)
{
    const char *path = put_safetensors(
        "m.safetensors",
        "{\"__metadata__\":{\"z\":\"1\",\"format\":\"p\\\"t\"},\"w\":{\"dtype\":\"I8\",\"shape\":"
        "[2,3],\"data_offsets\":[4,10]},\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":"
        "[0,4]}}",
        10);
    sfq_safetensors *st;
    const sfq_tensor *t;
    (void)state;
    assert_int_equal(sfq_safetensors_open(&st, path, NULL), SFQ_OK);
    assert_int_equal(sfq_safetensors_count(st), 2);
    assert_string_equal(sfq_safetensors_at(st, 0)->name, "b");
    t = sfq_safetensors_find(st, "w");
    assert_ptr_equal(t, sfq_safetensors_at(st, 1));
    assert_int_equal(t->dtype, SFQ_I8);
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->count, 6);
    assert_int_equal(t->bytes, 6);
    assert_int_equal(((const unsigned char *)t->data)[0], 4);
    assert_null(sfq_safetensors_find(st, "v"));
    assert_string_equal(sfq_safetensors_metadata(st, "format"), "p\"t");
    assert_string_equal(sfq_safetensors_metadata(st, "z"), "1");
    assert_null(sfq_safetensors_metadata(st, "y"));
    sfq_safetensors_close(&st);
}

/* Bounds that keep the memory small: tensors, length of a name, nesting. */
static void limits(void **state)
{
    const char *path = in_scratch("m.safetensors");
    sfq_safetensors *st;
    sfq_error err;
    FILE *f = fopen(path, "wb");
    long end;
    (void)state;
    fputs("12345678{", f);
    for (unsigned i = 0; i <= SFQ_ST_MAX_TENSORS; i++)
        fprintf(f, "%s\"%u\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "",
                i);
    fputs("}", f);
    end = ftell(f) - 8;
    rewind(f);
    for (int b = 0; b < 8; b++)
        fputc((int)(end >> (8 * b) & 0xff), f);
    fclose(f);
    assert_int_equal(sfq_safetensors_open(&st, path, &err), SFQ_E_LIMIT);
    assert_non_null(strstr(err.message, "131072 tensors"));

    char header[SFQ_ST_MAX_NAME + 100];
    memset(header, 'n', sizeof header);
    memcpy(header, "{\"", 2);
    snprintf(header + SFQ_ST_MAX_NAME + 3, 90,
             "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    path = put_safetensors("m.safetensors", header, 0);
    assert_int_equal(sfq_safetensors_open(&st, path, &err), SFQ_E_LIMIT);
    assert_non_null(strstr(err.message, "limit 4096"));
}

static void no_regular_file(void **state)
{
    sfq_safetensors *st;
    sfq_error err;
    (void)state;
    assert_int_equal(sfq_safetensors_open(&st, in_scratch("none"), &err), SFQ_E_NOT_FOUND);
    assert_int_equal(mkfifo(in_scratch("pipe"), 0600), 0);
    assert_int_equal(sfq_safetensors_open(&st, in_scratch("pipe"), &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_safetensors_open(&st, scratch, &err), SFQ_E_ARGUMENT);
    assert_int_equal(sfq_safetensors_open(&st, "/dev/zero", &err), SFQ_E_ARGUMENT);
}

static void models_of_the_repository(void **state)
{
    sfq_safetensors *st;
    (void)state;
    assert_int_equal(sfq_safetensors_open(&st, "models/sst2-tiny/model.safetensors", NULL), SFQ_OK);
    assert_int_equal(sfq_safetensors_bytes(st), 2710236);
    assert_int_equal(sfq_safetensors_find(st, "classifier.weight")->shape[1], 128);
    sfq_safetensors_close(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule),
        cmocka_unit_test(header_lengths),
        cmocka_unit_test(what_is_read),
        cmocka_unit_test(truncated_and_flipped),
        cmocka_unit_test(limits),
        cmocka_unit_test(no_regular_file),
        cmocka_unit_test(models_of_the_repository),
    };
    return cmocka_run_group_tests(tests, files_open, files_close);
}
