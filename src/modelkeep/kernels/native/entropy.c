/* Static rANS with 32 interleaved states of 32 bits, 12-bit frequencies and 16-bit words.
 *
 * J. Duda, "Asymmetric numeral systems" (2013); F. Giesen, "Interleaved entropy coders" (2014) and
 * his ryg_rans. Symbol i belongs to state i % 32; each symbol may have a context that chooses its
 * table. A block of 2^18 symbols is: number of words (u32), 32 states (u32), words (u16), all
 * little-endian. A state begins at 2^16 in the encoder and must end there in the decoder.
 */
#include "kernels.h"

#define SCALE 12
#define TOTAL (1u << SCALE)
#define LOW (1u << 16)
#define LANES 32
#define BLOCK (1u << 18)
#define CONTEXTS 16

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define MK_X86 1
#endif

/* How often each symbol follows in each context; hist has contexts * 256 counters. */
MK_EXPORT int64_t mk_count(const uint8_t *symbols, const uint8_t *contexts, size_t count,
                           uint32_t context_count, uint32_t *hist) {
    if (context_count == 0 || context_count > CONTEXTS || count >= UINT32_MAX) return MK_USAGE;
    memset(hist, 0, (size_t)context_count * 256 * sizeof *hist);
    if (contexts) {
        for (size_t i = 0; i < count; i++) {
            if (contexts[i] >= context_count) return MK_USAGE;
            hist[contexts[i] * 256u + symbols[i]]++;
        }
        return 0;
    }
    uint32_t parts[4][256] = {{0}}; /* four, so that equal neighbours do not wait for each other */
    size_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int k = 0; k < 4; k++) parts[k][symbols[i + k]]++;
    for (; i < count; i++) parts[0][symbols[i]]++;
    for (int s = 0; s < 256; s++) hist[s] = parts[0][s] + parts[1][s] + parts[2][s] + parts[3][s];
    return 0;
}

/* The product with `reciprocal`, shifted right by 44, is the quotient by `frequency`: exact, since
 * the state is below 2^20 * frequency and the frequency at most 2^12. */
typedef struct {
    uint64_t reciprocal;
    uint32_t state_max; /* above it, a word leaves first */
    uint16_t cumulated;
    uint16_t rest; /* 4096 - frequency */
} Entry;

/* The same for vectors: cumulated | rest << 16, and a little over 1 / frequency: the product of a
 * number below 2^49 with it, cut to an integer, is the quotient. */
typedef struct {
    Entry entries[CONTEXTS * 256];
    uint32_t steps[CONTEXTS * 256];
    double inverses[CONTEXTS * 256];
} Tables;

static int encode_table(const uint16_t *freqs, Tables *tables, uint32_t context) {
    uint32_t cumulated = 0;
    for (int s = 0; s < 256; s++) {
        uint32_t f = freqs[s];
        if (f > TOTAL || cumulated + f > TOTAL) return MK_TABLE;
        size_t at = context * 256u + s;
        tables->entries[at] = (Entry){0, 0, 0, 0};
        tables->steps[at] = cumulated | (TOTAL - f) << 16;
        tables->inverses[at] = 0;
        if (f) {
            uint32_t state_max = (uint32_t)(((uint64_t)f << 20) - 1);
            tables->entries[at] = (Entry){((1ull << 44) + f - 1) / f, state_max,
                                          (uint16_t)cumulated, (uint16_t)(TOTAL - f)};
            tables->inverses[at] = (1.0 / f) * (1.0 + 0x1p-50);
        }
        cumulated += f;
    }
    return cumulated == TOTAL || cumulated == 0 ? 0 : MK_TABLE;
}

static inline uint32_t put(uint32_t x, const Entry *e, uint8_t **word) {
    uint8_t *at = *word - 2;
    store16(at, (uint16_t)x);
    int leaves = x > e->state_max;
    *word = leaves ? at : *word;
    x = leaves ? x >> 16 : x;
    uint32_t q = (uint32_t)((x * (uint64_t)e->reciprocal) >> 44);
    return x + e->cumulated + q * e->rest;
}

/* Whole groups of 32 symbols, from the last one down, as long as their words have room. */
typedef uint8_t *Encode(const uint8_t *symbols, const uint8_t *contexts, size_t *groups,
                        const Tables *tables, const uint8_t *floor, uint8_t *word, uint32_t *x);

