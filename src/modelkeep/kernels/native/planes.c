/* Elements of 1, 2, 4 or 8 bytes as byte planes, and differences to a base as tokens and bits.
 *
 * The first plane holds the most significant byte of each element after a rotation to the left by
 * one, which brings a float's exponent together and its sign beside the mantissa's last bits.
 */
#include "kernels.h"

static inline uint8_t rol8(uint8_t v, int r) { return (uint8_t)(v << r | v >> ((8 - r) & 7)); }
static inline uint16_t rol16(uint16_t v, int r) {
    return (uint16_t)(v << r | v >> ((16 - r) & 15));
}
static inline uint32_t rol32(uint32_t v, int r) { return v << r | v >> ((32 - r) & 31); }
static inline uint64_t rol64(uint64_t v, int r) { return v << r | v >> ((64 - r) & 63); }

#define SPLIT(BITS, BYTES)                                                                        \
    MK_CLONES static void split##BITS(const uint8_t *restrict plain, const uint8_t *restrict base, \
                                      size_t count, int r, uint8_t *restrict out) {               \
        if (base)                                                                                 \
            for (size_t i = 0; i < count; i++) {                                                  \
                uint##BITS##_t v = rol##BITS(                                                     \
                    (uint##BITS##_t)(GET(BITS, plain, i) ^ GET(BITS, base, i)), r);               \
                for (int k = 0; k < BYTES; k++)                                                   \
                    out[(size_t)k * count + i] = (uint8_t)(v >> (8 * (BYTES - 1 - k)));           \
            }                                                                                     \
        else                                                                                      \
            for (size_t i = 0; i < count; i++) {                                                  \
                uint##BITS##_t v = rol##BITS(GET(BITS, plain, i), r);                             \
                for (int k = 0; k < BYTES; k++)                                                   \
                    out[(size_t)k * count + i] = (uint8_t)(v >> (8 * (BYTES - 1 - k)));           \
            }                                                                                     \
    }                                                                                             \
    MK_CLONES static void merge##BITS(const uint8_t *restrict const *planes,                      \
                                      const uint8_t *restrict base, size_t count, int r,          \
                                      uint8_t *restrict out) {                                    \
        for (size_t i = 0; i < count; i++) {                                                      \
            uint##BITS##_t v = 0;                                                                 \
            for (int k = 0; k < BYTES; k++)                                                       \
                v |= (uint##BITS##_t)((uint##BITS##_t)planes[k][i] << (8 * (BYTES - 1 - k)));     \
            v = rol##BITS(v, (BITS - r) % BITS);                                                  \
            if (base) v ^= GET(BITS, base, i);                                                    \
            memcpy(out + i * BYTES, &v, BYTES);                                                   \
        }                                                                                         \
    }

#define GET(BITS, from, i) load##BITS((from) + (i) * (BITS / 8))
static inline uint8_t load8(const uint8_t *at) { return *at; }
SPLIT(8, 1)
SPLIT(16, 2)
SPLIT(32, 4)
SPLIT(64, 8)

/* Elements, rotated and xored with the base's if there is one, into `bytes` planes of `count`. */
MK_EXPORT int64_t mk_split(const uint8_t *plain, const uint8_t *base, size_t count, int bytes,
                           int rotate, uint8_t *out) {
    switch (bytes) {
    case 1: split8(plain, base, count, rotate & 1, out); return 0;
    case 2: split16(plain, base, count, rotate & 1, out); return 0;
    case 4: split32(plain, base, count, rotate & 1, out); return 0;
    case 8: split64(plain, base, count, rotate & 1, out); return 0;
    default: return MK_USAGE;
    }
}

/* The way back, each plane from where it lies. */
MK_EXPORT int64_t mk_merge(const uint8_t *const *planes, const uint8_t *base, size_t count,
                           int bytes, int rotate, uint8_t *out) {
    switch (bytes) {
    case 1: merge8(planes, base, count, rotate & 1, out); return 0;
    case 2: merge16(planes, base, count, rotate & 1, out); return 0;
    case 4: merge32(planes, base, count, rotate & 1, out); return 0;
    case 8: merge64(planes, base, count, rotate & 1, out); return 0;
    default: return MK_USAGE;
    }
}
