/* Differences between elements and those of a base, as tokens and bits.
 *
 * Floats are mapped to unsigned integers of the same order, subtracted modulo 2^n and folded so
 * that small differences of either sign are small numbers. A number below 16 is its own token; a
 * larger one with its highest bit at e is the token 16 + 4 * (e - 4) + the two bits below, and its
 * remaining e - 2 bits go to a stream of bits, least significant first. The context of a token is
 * how far the base's exponent lies below `top`: it says how large a difference will be.
 */
#include "kernels.h"

#define DIRECT 16u
#define STEP 1024 /* elements a turn: what is in between stays in the first cache */

/* Without a branch: which tokens are small is what nothing predicts. */
static inline unsigned bits_of(unsigned token) {
    return ((token >> 2) - 2) & (0u - (unsigned)(token >= DIRECT));
}

#define ELEMENTS(BITS)                                                                            \
    typedef uint##BITS##_t u##BITS;                                                               \
    static inline u##BITS ordered##BITS(u##BITS v, int floats) {                                  \
        const u##BITS sign = (u##BITS)((u##BITS)1 << (BITS - 1));                                 \
        u##BITS flip = (u##BITS)((u##BITS)(0 - (v >> (BITS - 1))) | sign);                        \
        return floats ? (u##BITS)(v ^ flip) : v;                                                  \
    }                                                                                             \
    static inline u##BITS unordered##BITS(u##BITS v, int floats) {                                \
        const u##BITS sign = (u##BITS)((u##BITS)1 << (BITS - 1));                                 \
        u##BITS flip = (u##BITS)((u##BITS)((v >> (BITS - 1)) - 1) | sign);                        \
        return floats ? (u##BITS)(v ^ flip) : v;                                                  \
    }                                                                                             \
    MK_CLONES static void fold##BITS(const uint8_t *restrict plain, const uint8_t *restrict base, \
                                     size_t count, int floats, u##BITS *restrict out) {           \
        for (size_t i = 0; i < count; i++) {                                                      \
            u##BITS d = (u##BITS)(ordered##BITS(load##BITS(plain + i * (BITS / 8)), floats) -     \
                                  ordered##BITS(load##BITS(base + i * (BITS / 8)), floats));      \
            out[i] = (u##BITS)((u##BITS)(d << 1) ^ (u##BITS)(0 - (d >> (BITS - 1))));             \
        }                                                                                         \
    }                                                                                             \
    MK_CLONES static void unfold##BITS(const u##BITS *restrict folded,                            \
                                       const uint8_t *restrict base, size_t count, int floats,    \
                                       uint8_t *restrict out) {                                   \
        for (size_t i = 0; i < count; i++) {                                                      \
            u##BITS z = folded[i], d = (u##BITS)((z >> 1) ^ (u##BITS)(0 - (z & 1)));              \
            u##BITS v = (u##BITS)(ordered##BITS(load##BITS(base + i * (BITS / 8)), floats) + d);  \
            v = unordered##BITS(v, floats);                                                       \
            memcpy(out + i * (BITS / 8), &v, BITS / 8);                                           \
        }                                                                                         \
    }                                                                                             \
    MK_CLONES static void context##BITS(const uint8_t *restrict base, size_t count, int shift,    \
                                        u##BITS mask, int top, uint8_t *restrict out) {           \
        for (size_t i = 0; i < count; i++) {                                                      \
            int below = top - (int)(load##BITS(base + i * (BITS / 8)) >> shift & mask);           \
            out[i] = (uint8_t)(below < 0 ? 0 : below > 15 ? 15 : below);                          \
        }                                                                                         \
    }                                                                                             \
    MK_CLONES static void token##BITS(const u##BITS *restrict folded, size_t count,               \
                                      uint8_t *restrict out) {                                    \
        for (size_t i = 0; i < count; i++) {                                                      \
            uint64_t z = folded[i];                                                               \
            unsigned e = 63u - (unsigned)__builtin_clzll(z | DIRECT);                             \
            unsigned large = DIRECT + ((e - 4) << 2) + ((unsigned)(z >> (e - 2)) & 3);            \
            out[i] = (uint8_t)(z < DIRECT ? z : large);                                           \
        }                                                                                         \
    }

static inline uint8_t load8(const uint8_t *at) { return *at; }
ELEMENTS(8)
ELEMENTS(16)
ELEMENTS(32)
ELEMENTS(64)