static uint8_t *encode_plain(const uint8_t *symbols, const uint8_t *contexts, size_t *groups,
                             const Tables *tables, const uint8_t *floor, uint8_t *word,
                             uint32_t *states) {
    uint32_t x[LANES];
    memcpy(x, states, sizeof x);
    for (; *groups && word - floor >= 2 * LANES + 2; --*groups)
        for (int k = LANES - 1; k >= 0; k--) {
            size_t i = (*groups - 1) * LANES + (size_t)k;
            size_t at = (contexts ? contexts[i] * 256u : 0) + symbols[i];
            x[k] = put(x[k], tables->entries + at, &word);
        }
    memcpy(states, x, sizeof x);
    return word;
}

#ifdef MK_X86
/* Two vectors of 16 states; the words of the lanes that are full leave together, in order. */
#define TARGET_512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,popcnt")))
TARGET_512 static uint8_t *encode_512(const uint8_t *symbols, const uint8_t *contexts,
                                      size_t *groups, const Tables *tables, const uint8_t *floor,
                                      uint8_t *word, uint32_t *states) {
    __m512i x[2] = {_mm512_loadu_si512(states), _mm512_loadu_si512(states + 16)};
    const __m512i one = _mm512_set1_epi32(1), total = _mm512_set1_epi32(TOTAL);
    for (; *groups && word - floor >= 2 * LANES + 2; --*groups)
        for (int k = 1; k >= 0; k--) {
            size_t i = (*groups - 1) * LANES + (size_t)k * 16;
            __m512i at = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(symbols + i)));
            if (contexts) {
                __m128i c = _mm_loadu_si128((const __m128i *)(contexts + i));
                at = _mm512_or_si512(at, _mm512_slli_epi32(_mm512_cvtepu8_epi32(c), 8));
            }
            __m512i step = _mm512_i32gather_epi32(at, tables->steps, 4);
            __m512d low = _mm512_i32gather_pd(_mm512_castsi512_si256(at), tables->inverses, 8);
            __m512d high =
                _mm512_i32gather_pd(_mm512_extracti64x4_epi64(at, 1), tables->inverses, 8);
            __m512i rest = _mm512_srli_epi32(step, 16);
            __m512i f = _mm512_sub_epi32(total, rest);
            __m512i top = _mm512_sub_epi32(_mm512_slli_epi32(f, 20), one);
            __mmask16 full = _mm512_cmpgt_epu32_mask(x[k], top);
            unsigned count = (unsigned)__builtin_popcount(full);
            __m256i words = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full, x[k]));
            word -= 2 * count;
            _mm256_mask_storeu_epi16(word, (__mmask16)((1u << count) - 1), words);
            x[k] = _mm512_mask_srli_epi32(x[k], full, x[k], 16);
            low = _mm512_mul_pd(low, _mm512_cvtepu32_pd(_mm512_castsi512_si256(x[k])));
            high = _mm512_mul_pd(high, _mm512_cvtepu32_pd(_mm512_extracti64x4_epi64(x[k], 1)));
            __m512i q = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvttpd_epu32(low)),
                                           _mm512_cvttpd_epu32(high), 1);
            x[k] = _mm512_add_epi32(x[k], _mm512_and_si512(step, _mm512_set1_epi32(0xFFFF)));
            x[k] = _mm512_add_epi32(x[k], _mm512_mullo_epi32(q, rest));
        }
    _mm512_storeu_si512(states, x[0]);
    _mm512_storeu_si512(states + 16, x[1]);
    return word;
}

static int has_512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("popcnt");
}
#endif

