/* What the kernels share: the limits of the format and the names of errors.
 *
 * Every function takes its buffers with their sizes, checks each access against them, allocates
 * nothing, keeps no state and may run in any number of threads at once. A negative result is one
 * of the errors below. The same functions in Python stand beside the caller of each. One (sync.c)
 * computes nothing: it waits and makes files durable for whoever cannot wait.
 */
#ifndef MODELKEEP_KERNELS_H
#define MODELKEEP_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the native kernels are for little-endian machines"
#endif

enum {
    MK_ROOM = -1,  /* the output does not fit */
    MK_SHORT = -2, /* the payload ends too early */
    MK_TABLE = -3, /* frequencies do not sum up to 4096 */
    MK_STATE = -4, /* a stream does not end where its beginning says */
    MK_VALUE = -5, /* a symbol that stands for nothing */
    MK_USAGE = -6, /* sizes that do not fit together: a mistake of the caller */
};

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__) && \
    !defined(__SANITIZE_ADDRESS__)
#define MK_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MK_CLONES
#endif

#define MK_EXPORT __attribute__((visibility("default")))

static inline uint16_t load16(const uint8_t *at) {
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint32_t load32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint64_t load64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline void store16(uint8_t *at, uint16_t value) { memcpy(at, &value, sizeof value); }
static inline void store32(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof value); }
static inline void store64(uint8_t *at, uint64_t value) { memcpy(at, &value, sizeof value); }

#endif