typedef struct {
    uint8_t *out;
    size_t size, used;
    uint64_t held;
    unsigned filled;
} Writer;

static inline int put_bits(Writer *w, uint64_t value, unsigned count) {
    w->held |= value << w->filled;
    w->filled += count;
    if (w->filled >= 64) {
        if (w->size - w->used < 8) return MK_ROOM;
        store64(w->out + w->used, w->held);
        w->used += 8;
        w->filled -= 64;
        w->held = w->filled ? value >> (count - w->filled) : 0;
    }
    return 0;
}

/* Without a branch, for at most 29 bits each; the caller has checked that there is room. */
#define WRITE_FEW(w, tokens, values, length)                                                      \
    do {                                                                                          \
        uint8_t *at = (w)->out + (w)->used;                                                       \
        uint64_t held = (w)->held;                                                                \
        unsigned filled = (w)->filled;                                                            \
        for (size_t i = 0; i < (length); i++) {                                                   \
            unsigned bits = bits_of((tokens)[i]);                                                 \
            held |= ((values)[i] & (((uint64_t)1 << bits) - 1)) << filled;                        \
            filled += bits;                                                                       \
            store64(at, held);                                                                    \
            at += filled >> 3;                                                                    \
            held >>= filled & ~7u;                                                                \
            filled &= 7;                                                                          \
        }                                                                                         \
        (w)->used = (size_t)(at - (w)->out);                                                      \
        (w)->held = held;                                                                         \
        (w)->filled = filled;                                                                     \
    } while (0)

#define WRITE(BITS)                                                                               \
    static int write##BITS(const uint8_t *plain, const uint8_t *base, size_t count, int floats,   \
                           uint8_t *tokens, Writer *w) {                                          \
        u##BITS folded[STEP];                                                                     \
        for (size_t start = 0; start < count; start += STEP) {                                    \
            size_t length = count - start < STEP ? count - start : STEP;                          \
            fold##BITS(plain + start * (BITS / 8), base + start * (BITS / 8), length, floats,     \
                       folded);                                                                   \
            token##BITS(folded, length, tokens + start);                                          \
            if (BITS <= 32 && w->filled < 8 && w->size - w->used >= STEP * 4 + 16) {              \
                WRITE_FEW(w, tokens + start, folded, length);                                     \
                continue;                                                                         \
            }                                                                                     \
            for (size_t i = 0; i < length; i++) {                                                 \
                unsigned bits = bits_of(tokens[start + i]);                                       \
                if (!bits) continue;                                                              \
                int error = put_bits(w, folded[i] & (((uint64_t)1 << bits) - 1), bits);           \
                if (error) return error;                                                          \
            }                                                                                     \
        }                                                                                         \
        return 0;                                                                                 \
    }
WRITE(8)
WRITE(16)
WRITE(32)
WRITE(64)

/* One token an element, and the bits; returns how many bytes of bits there are. */
MK_EXPORT int64_t mk_tokens(const uint8_t *plain, const uint8_t *base, size_t count, int bytes,
                            int floats, uint8_t *tokens, uint8_t *bits, size_t size) {
    Writer w = {bits, size, 0, 0, 0};
    int error = MK_USAGE;
    if (bytes == 1) error = write8(plain, base, count, floats, tokens, &w);
    if (bytes == 2) error = write16(plain, base, count, floats, tokens, &w);
    if (bytes == 4) error = write32(plain, base, count, floats, tokens, &w);
    if (bytes == 8) error = write64(plain, base, count, floats, tokens, &w);
    if (error) return error;
    for (; w.filled; w.filled = w.filled > 8 ? w.filled - 8 : 0) {
        if (w.used >= size) return MK_ROOM;
        bits[w.used++] = (uint8_t)w.held;
        w.held >>= 8;
    }
    return (int64_t)w.used;
}

/* The context of each element: how far the exponent of the base's lies below `top`, 0 to 15. */
MK_EXPORT int64_t mk_contexts(const uint8_t *base, size_t count, int bytes, int shift,
                              int exponent_bits, int top, uint8_t *out) {
    if (shift < 0 || exponent_bits < 1 || exponent_bits > 15 || shift + exponent_bits >= 8 * bytes)
        return MK_USAGE;
    uint32_t mask = (1u << exponent_bits) - 1;
    if (bytes == 1) context8(base, count, shift, (u8)mask, top, out);
    else if (bytes == 2) context16(base, count, shift, (u16)mask, top, out);
    else if (bytes == 4) context32(base, count, shift, mask, top, out);
    else if (bytes == 8) context64(base, count, shift, mask, top, out);
    else return MK_USAGE;
    return 0;
}

