"""Inclusion and consistency proofs: made from tiles or memory, verified by RFC 9162, section 2.1.

A proof is a list of hashes, from the leaf's side up. Verifying consumes every hash of it: a
proof with one too many is as wrong as one with one too few. For handing on, an inclusion proof
is written as a C2SP tlog-proof, which carries its checkpoint and is checked offline.
"""

from __future__ import annotations

import base64
import re

from modelkeep.core.errors import IntegrityError, UsageError
from modelkeep.ledger.checkpoint import Checkpoint, decoded_base64, verified_checkpoint
from modelkeep.ledger.tree import EMPTY_ROOT, HASH_BYTES, RangeRoot, node_hash, split_point

PROOF_HASHES_MAX = 64
_HEADER = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (?P<index>0|[1-9][0-9]{0,18})")


def inclusion_proof(index: int, *, size: int, range_root: RangeRoot) -> tuple[bytes, ...]:
    """The hashes that lead from leaf `index` to the root over `size` leaves.

    Raises:
        UsageError: `ledger.proof_range`, when there is no such leaf.
    """
    if not 0 <= index < size:
        raise UsageError("ledger.proof_range", f"a log of {size} entries has no entry {index}")
    path = []
    start, end = 0, size
    while end - start > 1:
        middle = start + split_point(end - start)
        if index < middle:
            path.append(range_root(middle, end))
            end = middle
        else:
            path.append(range_root(start, middle))
            start = middle
    return tuple(reversed(path))


def verify_inclusion(
    hashed_leaf: bytes, *, index: int, size: int, proof: tuple[bytes, ...], root: bytes
) -> None:
    """Check that a leaf stands at `index` under `root` (RFC 9162, 2.1.3.2).

    Raises:
        IntegrityError: `ledger.inclusion`.
    """
    if not 0 <= index < size:
        raise _not_included(index, size)
    place, last, here = index, size - 1, hashed_leaf
    for sibling in proof:
        if last == 0:
            raise _not_included(index, size)
        if place % 2 or place == last:
            here = node_hash(sibling, here)
            place, last = _left_of_path(place, last)
        else:
            here = node_hash(here, sibling)
        place, last = place >> 1, last >> 1
    if last != 0 or here != root:
        raise _not_included(index, size)


def consistency_proof(old: int, *, size: int, range_root: RangeRoot) -> tuple[bytes, ...]:
    """The hashes that show the tree of `old` leaves to be a prefix of that of `size`.

    Raises:
        UsageError: `ledger.proof_range`, unless 0 <= old <= size.
    """
    if not 0 <= old <= size:
        raise UsageError("ledger.proof_range", f"a log of {size} entries never had {old}")
    if old in {0, size}:
        return ()
    path = []
    start, end, is_whole = 0, size, True
    while old != end:
        middle = start + split_point(end - start)
        if old <= middle:
            path.append(range_root(middle, end))
            end = middle
        else:
            path.append(range_root(start, middle))
            start, is_whole = middle, False
    if not is_whole:
        path.append(range_root(start, end))
    return tuple(reversed(path))


def verify_consistency(
    *, old: int, old_root: bytes, size: int, root: bytes, proof: tuple[bytes, ...]
) -> None:
    """Check that the tree of `size` leaves extends that of `old` (RFC 9162, 2.1.4.2).

    Raises:
        IntegrityError: `ledger.consistency`.
    """
    if old in {0, size}:
        expected = EMPTY_ROOT if old == 0 else root
        if proof or old_root != expected or (size == 0 and root != EMPTY_ROOT):
            raise _inconsistent(old, size)
        return
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not 0 < old < size or not path:
        raise _inconsistent(old, size)
    place, last = old - 1, size - 1
    while place % 2:
        place, last = place >> 1, last >> 1
    before = after = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _inconsistent(old, size)
        if place % 2 or place == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            place, last = _left_of_path(place, last)
        else:
            after = node_hash(after, sibling)
        place, last = place >> 1, last >> 1
    if last != 0 or before != old_root or after != root:
        raise _inconsistent(old, size)


def proof_text(index: int, *, proof: tuple[bytes, ...], checkpoint: Checkpoint) -> str:
    """Write an inclusion proof as a C2SP tlog-proof, self-contained and checkable offline."""
    hashes = [base64.b64encode(each).decode() for each in proof]
    return "\n".join([_HEADER, f"index {index}", *hashes, "", checkpoint.raw.decode()])


def verified_proof_text(
    text: str, *, hashed_leaf: bytes, origin: str, public: bytes
) -> tuple[int, Checkpoint]:
    """Check a C2SP tlog-proof for a leaf: the index of the leaf, and the checkpoint over it.

    Raises:
        IntegrityError: `ledger.proof_text`, `ledger.checkpoint` or `ledger.inclusion`.
    """
    head, blank, _ = text.partition("\n\n")
    lines = head.split("\n")
    at = 2 if len(lines) > 1 and lines[1].startswith("extra ") else 1
    match = _INDEX.fullmatch(lines[at]) if len(lines) > at else None
    if lines[0] != _HEADER or not blank or match is None or len(lines) > PROOF_HASHES_MAX + 3:
        raise IntegrityError("ledger.proof_text", "that is not a tlog-proof")
    proof = tuple(_decoded_hash(line) for line in lines[at + 1 :])
    checkpoint = verified_checkpoint(note_in(text), origin=origin, public=public)
    index = int(match["index"])
    verify_inclusion(
        hashed_leaf, index=index, size=checkpoint.size, proof=proof, root=checkpoint.root
    )
    return index, checkpoint


def note_in(text: str) -> bytes:
    """The checkpoint that a tlog-proof carries; nothing about it is verified."""
    return text.partition("\n\n")[2].encode()


def _left_of_path(place: int, last: int) -> tuple[int, int]:
    """Climb the levels on which the last node is promoted and has no sibling."""
    while place % 2 == 0 and place != 0:
        place, last = place >> 1, last >> 1
    return place, last


def _decoded_hash(line: str) -> bytes:
    raw = decoded_base64(line)
    if raw is None or len(raw) != HASH_BYTES:
        raise IntegrityError("ledger.proof_text", "a line of the proof is not a hash")
    return raw


def _not_included(index: int, size: int) -> IntegrityError:
    return IntegrityError(
        "ledger.inclusion",
        f"the proof does not place the leaf at {index} of {size}",
        index=index,
        size=size,
    )


def _inconsistent(old: int, size: int) -> IntegrityError:
    return IntegrityError(
        "ledger.consistency",
        f"the tree of {size} entries does not extend that of {old}",
        hint="two histories were signed by one key: keep both, and ask who signed",
        old=old,
        size=size,
    )
