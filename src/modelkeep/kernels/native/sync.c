/* Syncs files for an event loop: a thread that sits in here neither holds the GIL nor asks for it,
 * so that making a batch of records durable costs the loop no hand-over of the interpreter.
 */
#include <errno.h>
#include <unistd.h>

#include "kernels.h"

/* Until cell[0] is negative: wait for a number on `asked`, sync the descriptor cell[0], put 0 or
 * the error's number into cell[1], and put a number into `done`. Both are eventfds; whoever asks
 * waits for `done` before it asks again, and their reads and writes order those of the cell.
 */
MK_EXPORT int64_t mk_sync_serve(int asked, int done, volatile int32_t *cell) {
    const uint64_t one = 1;
    uint64_t count;
    for (;;) {
        ssize_t got = read(asked, &count, sizeof count);
        if (got < 0 && errno == EINTR) continue;
        if (got != (ssize_t)sizeof count || cell[0] < 0) return 0;
        cell[1] = fdatasync(cell[0]) ? errno : 0;
        if (write(done, &one, sizeof one) != (ssize_t)sizeof one) return MK_STATE;
    }
}