/* One block into out[0..cap): the words are written backwards from its end, then moved down. */
static int64_t encode_block(const uint8_t *symbols, const uint8_t *contexts, size_t count,
                            const Tables *tables, Encode *encode, uint8_t *out, size_t cap) {
    const size_t head = 4 + 4 * LANES;
    if (cap < head) return MK_ROOM;
    uint8_t *const floor = out + head, *const end = out + cap;
    uint8_t *word = end;
    uint32_t x[LANES];
    for (int k = 0; k < LANES; k++) x[k] = LOW;
    size_t i = count;
    while (i % LANES) {
        i--;
        size_t at = (contexts ? contexts[i] * 256u : 0) + symbols[i];
        if (word - floor < 2) return MK_ROOM;
        x[i % LANES] = put(x[i % LANES], tables->entries + at, &word);
    }
    size_t groups = i / LANES;
    word = encode(symbols, contexts, &groups, tables, floor, word, x);
    for (i = groups * LANES; i;) { /* what the room was too small for, one by one */
        i--;
        size_t at = (contexts ? contexts[i] * 256u : 0) + symbols[i];
        if (word - floor < 2) return MK_ROOM;
        x[i % LANES] = put(x[i % LANES], tables->entries + at, &word);
    }
    size_t bytes = (size_t)(end - word);
    store32(out, (uint32_t)(bytes / 2));
    for (int k = 0; k < LANES; k++) store32(out + 4 + 4 * k, x[k]);
    memmove(floor, word, bytes);
    return (int64_t)(head + bytes);
}

/* Code the symbols; every symbol that comes must have a frequency. Returns the bytes written.
 * scratch has at least 28 * 4096 bytes, aligned to 8. */
MK_EXPORT int64_t mk_rans_encode(const uint8_t *symbols, const uint8_t *contexts, size_t count,
                                 uint32_t context_count, const uint16_t *freqs, void *scratch,
                                 uint8_t *out, size_t cap) {
    Tables *tables = scratch;
    if (context_count == 0 || context_count > CONTEXTS) return MK_USAGE;
    for (uint32_t c = 0; c < context_count; c++) {
        int error = encode_table(freqs + c * 256, tables, c);
        if (error) return error;
    }
    Encode *encode = encode_plain;
#ifdef MK_X86
    if (has_512()) encode = encode_512;
#endif
    if (contexts)
        for (size_t i = 0; i < count; i++)
            if (contexts[i] >= context_count) return MK_USAGE;
    size_t used = 0;
    for (size_t start = 0; start < count; start += BLOCK) {
        size_t length = count - start < BLOCK ? count - start : BLOCK;
        int64_t wrote = encode_block(symbols + start, contexts ? contexts + start : NULL, length,
                                     tables, encode, out + used, cap - used);
        if (wrote < 0) return wrote;
        used += (size_t)wrote;
    }
    return (int64_t)used;
}

/* What a slot stands for: symbol, frequency - 1 (12 bits), slot - cumulated (12 bits). */
static int decode_table(const uint16_t *freqs, uint32_t *table) {
    uint32_t cumulated = 0;
    for (uint32_t s = 0; s < 256; s++) {
        uint32_t f = freqs[s];
        if (f > TOTAL || cumulated + f > TOTAL) return MK_TABLE;
        for (uint32_t k = 0; k < f; k++) table[cumulated + k] = s | (f - 1) << 8 | k << 20;
        cumulated += f;
    }
    if (cumulated == 0) memset(table, 0, TOTAL * sizeof *table); /* never said: reads as a zero */
    return cumulated == TOTAL || cumulated == 0 ? 0 : MK_TABLE;
}

static inline uint32_t take(uint32_t x, uint32_t entry) {
    return ((entry >> 8 & 0xFFF) + 1) * (x >> SCALE) + (entry >> 20);
}

/* What is left of a block when 32 words may no longer be there: each one is checked. */
static const uint8_t *decode_slowly(const uint32_t *tables, const uint8_t *contexts, size_t i,
                                    size_t count, const uint8_t *word, const uint8_t *end,
                                    uint32_t *x, uint8_t *out) {
    for (; i < count; i++) {
        uint32_t *state = x + i % LANES;
        uint32_t entry = tables[(contexts ? (uint32_t)contexts[i] << SCALE : 0) | (*state & 0xFFF)];
        out[i] = (uint8_t)entry;
        *state = take(*state, entry);
        if (*state < LOW) {
            if (end - word < 2) return NULL;
            *state = *state << 16 | load16(word);
            word += 2;
        }
    }
    return word;
}

typedef const uint8_t *Decode(const uint32_t *tables, const uint8_t *contexts, size_t groups,
                              size_t *done, const uint8_t *word, const uint8_t *end, uint32_t *x,
                              uint8_t *out);

