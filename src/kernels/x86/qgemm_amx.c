/* kernels/x86/qgemm_amx.c - the packed multiply on AMX: tdpbsud adds a tile of 16 rows x 64 signed
 * activations times a block of 64 x 16 unsigned codes to a tile of 16 x 16 sums. An 8-bit block of
 * the file is the second operand as it lies there, a tile of packed activations the first.
 *
 * Four sums stay in tiles over a whole segment: 32 rows x 32 outputs, or, where activations are two
 * planes of bytes (a = 256 hi + lo), 16 rows x 2 planes x 32 outputs. Per block that is 4 loads (32
 * cycles) under 4 products (64 cycles). The float chain takes its sums from memory: while the next
 * four run, one row of the last four goes through it per block, and some lines of the next pair of
 * panels are prefetched, so neither stops the multiplier. */
#include "kernels/x86/qgemm512_template.h"

enum { AMX_FROM = 4 }; /* rows from which tiles are faster than vectors */

/* Keeps tile instructions, which tell the compiler little about memory, behind what they read. */
#define FENCE() __asm__ volatile("" ::: "memory")

/* ldtilecfg: tiles 0..3 are sums, 4 and 5 activations, 6 and 7 codes. */
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
} tile_config;

_Static_assert(sizeof(tile_config) == 64, "operand of ldtilecfg");

/* Sums in memory (`tile`) whose chains are still due, and what is to be prefetched meanwhile. */
typedef struct amx_state {
    size_t height; /* rows of activation tiles as configured */
    int32_t (*tile)[TILE_ROWS][SFQ_PANEL_N];
    struct {
        qgemm_chain chain;
        size_t i, height;     /* first row, rows of a tile (0: nothing due) */
        size_t tiles, planes; /* tiles of activations: more rows, or planes */
    } due;
    const uint8_t *coming[2];
    size_t coming_step; /* lines per turn */
} amx_state;

static void configure(amx_state *state, size_t height)
{
    if (state->height == height)
        return;
    tile_config c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        c.bytes[i] = SFQ_ROW_BYTES;
        c.rows[i] = i < 6 ? (uint8_t)height : SFQ_BLOCK_ROWS;
    }
    FENCE();
    _tile_loadconfig(&c);
    FENCE();
    state->height = height;
}

/* Row r of both panels' sums from two tiles on; two planes are joined. */
SFQ_INLINE void sums_row(const amx_state *state, size_t tile, size_t r, __m512i acc[2])
{
    SFQ_UNROLL
    for (size_t j = 0; j < 2; j++) {
        acc[j] = _mm512_load_si512(state->tile[tile + j][r]);
        if (state->due.planes == 2)
            acc[j] = _mm512_add_epi32(
                acc[j], _mm512_slli_epi32(_mm512_load_si512(state->tile[2 + j][r]), 8));
    }
}

/* Row r of the sums that are due. Where the pair has one panel the second is zeros, which the chain
 * masks. */
SFQ_INLINE void due_row(const amx_state *state, size_t r)
{
    __m512i acc[2];
    sums_row(state, 0, r, acc);
    chain_row(&state->due.chain, state->due.i + r, acc, 2);
    if (state->due.planes == state->due.tiles)
        return;
    sums_row(state, 2, r, acc);
    chain_row(&state->due.chain, state->due.i + TILE_ROWS + r, acc, 2);
}

static void due_raw(const amx_state *state)
{
    __m512i acc[2];
    for (size_t r = 0; r < state->due.height; r++) {
        sums_row(state, 0, r, acc);
        chain_raw(&state->due.chain, state->due.i + r, acc, 2);
        if (state->due.planes == state->due.tiles)
            continue;
        sums_row(state, 2, r, acc);
        chain_raw(&state->due.chain, state->due.i + TILE_ROWS + r, acc, 2);
    }
}

/* Prefetches to L2 of the pair that comes next. */
SFQ_INLINE void fetch_coming(amx_state *state)
{
    for (size_t n = 0; n < state->coming_step; n++) {
        _mm_prefetch((const char *)state->coming[0] + n * SFQ_ROW_BYTES, _MM_HINT_T1);
        _mm_prefetch((const char *)state->coming[1] + n * SFQ_ROW_BYTES, _MM_HINT_T1);
    }
    state->coming[0] += state->coming_step * SFQ_ROW_BYTES;
    state->coming[1] += state->coming_step * SFQ_ROW_BYTES;
}

/* What is done beside the products of block b of rows i..: a row of the sums that are due, and
 * prefetches of the next pair and of where these rows' outputs will go. */
SFQ_INLINE void beside(amx_state *state, const qgemm_chain *chain, size_t i, size_t b,
                       const size_t tiles)
{
    if (b < state->due.height)
        due_row(state, b);
    SFQ_UNROLL
    for (size_t t = 0; t < tiles; t++) {
        const float *out = chain->out + (i + b + t * TILE_ROWS) * chain->out_step;
        if (!chain->past_caches) { /* whole lines are not read first */
            _mm_prefetch((const char *)out, _MM_HINT_T1);
            _mm_prefetch((const char *)(out + SFQ_PANEL_N), _MM_HINT_T1);
        }
    }
    fetch_coming(state);
}

