"""Shadow calls: another version is asked the same, its answer is compared, counted and forgotten.

Nothing of a shadow touches the call: it is asked once the call's own answer is there, a bounded
number at a time, and what goes wrong with it is a count. Shadows are not calls: nobody gets their
answers, so they have no record.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Sequence

from modelkeep.adapters.replica_pool import ReplicaPool
from modelkeep.core.errors import KeepError
from modelkeep.core.rows import LOTS
from modelkeep.flows.call import Served
from modelkeep.gate.schema import CheckedCall, cleared
from modelkeep.gate.traffic import ModelTable
from modelkeep.kernels.closeness import farthest
from modelkeep.kernels.replica_frames import AnswerFrame
from modelkeep.kernels.wire import Tensor

SHADOWS_MAX = 32
# Further apart than that is another answer: float32 on another machine stays well below.
TOLERANCE = 1e-4
# Larger answers are compared byte for byte: numbers would hold up other calls.
COMPARED_BYTES_MAX = 1024 * 1024
SAME, CLOSE, DIFFERENT, FAILED, SKIPPED = "same", "close", "different", "failed", "skipped"
# As the gateway's own lots: calls in a row are spread evenly, and not as those of the canary.
_LOT_STEP = 3821


class Shadowing:
    """Asks shadows.

    Args:
        table: gives the table in force.
        count: told model, version and what came of it.
    """

    def __init__(
        self,
        pool: ReplicaPool,
        *,
        table: Callable[[], ModelTable[Served]],
        count: Callable[[str, int, str], None],
    ) -> None:
        self._pool = pool
        self._table = table
        self._count = count
        self._under_way = 0
        self._lot = 0

    def __call__(self, served: Served, checked: CheckedCall, outputs: Sequence[Tensor]) -> None:
        """Ask the shadow of what has just answered, if it has one and the lot falls on it."""
        self._lot = (self._lot + _LOT_STEP) % LOTS
        other = self._table().shadow_of(served.name, self._lot)
        if other is None or other.version == served.version or other.check is None:
            return
        if self._under_way >= SHADOWS_MAX:
            self._count(other.name, other.version, SKIPPED)
            return
        if served.check is None or other.check.schema != served.check.schema:
            self._count(other.name, other.version, DIFFERENT)
            return
        try:
            future = self._pool.ask(other.name, other.version, checked.inputs)
        except KeepError:
            self._count(other.name, other.version, FAILED)
            return
        self._under_way += 1
        future.add_done_callback(lambda done: self._answered(other, outputs, done))

    def _answered(self, other: Served, wanted: Sequence[Tensor], done: Future[AnswerFrame]) -> None:
        self._under_way -= 1
        assert other.check is not None
        try:
            frame = done.result()
            got = cleared(other.check.schema, frame.shapes, frame.tensors)
        except KeepError:
            self._count(other.name, other.version, FAILED)
            return
        self._count(other.name, other.version, compared(got, wanted))


def compared(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> str:
    """Whether two answers of one schema are the same, close, or different."""
    pairs = list(zip(got, wanted, strict=True))
    if all(one.shape == other.shape and one.raw == other.raw for one, other in pairs):
        return SAME
    if sum(len(each.raw) for each in got) > COMPARED_BYTES_MAX:
        return DIFFERENT
    is_close = all(farthest(one, other) <= TOLERANCE for one, other in pairs)
    return CLOSE if is_close else DIFFERENT