static const uint8_t *decode_plain(const uint32_t *tables, const uint8_t *contexts, size_t groups,
                                   size_t *done, const uint8_t *word, const uint8_t *end,
                                   uint32_t *states, uint8_t *out) {
    size_t g = 0;
    uint32_t x[LANES];
    memcpy(x, states, sizeof x);
    for (; g < groups && end - word >= 2 * LANES; g++) {
        for (int k = 0; k < LANES; k++) {
            size_t i = g * LANES + (size_t)k;
            uint32_t base = contexts ? (uint32_t)contexts[i] << SCALE : 0;
            uint32_t entry = tables[base | (x[k] & 0xFFF)];
            out[i] = (uint8_t)entry;
            uint32_t next = take(x[k], entry);
            uint32_t more = next << 16 | load16(word);
            int reads = next < LOW;
            x[k] = reads ? more : next;
            word += reads ? 2 : 0;
        }
    }
    memcpy(states, x, sizeof x);
    *done = g;
    return word;
}

#ifdef MK_X86
/* Four vectors of 8 states. `spread` says for each set of lanes that need a word which one. */
__attribute__((target("avx2,popcnt"))) static const uint8_t *
decode_256(const uint32_t *tables, const uint8_t *contexts, size_t groups, size_t *done,
           const uint8_t *word, const uint8_t *end, uint32_t *states, uint8_t *out) {
    uint64_t spread[256] = {0};
    for (unsigned set = 0; set < 256; set++)
        for (unsigned lane = 0, next = 0; lane < 8; lane++)
            if (set >> lane & 1) spread[set] |= (uint64_t)next++ << (8 * lane);
    __m256i x[4];
    for (int k = 0; k < 4; k++) x[k] = _mm256_loadu_si256((const __m256i *)(states + 8 * k));
    const __m256i slot = _mm256_set1_epi32(0xFFF), one = _mm256_set1_epi32(1);
    const __m256i first = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                           -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                           -1, -1);
    size_t g = 0;
    for (; g < groups && end - word >= 2 * LANES; g++) {
        for (int k = 0; k < 4; k++) {
            size_t i = g * LANES + (size_t)k * 8;
            __m256i at = _mm256_and_si256(x[k], slot);
            if (contexts) {
                __m128i c = _mm_loadl_epi64((const __m128i *)(contexts + i));
                at = _mm256_or_si256(at, _mm256_slli_epi32(_mm256_cvtepu8_epi32(c), SCALE));
            }
            __m256i entry = _mm256_i32gather_epi32((const int *)tables, at, 4);
            __m256i bytes = _mm256_shuffle_epi8(entry, first);
            store32(out + i, (uint32_t)_mm256_extract_epi32(bytes, 0));
            store32(out + i + 4, (uint32_t)_mm256_extract_epi32(bytes, 4));
            __m256i f = _mm256_and_si256(_mm256_srli_epi32(entry, 8), slot);
            f = _mm256_mullo_epi32(_mm256_add_epi32(f, one), _mm256_srli_epi32(x[k], SCALE));
            __m256i next = _mm256_add_epi32(f, _mm256_srli_epi32(entry, 20));
            __m256i reads =
                _mm256_cmpeq_epi32(_mm256_srli_epi32(next, 16), _mm256_setzero_si256());
            unsigned set = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(reads));
            __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)word));
            __m256i which = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)spread[set]));
            __m256i more = _mm256_permutevar8x32_epi32(words, which);
            more = _mm256_or_si256(_mm256_slli_epi32(next, 16), more);
            x[k] = _mm256_blendv_epi8(next, more, reads);
            word += 2 * (unsigned)__builtin_popcount(set);
        }
    }
    for (int k = 0; k < 4; k++) _mm256_storeu_si256((__m256i *)(states + 8 * k), x[k]);
    *done = g;
    return word;
}