typedef struct {
    const uint8_t *from;
    size_t size, at; /* at counts bits */
} Reader;

/* The next `count` bits, at most 61; the caller has checked that they are there. */
static inline uint64_t get_bits(Reader *r, unsigned count) {
    size_t byte = r->at >> 3;
    unsigned shift = r->at & 7;
    uint64_t value;
    if (r->size - byte >= 9) {
        value = load64(r->from + byte) >> shift;
        if (shift) value |= (uint64_t)r->from[byte + 8] << (64 - shift);
    } else {
        uint8_t copy[16] = {0};
        memcpy(copy, r->from + byte, r->size - byte);
        value = load64(copy) >> shift;
        if (shift) value |= (uint64_t)copy[8] << (64 - shift);
    }
    r->at += count;
    return value & (((uint64_t)1 << count) - 1);
}

/* What a token says by itself: a small number, or the three highest bits of a larger one. */
static void begin(uint64_t *beginnings) {
    for (unsigned token = 0; token < 256; token++) {
        uint64_t top = 4 | (token & 3);
        beginnings[token] = token < DIRECT ? token : top << bits_of(token);
    }
}

#define READ(BITS)                                                                                \
    static int read##BITS(const uint8_t *tokens, const uint8_t *base, size_t count, int floats,   \
                          Reader *r, uint8_t *out) {                                              \
        u##BITS folded[STEP];                                                                     \
        uint64_t beginnings[256];                                                                 \
        begin(beginnings);                                                                        \
        for (size_t start = 0; start < count; start += STEP) {                                    \
            size_t length = count - start < STEP ? count - start : STEP;                          \
            size_t i = 0;                                                                         \
            if (BITS <= 32 && r->size - (r->at >> 3) >= STEP * 8 + 16) {                          \
                unsigned longest = 0; /* no token has more than 61 bits: within what is there */  \
                for (; i < length; i++) {                                                         \
                    unsigned token = tokens[start + i], bits = bits_of(token);                    \
                    uint64_t some = load64(r->from + (r->at >> 3)) >> (r->at & 7);                \
                    folded[i] = (u##BITS)(beginnings[token] | (some & (((uint64_t)1 << bits) - 1))); \
                    r->at += bits;                                                                \
                    longest = bits > longest ? bits : longest;                                    \
                }                                                                                 \
                if (longest + 3 > BITS) return MK_VALUE;                                          \
            }                                                                                     \
            for (; i < length; i++) {                                                             \
                unsigned token = tokens[start + i], bits = bits_of(token);                        \
                folded[i] = (u##BITS)beginnings[token];                                           \
                if (!bits) continue;                                                              \
                if (bits + 3 > BITS) return MK_VALUE;                                             \
                if (r->size * 8 - r->at < bits) return MK_SHORT;                                  \
                folded[i] = (u##BITS)(beginnings[token] | get_bits(r, bits));                     \
            }                                                                                     \
            unfold##BITS(folded, base + start * (BITS / 8), length, floats,                       \
                         out + start * (BITS / 8));                                               \
        }                                                                                         \
        return 0;                                                                                 \
    }
READ(8)
READ(16)
READ(32)
READ(64)

/* Elements from tokens, bits and a base; all of the bits must be used, and their rest be zero. */
MK_EXPORT int64_t mk_untoken(const uint8_t *tokens, const uint8_t *base, size_t count, int bytes,
                             int floats, const uint8_t *bits, size_t size, uint8_t *out) {
    if (size > SIZE_MAX / 16) return MK_USAGE;
    Reader r = {bits, size, 0};
    int error = MK_USAGE;
    if (bytes == 1) error = read8(tokens, base, count, floats, &r, out);
    if (bytes == 2) error = read16(tokens, base, count, floats, &r, out);
    if (bytes == 4) error = read32(tokens, base, count, floats, &r, out);
    if (bytes == 8) error = read64(tokens, base, count, floats, &r, out);
    if (error) return error;
    if ((r.at + 7) / 8 != size) return MK_STATE;
    if (r.at & 7 && bits[size - 1] >> (r.at & 7)) return MK_STATE;
    return 0;
}
