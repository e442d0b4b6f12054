/* unit/test_runtime_decode.c - decoding: a session takes its memory when it is opened and fed its
 * prompt, and none per token; four threads on two processors end, with the bits of one. Contexts
 * of more than 512 keys, so that attention over spans is in it. */
#include "unit/format_files.h"

#include "base/sys.h"
#include "runtime/session.h"

#include <sched.h>
#include <stdatomic.h>

enum { PROMPT = 470, STEPS = 100, VOCAB = 640, CAPACITY = PROMPT + STEPS };

/* An odd ffn width, grouped heads, matrices of more than one segment (ffn 2112). */
static const char MODEL[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 192, "
    "\"intermediate_size\": 2112, \"num_hidden_layers\": 2, \"num_attention_heads\": 6, "
    "\"num_key_value_heads\": 3, \"head_dim\": 32, \"vocab_size\": 640, "
    "\"max_position_embeddings\": 1024, \"hidden_act\": \"silu\"}";

static sfq_error err;

/* ---- the heap ---- */

static atomic_size_t heap_calls;

void *__real_sfq_sys_malloc(size_t n);
void *__real_sfq_sys_calloc(size_t n, size_t size);
void *__real_sfq_sys_realloc(void *p, size_t n);
void *__real_sfq_sys_memalign(size_t align, size_t n);
void *__wrap_sfq_sys_malloc(size_t n);
void *__wrap_sfq_sys_calloc(size_t n, size_t size);
void *__wrap_sfq_sys_realloc(void *p, size_t n);
void *__wrap_sfq_sys_memalign(size_t align, size_t n);

void *__wrap_sfq_sys_malloc(size_t n)
{
    atomic_fetch_add(&heap_calls, 1);
    return __real_sfq_sys_malloc(n);
}

void *__wrap_sfq_sys_calloc(size_t n, size_t size)
{
    atomic_fetch_add(&heap_calls, 1);
    return __real_sfq_sys_calloc(n, size);
}

void *__wrap_sfq_sys_realloc(void *p, size_t n)
{
    atomic_fetch_add(&heap_calls, 1);
    return __real_sfq_sys_realloc(p, n);
}

void *__wrap_sfq_sys_memalign(size_t align, size_t n)
{
    atomic_fetch_add(&heap_calls, 1);
    return __real_sfq_sys_memalign(align, n);
}

/* ---- a session ---- */

typedef struct timeline {
    int32_t token[STEPS];
    float logits[VOCAB]; /* behind the last token */
} timeline;

static sfq_engine *open_engine(int bits, int threads, int kv_bits)
{
    const sfq_bench_shape shape = {.shape = in_scratch("config.json"), .bits = bits};
    const sfq_model_options o = {.struct_size = sizeof o, .threads = threads, .kv_bits = kv_bits};
    sfq_engine *engine = NULL;
    assert_ok(sfq_engine_open_shape(&engine, &shape, &o, &err));
    return engine;
}

/* A prompt, then STEPS tokens, sampled and fed; what the heap was asked for while they were. */
static size_t decode(timeline *out, int bits, int threads, int kv_bits)
{
    sfq_engine *engine = open_engine(bits, threads, kv_bits);
    sfq_session *session = NULL;
    sfq_sampling sampling;
    int32_t prompt[PROMPT];
    sfq_sampling_default(&sampling);
    sampling.temperature = 0.8f;
    sampling.top_k = 40;
    sampling.top_p = 0.95f;
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (i * 37 + 11) % VOCAB;
    const size_t before = heap_calls;
    assert_ok(sfq_timeline_open(&session, engine, CAPACITY, &err));
    assert_ok(sfq_timeline_feed(session, prompt, PROMPT, &err));
    assert_true(heap_calls > before); /* or nothing is counted */
    const size_t behind = heap_calls;
    for (int i = 0; i < STEPS; i++) {
        assert_ok(sfq_timeline_sample(session, &sampling, &out->token[i], &err));
        assert_ok(sfq_timeline_feed(session, &out->token[i], 1, &err));
    }
    const size_t taken = heap_calls - behind;
    memcpy(out->logits, session->logits, sizeof out->logits);
    sfq_timeline_close(&session);
    sfq_engine_close(&engine);
    return taken;
}

/* Bits of weights and of keys and values (0: the default). */
static const int kinds[][2] = {{16, 0}, {8, 0}, {4, 8}, {3, 16}};

static void no_heap_per_token(void **state)
{
    (void)state;
    static timeline t;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (int threads = 1; threads <= 3; threads += 2)
            assert_int_equal(decode(&t, kinds[i][0], threads, kinds[i][1]), 0);
}

/* ---- more threads than processors ---- */

/* The process may use the first `count` of its processors. */
static void keep_processors(const cpu_set_t *all, int count)
{
    cpu_set_t some;
    CPU_ZERO(&some);
    for (size_t i = 0; i < CPU_SETSIZE && CPU_COUNT(&some) < count; i++)
        if (CPU_ISSET(i, all))
            CPU_SET(i, &some);
    assert_int_equal(sched_setaffinity(0, sizeof some, &some), 0);
}

static void four_threads_on_two_processors(void **state)
{
    (void)state;
    static timeline one, four;
    cpu_set_t all;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    alarm(300); /* a deadlock must not wait for CTest */
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        assert_int_equal(decode(&one, kinds[i][0], 1, kinds[i][1]), 0);
        for (int processors = 1; processors <= 2; processors++) {
            memset(&four, 0, sizeof four);
            keep_processors(&all, processors);
            assert_int_equal(decode(&four, kinds[i][0], 4, kinds[i][1]), 0);
            assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
            assert_memory_equal(&four, &one, sizeof one);
        }
    }
    alarm(0);
}

static int open_model(void **state)
{
    if (files_open(state) != 0)
        return -1;
    (void)put_text("config.json", MODEL);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_heap_per_token),
        cmocka_unit_test(four_threads_on_two_processors),
    };
    return cmocka_run_group_tests(tests, open_model, files_close);
}