/* Two vectors of 16 states. Lanes that need a word get the next ones, in order (vpexpandd). */
TARGET_512 static const uint8_t *
decode_512(const uint32_t *tables, const uint8_t *contexts, size_t groups, size_t *done,
           const uint8_t *word, const uint8_t *end, uint32_t *states, uint8_t *out) {
    __m512i x[2] = {_mm512_loadu_si512(states), _mm512_loadu_si512(states + 16)};
    const __m512i slot = _mm512_set1_epi32(0xFFF), one = _mm512_set1_epi32(1);
    const __m512i low = _mm512_set1_epi32((int)LOW);
    size_t g = 0;
    for (; g < groups && end - word >= 2 * LANES; g++) {
        for (int k = 0; k < 2; k++) {
            size_t i = g * LANES + (size_t)k * 16;
            __m512i at = _mm512_and_si512(x[k], slot);
            if (contexts) {
                __m128i c = _mm_loadu_si128((const __m128i *)(contexts + i));
                at = _mm512_or_si512(at, _mm512_slli_epi32(_mm512_cvtepu8_epi32(c), SCALE));
            }
            __m512i entry = _mm512_i32gather_epi32(at, tables, 4);
            _mm_storeu_si128((__m128i *)(out + i), _mm512_cvtepi32_epi8(entry));
            __m512i f = _mm512_and_si512(_mm512_srli_epi32(entry, 8), slot);
            f = _mm512_mullo_epi32(_mm512_add_epi32(f, one), _mm512_srli_epi32(x[k], SCALE));
            __m512i next = _mm512_add_epi32(f, _mm512_srli_epi32(entry, 20));
            __mmask16 reads = _mm512_cmplt_epu32_mask(next, low);
            __m256i words = _mm256_loadu_si256((const __m256i *)word);
            __m512i more = _mm512_maskz_expand_epi32(reads, _mm512_cvtepu16_epi32(words));
            next = _mm512_mask_or_epi32(next, reads, _mm512_slli_epi32(next, 16), more);
            word += 2 * (unsigned)__builtin_popcount(reads);
            x[k] = next;
        }
    }
    _mm512_storeu_si512(states, x[0]);
    _mm512_storeu_si512(states + 16, x[1]);
    *done = g;
    return word;
}
#endif

static int64_t decode_block(const uint32_t *tables, const uint8_t *contexts, size_t count,
                            const uint8_t *payload, size_t size, uint8_t *out, Decode *decode) {
    const size_t head = 4 + 4 * LANES;
    if (size < head) return MK_SHORT;
    size_t bytes = (size_t)load32(payload) * 2;
    if (bytes > size - head) return MK_SHORT;
    uint32_t x[LANES];
    for (int k = 0; k < LANES; k++) {
        x[k] = load32(payload + 4 + 4 * k);
        if (x[k] < LOW) return MK_STATE;
    }
    const uint8_t *word = payload + head, *end = word + bytes;
    size_t done = 0;
    word = decode(tables, contexts, count / LANES, &done, word, end, x, out);
    word = decode_slowly(tables, contexts, done * LANES, count, word, end, x, out);
    if (word != end) return MK_STATE;
    for (int k = 0; k < LANES; k++)
        if (x[k] != LOW) return MK_STATE;
    return (int64_t)(head + bytes);
}

/* Decode `count` symbols; returns the bytes of the payload that they took. tables is scratch of
 * context_count * 4096 numbers. */
MK_EXPORT int64_t mk_rans_decode(const uint8_t *payload, size_t size, const uint8_t *contexts,
                                 size_t count, uint32_t context_count, const uint16_t *freqs,
                                 uint32_t *tables, uint8_t *out) {
    if (context_count == 0 || context_count > CONTEXTS) return MK_USAGE;
    for (uint32_t c = 0; c < context_count; c++) {
        int error = decode_table(freqs + c * 256, tables + ((size_t)c << SCALE));
        if (error) return error;
    }
    if (contexts)
        for (size_t i = 0; i < count; i++)
            if (contexts[i] >= context_count) return MK_USAGE;
    Decode *decode = decode_plain;
#ifdef MK_X86
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt")) decode = decode_256;
    if (has_512()) decode = decode_512;
#endif
    size_t used = 0;
    for (size_t start = 0; start < count; start += BLOCK) {
        size_t length = count - start < BLOCK ? count - start : BLOCK;
        int64_t took = decode_block(tables, contexts ? contexts + start : NULL, length,
                                    payload + used, size - used, out + start, decode);
        if (took < 0) return took;
        used += (size_t)took;
    }
    return (int64_t)used;
}