/* mt tiles of activations (a0, a1) times np panels over all blocks of the pair. */
SFQ_INLINE void multiply_tiles(amx_state *state, const qgemm_pair *pair, const int8_t *a0,
                               const int8_t *a1, size_t a_block, size_t i, const int mt,
                               const int np)
{
    const uint8_t *b0 = pair->w[0], *b1 = pair->w[np - 1];
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t b = 0; b < pair->blocks; b++) {
        _tile_loadd(6, b0 + b * SFQ_BLOCK_WEIGHTS, SFQ_ROW_BYTES);
        _tile_stream_loadd(4, a0 + b * a_block, SFQ_BLOCK_K);
        _tile_dpbsud(0, 4, 6);
        if (np == 2) {
            _tile_loadd(7, b1 + b * SFQ_BLOCK_WEIGHTS, SFQ_ROW_BYTES);
            _tile_dpbsud(1, 4, 7);
        }
        if (mt == 2) {
            _tile_stream_loadd(5, a1 + b * a_block, SFQ_BLOCK_K);
            _tile_dpbsud(2, 5, 6);
            if (np == 2)
                _tile_dpbsud(3, 5, 7);
        }
        beside(state, &pair->chain, i, b, (size_t)mt);
    }
    for (size_t r = pair->blocks; r < state->due.height; r++) {
        due_row(state, r);
        fetch_coming(state);
    }
    FENCE();
    _tile_stored(0, state->tile[0], SFQ_ROW_BYTES);
    _tile_stored(1, state->tile[1], SFQ_ROW_BYTES);
    _tile_stored(2, state->tile[2], SFQ_ROW_BYTES);
    _tile_stored(3, state->tile[3], SFQ_ROW_BYTES);
    FENCE();
}

/* The next rows of the pass from i on: one group, or two whole ones where there is one plane. How
 * many were taken. */
static size_t multiply_rows(const qgemm_pass *q, const qgemm_pair *pair, size_t i)
{
    amx_state *state = q->state;
    const qgemm_lines a = lines_of(q->g, q->m0 + i, pair->first_block);
    const size_t planes = q->g->a_planes, height = a.plane / SFQ_BLOCK_K;
    const bool two = planes == 2 || q->rows - i >= (size_t)2 * TILE_ROWS;
    const int8_t *second = planes == 2 ? a.at + a.plane : a.at + TILE_ROWS * q->g->k_padded;
    configure(state, height);
    if (two && pair->count == 2)
        multiply_tiles(state, pair, a.at, second, a.block, i, 2, 2);
    else if (two)
        multiply_tiles(state, pair, a.at, second, a.block, i, 2, 1);
    else if (pair->count == 2)
        multiply_tiles(state, pair, a.at, a.at, a.block, i, 1, 2);
    else
        multiply_tiles(state, pair, a.at, a.at, a.block, i, 1, 1);
    state->due.i = i;
    state->due.height = height;
    state->due.tiles = two ? 2 : 1;
    state->due.planes = planes;
    state->due.chain = pair->chain;
    if (pair->chain.raw)
        due_raw(state);
    return planes == 1 && two ? (size_t)2 * TILE_ROWS : height;
}

static void multiply_pair(const qgemm_pass *q, const qgemm_pair *pair)
{
    amx_state *state = q->state;
    const size_t step = 2 * TILE_ROWS / q->g->a_planes, steps = (q->rows + step - 1) / step;
    const size_t lines = pair->blocks * sfq_block_bytes(q->g->bits) / SFQ_ROW_BYTES;
    const size_t turns = steps * (pair->blocks > TILE_ROWS ? pair->blocks : TILE_ROWS);
    state->coming[0] = pair->coming[0];
    state->coming[1] = pair->coming[pair->count - 1];
    state->coming_step = (lines + turns - 1) / turns;
    FENCE(); /* unpacked codes */
    for (size_t i = 0; i < q->rows;)
        i += multiply_rows(q, pair, i);
}

void sfq_qgemm_amx(const sfq_qgemm_args *a, size_t panel_begin, size_t panel_end)
{
    if (a->m < AMX_FROM || a->segment_k > SFQ_SEGMENT_MAX) {
        sfq_qgemm_avx512vnni(a, panel_begin, panel_end);
        return;
    }
    amx_state state = {.tile = ((qgemm_scratch *)a->scratch)->tile};
    qgemm_passes(a, panel_begin, panel_end, &state);
    for (size_t r = 0; r < state.due.height; r++)
        due_row(&state, r);
    _tile_release();
    _mm_sfence(); /* behind stores past the caches */
}
