"""The index of 10 TiB fits into memory, and says itself how much it takes.

Method: generate the indexes of 10 TiB of chunks of 4 MiB (a tenth in CI), a third of them deltas,
merge them as a reader does, and count bytes a chunk: what the index says, and what Python says.
"""

import tracemalloc

import pytest

from modelkeep.core.limits import SEGMENT_BYTES_MAX
from modelkeep.kernels.pack_rows import IdSet
from modelkeep.testing.memory import SeededEntropy
from modelkeep.vault.index import ChunkIndex, Index
from modelkeep.vault.pack import PackEntry, Segment
from modelkeep.vault.prune import Survey

TIB = 1024**4
PER_PACK = 5
PACKS_PER_INDEX = 1000
# The third that are deltas name a base in 80 bytes; packs take their share.
BYTES_PER_CHUNK_MAX = 150
SAYS_MISTAKEN_MAX = 0.35


def indexes(chunks):
    """Indexes of so many chunks, made as they are asked for."""
    entropy = SeededEntropy(1)
    packs = -(-chunks // PER_PACK)
    base = entropy.random_bytes(32)
    for start in range(0, packs, PACKS_PER_INDEX):
        count = min(PACKS_PER_INDEX, packs - start)
        ids = entropy.random_bytes(32 * PER_PACK * count)
        yield Index(
            packs=tuple(
                PackEntry(
                    name=f"pack/{'a' * 16}/00/{start + number:064x}",
                    size_bytes=16 << 20,
                    salt=start.to_bytes(16, "big") + number.to_bytes(16, "big"),
                    segments=tuple(
                        segment(ids, PER_PACK * number + at, at, base) for at in range(PER_PACK)
                    ),
                )
                for number in range(count)
            )
        )


def segment(ids, at, number, base):
    is_delta = at % 3 == 2
    return Segment(
        chunk_id=ids[32 * at : 32 * at + 32],
        number=number,
        offset=40 + number * 3_000_000,
        length=SEGMENT_BYTES_MAX,
        encoding=4 if is_delta else 2,
        stored=2_900_000,
        base=base if is_delta else b"",
    )


@pytest.mark.slow
@pytest.mark.verify("index")
def test_the_index_of_ten_tib_takes_less_than_a_gigabyte(count):
    chunks = count(TIB, full=10 * TIB) // SEGMENT_BYTES_MAX
    tracemalloc.start()
    try:
        index = ChunkIndex(indexes(chunks))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(index) >= chunks
    says = index.size_bytes
    assert held / len(index) < BYTES_PER_CHUNK_MAX, held / len(index)
    assert abs(held - says) < SAYS_MISTAKEN_MAX * held, (held, says)


@pytest.mark.slow
@pytest.mark.verify("index")
def test_a_prune_of_ten_tib_is_planned_in_bounded_memory(count):
    chunks = count(TIB // 4, full=10 * TIB) // SEGMENT_BYTES_MAX
    tracemalloc.start()
    try:
        survey, wanted = Survey(), IdSet()
        for number, index in enumerate(indexes(chunks)):
            survey.add(f"index/{number}", index)
            for pack in index.packs[::2]:
                wanted.update(each.chunk_id for each in pack.segments)
        plan = survey.plan(wanted, there=dict(survey.packs))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plan.missing  # the bases, which are not there
    assert len(plan.dead) == len(survey.packs) // 2
    assert peak / chunks < 450, peak / chunks
