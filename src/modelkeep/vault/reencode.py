"""Bring chunks that are stored elsewhere into a store, encoded by that store's own policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelkeep.vault.bases import Fetch, Known, Tensors, chosen
from modelkeep.vault.commit import Deposit, encoded_chunks, jobs_of, rooted
from modelkeep.vault.encode import Policy
from modelkeep.vault.load import Reader
from modelkeep.vault.pieces import pieces_of
from modelkeep.vault.snapshot import RecipeFile


def reencoded(
    file: RecipeFile,
    tensors: Tensors,
    *,
    deposit: Deposit,
    reader: Reader,
    candidates: Sequence[Known] = (),
    fetch: Fetch = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Add the chunks of one file that a store lacks to its deposit.

    Args:
        reader: reads them, from whichever store has them; each is proven by its id.
        candidates: files that the store holds and that deltas may be taken to.
        fetch: the plaintext of a chunk of a candidate.

    Raises:
        IntegrityError: `vault.chunk`, when no store has a good copy of a chunk.
    """
    pieces = pieces_of(file, deposit.writer.domain.key_id)
    places: list[tuple[int, int]] = []
    chunk_ids: dict[int, bytes] = {}
    at = 0
    for chunk_id, length in file.chunks:
        places.append((at, length))
        chunk_ids[at] = chunk_id
        at += length
    if all(deposit.holds(chunk_id) for chunk_id in chunk_ids.values()):
        progress(file.size_bytes)
        return

    def read_into(start: int, target: memoryview) -> None:
        pieces.read_into(target, pieces.number_at(start), reader)

    bases: dict[int, bytes] = {}
    if deposit.writer.policy is Policy.SMALL and tensors and candidates:
        deposit.flush()  # what is under way is not known yet as delta or not
        solid = [rooted(each, deposit.known) for each in candidates]
        bases = chosen(read_into, places, tensors, solid, fetch=fetch)
    jobs = jobs_of(places, tensors, bases, chunk_ids)
    for job, _, _ in encoded_chunks(jobs, read_into, deposit=deposit, fetch=fetch):
        progress(job.length)
