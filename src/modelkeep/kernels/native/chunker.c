/* Where a chunk ends: a keyed rolling hash over 64 bytes, and a keyed function that hides it.
 *
 * The rolling hash is Gear (h = 2h + table[byte] mod 2^64; W. Xia et al., 2014) with a secret
 * table; a byte more than 64 positions back has left it. A chunk may end where SipHash-2-4 of the
 * hash (Aumasson and Bernstein, 2012) falls below a threshold, so an observed border says nothing
 * that could be solved for the table.
 */
#include "kernels.h"

#define WINDOW 64
#define STEP 512

#define ROTATE(v, r) ((v) << (r) | (v) >> (64 - (r)))
#define SIPROUND                                                                                  \
    do {                                                                                          \
        v0 += v1; v1 = ROTATE(v1, 13); v1 ^= v0; v0 = ROTATE(v0, 32);                             \
        v2 += v3; v3 = ROTATE(v3, 16); v3 ^= v2;                                                  \
        v0 += v3; v3 = ROTATE(v3, 21); v3 ^= v0;                                                  \
        v2 += v1; v1 = ROTATE(v1, 17); v1 ^= v2; v2 = ROTATE(v2, 32);                             \
    } while (0)

/* SipHash-2-4 of each number as 8 little-endian bytes, in place. */
MK_CLONES static void siphash(uint64_t *restrict values, size_t count, uint64_t k0, uint64_t k1) {
    const uint64_t last = (uint64_t)8 << 56; /* the length, in the second and last word */
    for (size_t i = 0; i < count; i++) {
        uint64_t m = values[i];
        uint64_t v0 = k0 ^ 0x736f6d6570736575u, v1 = k1 ^ 0x646f72616e646f6du;
        uint64_t v2 = k0 ^ 0x6c7967656e657261u, v3 = k1 ^ 0x7465646279746573u;
        v3 ^= m;
        SIPROUND; SIPROUND;
        v0 ^= m;
        v3 ^= last;
        SIPROUND; SIPROUND;
        v0 ^= last;
        v2 ^= 0xff;
        SIPROUND; SIPROUND; SIPROUND; SIPROUND;
        values[i] = v0 ^ v1 ^ v2 ^ v3;
    }
}

/* The length of the first chunk of raw: between least and size (which is at most the maximum). */
MK_EXPORT int64_t mk_chunk_length(const uint8_t *raw, size_t size, size_t least,
                                  const uint64_t *table, uint64_t k0, uint64_t k1,
                                  uint64_t threshold) {
    if (least < WINDOW || size > INT64_MAX) return MK_USAGE;
    if (size <= least) return (int64_t)size;
    uint64_t h = 0, values[STEP];
    for (size_t i = least - WINDOW; i < least - 1; i++) h = (h << 1) + table[raw[i]];
    for (size_t at = least - 1; at < size;) { /* a chunk that ends behind byte `at` */
        size_t length = size - at < STEP ? size - at : STEP;
        for (size_t i = 0; i < length; i++) values[i] = h = (h << 1) + table[raw[at + i]];
        siphash(values, length, k0, k1);
        for (size_t i = 0; i < length; i++)
            if (values[i] < threshold) return (int64_t)(at + i + 1);
        at += length;
    }
    return (int64_t)size;
}
