/* unit/test_data_task.c - every layout that GLUE's files have, own data, what damaged ones get. */
#include "unit.h"

#include "data/task.h"

static sfq_error err;
static char dir[SCRATCH_ROOM];

static int setup(void **state)
{
    (void)state;
    scratch_open(dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    scratch_close(dir);
    return 0;
}

static sfq_dataset *open_split(const char *task, const char *split)
{
    sfq_dataset *data = NULL;
    assert_ok(sfq_dataset_open(&data, task, dir, split, NULL, 0, &err));
    return data;
}

static void expect(const sfq_dataset *data, size_t i, const char *text, const char *pair, int label)
{
    assert_true(i < data->count);
    const sfq_example *e = &data->examples[i];
    assert_string_equal(e->text, text);
    assert_int_equal(e->text_bytes, strlen(text));
    if (pair == NULL)
        assert_null(e->pair);
    else
        assert_string_equal(e->pair, pair);
    assert_int_equal(e->label, label);
}

static void refuse(const char *task, const char *file, const char *text, const char *part)
{
    sfq_dataset *data = NULL;
    scratch_put(dir, file, text);
    assert_fails(SFQ_E_DATA, part, sfq_dataset_open(&data, task, dir, "dev", NULL, 0, &err));
    assert_null(data);
    assert_non_null(strstr(err.file, file));
    assert_int_equal(unlink(scratch_path(dir, file)), 0);
}

/* ---- GLUE ------------------------------------------------------------------------------------ */

static void test_single(void **state)
{
    (void)state;
    scratch_put(dir, "dev.tsv", "sentence\tlabel\na \"quoted\" film . \t1\r\nbad\t0\n\n");
    sfq_dataset *data = open_split("sst2", "dev");
    assert_int_equal(data->count, 2);
    expect(data, 0, "a \"quoted\" film . ", NULL, 1);
    expect(data, 1, "bad", NULL, 0);
    sfq_dataset_close(&data);
    assert_null(data);
    scratch_put(dir, "dev.tsv", "gj04\t1\t\tThe sailors rode.\ngj04\t0\t*\tThe the.");
    data = open_split("cola", "dev");
    assert_int_equal(data->count, 2);
    expect(data, 0, "The sailors rode.", NULL, 1);
    expect(data, 1, "The the.", NULL, 0);
    assert_int_equal(data->task->metrics[0], SFQ_METRIC_MATTHEWS);
    sfq_dataset_close(&data);
}

static void test_pairs(void **state)
{
    (void)state;
    scratch_put(dir, "dev.tsv",
                "\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\t\" open\tb\n");
    sfq_dataset *data = open_split("mrpc", "dev");
    assert_int_equal(data->count, 1);
    expect(data, 0, "\" open", "b", 0);
    sfq_dataset_close(&data);
    scratch_put(dir, "dev.tsv",
                "index\tquestion\tsentence\tlabel\n0\tq?\ts.\tentailment\n"
                "1\tr?\tt.\tnot_entailment\n");
    data = open_split("qnli", "dev");
    expect(data, 0, "q?", "s.", 0);
    expect(data, 1, "r?", "t.", 1);
    sfq_dataset_close(&data);
    scratch_put(dir, "dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n");
    data = open_split("wnli", "dev");
    expect(data, 0, "a", "b", 1);
    sfq_dataset_close(&data);
}

static void test_mnli(void **state)
{
    (void)state;
    static const char *const hub[3] = {"CONTRADICTION", "NEUTRAL", "ENTAILMENT"};
    scratch_put(dir, "dev_matched.tsv",
                "index\tsentence1\tsentence2\tlabel1\tgold_label\n"
                "0\ta\tb\tneutral\tcontradiction\n"
                "1\tc\td\tneutral\tentailment\n");
    sfq_dataset *data = open_split("mnli", "dev");
    expect(data, 0, "a", "b", 2);
    expect(data, 1, "c", "d", 0);
    sfq_dataset_close(&data);
    assert_ok(sfq_dataset_open(&data, "mnli", dir, "dev_matched", hub, 3, &err));
    expect(data, 0, "a", "b", 0);
    expect(data, 1, "c", "d", 2);
    sfq_dataset_close(&data);
}

static void test_values(void **state)
{
    (void)state;
    scratch_put(dir, "dev.tsv", "index\tsentence1\tsentence2\tscore\n0\ta\tb\t4.750\n1\tc\td\t0\n");
    sfq_dataset *data = open_split("stsb", "dev");
    assert_int_equal(data->task->kind, SFQ_TASK_REGRESSION);
    assert_near((double)data->examples[0].value, 4.75, 0);
    assert_near((double)data->examples[1].value, 0, 0);
    sfq_dataset_close(&data);
    refuse("stsb", "dev.tsv", "sentence1\tsentence2\tscore\na\tb\t5.01\n", "line 2, column 3");
    refuse("stsb", "dev.tsv", "sentence1\tsentence2\tscore\na\tb\tnan\n", "line 2, column 3");
}

/* QQP as published has a few rows that end early; GLUE's readers leave them out. */
static void test_short_rows(void **state)
{
    (void)state;
    const char *header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n";
    char text[256];
    snprintf(text, sizeof text, "%s1\t2\t3\ta\tb\t1\n4\t5\t6\tbroken\n7\t8\t9\tc\td\t0\n", header);
    scratch_put(dir, "dev.tsv", text);
    sfq_dataset *data = open_split("qqp", "dev");
    assert_int_equal(data->count, 2);
    expect(data, 1, "c", "d", 0);
    sfq_dataset_close(&data);
    refuse("sst2", "dev.tsv", "sentence\tlabel\nonly text\n", "line 2, column 1");
}

static void test_damaged(void **state)
{
    (void)state;
    refuse("sst2", "dev.tsv", "", "empty");
    refuse("sst2", "dev.tsv", "sentence\tlabel\n", "no examples");
    refuse("sst2", "dev.tsv", "text\tlabel\na\t1\n", "no column \"sentence\"");
    refuse("sst2", "dev.tsv", "sentence\tlabel\na\t2\n", "line 2, column 2");
    refuse("sst2", "dev.tsv", "sentence\tlabel\na\t-1\n", "line 2, column 2");
    refuse("sst2", "dev.tsv", "sentence\tlabel\na\t0.5\n", "line 2, column 2");
    refuse("sst2", "dev.tsv", "sentence\tlabel\na\tyes\n", "\"yes\" is no label");
    refuse("sst2", "dev.tsv", "sentence\tlabel\na\t1\nb\xff\t1\n",
           "line 3: invalid UTF-8 at byte 20");
    refuse("rte", "dev.tsv", "sentence1\tsentence2\tlabel\na\tb\tperhaps\n", "line 2, column 3");
}

static void test_not_found(void **state)
{
    (void)state;
    sfq_dataset *data = NULL;
    assert_fails(SFQ_E_NOT_FOUND, "test.tsv",
                 sfq_dataset_open(&data, "sst2", dir, "test", NULL, 0, &err));
    assert_fails(SFQ_E_ARGUMENT, "none of sst2 mrpc",
                 sfq_dataset_open(&data, "sst3", dir, "dev", NULL, 0, &err));
    assert_fails(SFQ_E_ARGUMENT, "split",
                 sfq_dataset_open(&data, "sst2", dir, "../dev", NULL, 0, &err));
}

/* ---- own data -------------------------------------------------------------------------------- */

static const char *const names[2] = {"no", "yes"};

static void test_jsonl(void **state)
{
    (void)state;
    scratch_put(dir, "dev.jsonl",
                "{\"text\": \"tab\\t\\u00e9\", \"label\": 1}\n\n"
                "{\"label\": \"no\", \"text\": \"a\", \"text_pair\": \"b\"}");
    sfq_dataset *data = NULL;
    assert_ok(sfq_dataset_open(&data, NULL, dir, "dev", names, 2, &err));
    assert_int_equal(data->count, 2);
    expect(data, 0, "tab\t\xc3\xa9", NULL, 1);
    expect(data, 1, "a", "b", 0);
    sfq_dataset_close(&data);
    assert_ok(sfq_dataset_open(&data, "sst2", dir, "dev", names, 2, &err));
    expect(data, 1, "a", "b", 0);
    assert_string_equal(data->task->name, "sst2");
    sfq_dataset_close(&data);
    scratch_put(dir, "dev.jsonl", "{\"text\": \"a\", \"label\": -2.5}\n");
    assert_ok(sfq_dataset_open(&data, "own", dir, "dev", NULL, 1, &err));
    assert_near((double)data->examples[0].value, -2.5, 0);
    sfq_dataset_close(&data);
    refuse("sst2", "dev.jsonl", "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"a\"}\n", "line 2");
    refuse("sst2", "dev.jsonl", "{\"text\": 3, \"label\": 1}\n", "\"text\" must be a string");
    refuse("sst2", "dev.jsonl", "{\"text\": \"a\", \"label\": 7}\n", "line 1");
    refuse("sst2", "dev.jsonl", "{\"text\": \"a\", \"label\": 1}\n[1]\n", "line 2");
    refuse("sst2", "dev.jsonl", "{\"text\": \"a\"\n", "line 1");
}

static void test_csv(void **state)
{
    (void)state;
    scratch_put(dir, "dev.csv",
                "label,text,text_pair\r\n"
                "yes,\"two\nlines, \"\"quoted\"\"\",\r\n"
                "0,plain,\"\"\n");
    sfq_dataset *data = NULL;
    assert_ok(sfq_dataset_open(&data, NULL, dir, "dev", names, 2, &err));
    assert_int_equal(data->count, 2);
    expect(data, 0, "two\nlines, \"quoted\"", "", 1);
    expect(data, 1, "plain", "", 0);
    sfq_dataset_close(&data);
    refuse("sst2", "dev.csv", "text,label\n\"open,1\n", "line 2, column 1");
    refuse("sst2", "dev.csv", "text,label\na\"b,1\n", "line 2, column 1");
    refuse("sst2", "dev.csv", "text,label\n\"a\"b,1\n", "behind the closing quote");
    refuse("sst2", "dev.csv", "text,label\n\"a\n\nb\",1\nc,1,2\n", "line 5, column 3");
    refuse("sst2", "dev.csv", "text\na\n", "no column \"label\"");
    refuse("sst2", "dev.csv", "text,label\na,x\n", "line 2, column 2");
}

static void refuse_texts(const char *file, const char *text, const char *part)
{
    sfq_dataset *data = NULL;
    scratch_put(dir, file, text);
    assert_fails(SFQ_E_DATA, part, sfq_dataset_open_texts(&data, NULL, dir, "dev", names, 2, &err));
    assert_null(data);
    assert_int_equal(unlink(scratch_path(dir, file)), 0);
}

/* Where labels are not needed, those that are there are read and must be right. */
static void test_texts(void **state)
{
    (void)state;
    sfq_dataset *data = NULL;
    scratch_put(dir, "dev.jsonl",
                "{\"text\": \"a\"}\n{\"text\": \"b\", \"label\": null, \"text_pair\": \"c\"}\n"
                "{\"text\": \"d\", \"label\": \"yes\"}\n");
    assert_ok(sfq_dataset_open_texts(&data, NULL, dir, "dev", names, 2, &err));
    assert_int_equal(data->count, 3);
    assert_int_equal(data->labelled, 1);
    expect(data, 0, "a", NULL, 0);
    expect(data, 1, "b", "c", 0);
    expect(data, 2, "d", NULL, 1);
    assert_true(data->examples[2].labelled && !data->examples[1].labelled);
    sfq_dataset_close(&data);
    assert_int_equal(unlink(scratch_path(dir, "dev.jsonl")), 0);
    scratch_put(dir, "dev.csv", "text_pair,text\nb,a\n");
    assert_ok(sfq_dataset_open_texts(&data, NULL, dir, "dev", names, 2, &err));
    assert_int_equal(data->labelled, 0);
    expect(data, 0, "a", "b", 0);
    sfq_dataset_close(&data);
    scratch_put(dir, "dev.csv", "text,label\na,\nb,no\nc,1\n");
    assert_ok(sfq_dataset_open_texts(&data, NULL, dir, "dev", names, 2, &err));
    assert_int_equal(data->labelled, 2);
    expect(data, 2, "c", NULL, 1);
    sfq_dataset_close(&data);
    assert_int_equal(unlink(scratch_path(dir, "dev.csv")), 0);
    refuse("own", "dev.csv", "text,label\na,\n", "line 2, column 2");
    refuse("own", "dev.jsonl", "{\"text\": \"a\", \"label\": null}\n", "\"label\" must be");
    refuse_texts("dev.jsonl", "{\"text\": \"a\", \"label\": 7}\n", "line 1");
    refuse_texts("dev.jsonl", "{\"text\": \"a\", \"label\": []}\n", "\"label\" must be");
    refuse_texts("dev.csv", "text,label\na,maybe\n", "line 2, column 2");
    refuse_texts("dev.csv", "label\n1\n", "no column \"text\"");
}

static bool has_labels(const char *task)
{
    bool has = false;
    assert_ok(sfq_dataset_has_labels(&has, task, dir, "dev", names, 2, &err));
    return has;
}

static void test_has_labels(void **state)
{
    (void)state;
    bool has = true;
    assert_false(has_labels("own"));
    assert_false(has_labels("mine"));
    assert_fails(SFQ_E_NOT_FOUND, "no dev.tsv",
                 sfq_dataset_has_labels(&has, "sst2", dir, "dev", names, 2, &err));
    assert_false(has);
    scratch_put(dir, "dev.jsonl", "{\"text\": \"a\"}\n");
    assert_false(has_labels("own"));
    assert_false(has_labels("sst2"));
    scratch_put(dir, "dev.jsonl", "{\"text\": \"a\"}\n{\"text\": \"a\", \"label\": 1}\n");
    assert_true(has_labels("own"));
    scratch_put(dir, "dev.jsonl", "{\"text\": \"a\"}\n{\"text\": 1}\n");
    assert_fails(SFQ_E_DATA, "line 2",
                 sfq_dataset_has_labels(&has, "own", dir, "dev", names, 2, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_single, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pairs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mnli, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_short_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_jsonl, setup, teardown),
        cmocka_unit_test_setup_teardown(test_csv, setup, teardown),
        cmocka_unit_test_setup_teardown(test_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_has_labels, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
