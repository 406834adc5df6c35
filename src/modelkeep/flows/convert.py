"""Turning a pickled file of tensors into safetensors, without unpickling it.

The file is judged first: what a scan would hold or deny is not converted. Then its pickle is walked
on symbols, every tensor is laid out, and its numbers are copied to their place in the new file,
which appears when all of it is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager

from modelkeep.core.errors import RefusedError
from modelkeep.core.record import Record
from modelkeep.core.verdict import Decision, Severity, Verdict
from modelkeep.kernels.file_tensors import head_of, pieces_of
from modelkeep.kernels.strided import row_major

# Gives what takes the bytes of the new file, one behind the other.
Target = Callable[[], AbstractContextManager[Callable[[bytes], None]]]
_SHOWN_MAX = 3


class Converted(Record, frozen=True):
    """What was written.

    Attributes:
        names: of the tensors, in the order of their bytes.
        shared: tensors that saw the numbers of another one, and have their own now.
    """

    tensors: int
    size_bytes: int
    names: tuple[str, ...]
    shared: tuple[str, ...] = ()


def converted(
    name: str,
    raw: memoryview,
    verdict: Verdict,
    target: Target,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Converted:
    """Write the tensors of a file that its verdict allows.

    Args:
        name: of the file.
        raw: all of its bytes; the verdict is theirs.

    Raises:
        RefusedError: `convert.verdict`.
        UsageError: `convert.format` or `convert.form`.
        IntegrityError: when the file does not hold what it claims.
    """
    demand_allowed(name, verdict)
    head, pieces = head_of(pieces_of(name.rpartition(".")[0] or name, raw))
    size_bytes = len(head)
    with target() as write:
        write(head)
        for piece in pieces:
            for part in row_major(
                piece.view,
                piece.shape,
                piece.stride,
                item_bytes=piece.item_bytes,
                swapped=piece.swapped,
            ):
                write(bytes(part))
                size_bytes += len(part)
                progress(len(part))
    seen = Counter(piece.shares for piece in pieces if piece.shares)
    shared = tuple(piece.name for piece in pieces if seen[piece.shares] > 1)
    return Converted(
        tensors=len(pieces),
        size_bytes=size_bytes,
        names=tuple(piece.name for piece in pieces),
        shared=shared,
    )


def demand_allowed(name: str, verdict: Verdict) -> None:
    """Go on only with what a scan allows.

    Raises:
        RefusedError: `convert.verdict`.
    """
    if verdict.decision is Decision.ALLOW:
        return
    told = [each for each in verdict.findings if each.severity is not Severity.NOTE]
    shown = "; ".join(f"{each.evidence} ({each.rule})" for each in told[:_SHOWN_MAX])
    more = f"; and {len(told) - _SHOWN_MAX} more" if len(told) > _SHOWN_MAX else ""
    raise RefusedError(
        "convert.verdict",
        f"{name} is not converted, the scan says {verdict.decision}: {shown}{more}",
        decision=verdict.decision.value,
        hint="`modelkeep scan` shows every finding",
    )
