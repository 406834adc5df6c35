"""What may go: nothing that is needed, whatever lies where; and all that is not."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from modelkeep.kernels.pack_rows import IdSet
from modelkeep.vault.index import Index
from modelkeep.vault.pack import PackEntry, Segment
from modelkeep.vault.prune import Moment, Survey, joined, oldest_kept

SALT = bytes(32)


def chunk(number):
    return hashlib.sha256(str(number).encode()).digest()


def pack(name, *chunks):
    """A pack of (chunk, base or None), each of 1000 bytes."""
    segments = tuple(
        Segment(
            chunk_id=chunk(each),
            number=number,
            offset=40 + 1016 * number,
            length=1000,
            encoding=0 if base is None else 3,
            stored=1000,
            base=b"" if base is None else chunk(base),
        )
        for number, (each, base) in enumerate(chunks)
    )
    return PackEntry(name=name, size_bytes=1016 * len(chunks), salt=SALT, segments=segments)


def surveyed(*packs):
    survey = Survey()
    for number, each in enumerate(packs):
        survey.add(f"index/{number}", Index(packs=(each,)))
    return survey


def ids(*numbers):
    found = IdSet()
    found.update(map(chunk, numbers))
    return found


def there(*packs):
    return {each.name: each.size_bytes for each in packs}


packs_of_chunks = st.lists(
    st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(0, 12)), min_size=1, max_size=5),
    max_size=6,
)


@given(packs_of_chunks, st.sets(st.integers(0, 12)), st.sets(st.integers(0, 5)), st.floats(0, 1))
def test_what_stays_is_enough_and_what_goes_is_not_needed(made, wanted, lost, waste):
    packs = [pack(f"pack/{n}", *chunks) for n, chunks in enumerate(made)]
    present = there(*(each for n, each in enumerate(packs) if n not in lost))
    plan = surveyed(*packs).plan(ids(*wanted), there=present, waste_max=waste)
    kept = set()
    for each in packs:
        if each.name in plan.moved:
            kept |= {
                segment for segment in each.segments if segment.number in plan.moved[each.name]
            }
        elif each.name not in plan.dead and each.name in present:
            kept |= set(each.segments)
    held = {each.chunk_id for each in kept}
    before = {s.chunk_id for each in packs if each.name in present for s in each.segments}
    assert {chunk(each) for each in wanted} & before <= held
    for each in kept:  # no delta that is wanted lost its base
        if each.chunk_id in {chunk(n) for n in wanted} and each.base in before:
            assert each.base in held
    assert (plan.missing > 0) >= bool({chunk(each) for each in wanted} - before)
    assert not set(plan.dead) & set(plan.moved)
    for name in plan.moved:
        assert name in present


def test_a_dead_pack_goes_and_a_wasteful_one_moves():
    whole, half, dead = pack("a", (1, None)), pack("b", (2, None), (3, None)), pack("c", (4, None))
    plan = surveyed(whole, half, dead).plan(ids(1, 2), there=there(whole, half, dead))
    assert plan.dead == ("c",)
    assert plan.moved == {"b": frozenset({0})}
    assert plan.freed_bytes == 1016 * 3 - 1016
    tolerant = surveyed(half).plan(ids(2), there=there(half), waste_max=0.5)
    assert tolerant.moved == {}


def test_the_base_of_a_delta_that_stays_stays():
    base, delta = pack("a", (1, None)), pack("b", (2, 1))
    plan = surveyed(base, delta).plan(ids(2), there=there(base, delta))
    assert plan.dead == ()
    assert surveyed(base, delta).plan(ids(1), there=there(base, delta)).dead == ("b",)


def test_of_two_copies_the_one_that_is_no_delta_stays_and_must_be_proven():
    solid, delta, base = pack("a", (1, None)), pack("b", (1, 2)), pack("c", (2, None))
    plan = surveyed(delta, solid, base).plan(ids(1), there=there(delta, solid, base))
    assert set(plan.dead) == {"b", "c"}
    assert plan.proofs == ("a",)
    doubted = surveyed(delta, solid, base).plan(
        ids(1), there=there(delta, solid, base), damaged={"a"}
    )
    assert doubted.dead == ("a",)


def test_a_pack_that_is_gone_or_has_another_size_does_not_count():
    one = pack("a", (1, None))
    assert surveyed(one).plan(ids(1), there={}).missing == 1
    assert surveyed(one).plan(ids(1), there={"a": 5}).missing == 1


def test_a_base_that_is_gone_is_missing_too():
    delta = pack("b", (2, 1))
    assert surveyed(delta).plan(ids(2), there=there(delta)).missing == 1


def test_what_no_index_names_goes_unless_somebody_uploads():
    one, fresh = pack("a", (1, None)), pack("b", (9, None))
    store = {**there(one, fresh), "stray": 500}
    plan = surveyed(one, fresh).plan(ids(1), there=store)
    assert (plan.dead, plan.stray) == (("b",), ("stray",))
    plan = surveyed(one, fresh).plan(ids(1), there=store, known=ids(1, 2))
    assert (plan.dead, plan.stray) == ((), ())
    old = pack("c", (2, None))
    plan = surveyed(one, old).plan(ids(1), there=there(one, old), known=ids(1, 2))
    assert plan.dead == ("c",)  # it was named once: it is nobody's upload


@given(packs_of_chunks, st.sets(st.integers(0, 5)))
def test_indexes_anew_name_every_pack_that_stays_before_old_ones_go(made, gone_numbers):
    packs = [pack(f"pack/{n}", *chunks) for n, chunks in enumerate(made)]
    gone = {f"pack/{n}" for n in gone_numbers}
    indexes = [(f"index/{n}", Index(packs=(each,))) for n, each in enumerate(packs)]
    for is_scattered in (False, True):
        named, old = set(), set()
        for index, names in joined(indexes, gone=gone, is_scattered=is_scattered):
            named |= {each.name for each in index.packs} if index else set()
            old |= set(names)
            for name in names:  # whatever it named is named elsewhere by now, or goes
                (index_before,) = [each for own, each in indexes if own == name]
                assert {each.name for each in index_before.packs} <= named | gone
        assert not named & gone
        left = {p.name for name, each in indexes if name not in old for p in each.packs}
        assert named | left == {each.name for each in packs} - gone


def chain(signs):
    """Snapshots, newest first, one second apart: `+` for a change, `=` for none."""
    return [
        Moment(str(len(signs) - at), 10**9 * (len(signs) - at), sign == "+")
        for at, sign in enumerate(signs)
    ]


def test_the_last_changes_are_kept_and_what_repeats_them():
    moments = chain("+=+++")
    assert oldest_kept(moments) == "1"
    assert oldest_kept(moments, last=1) == "5"
    assert oldest_kept(moments, last=2) == "3"
    assert oldest_kept(chain("=++"), last=1) == "2"  # the newest only repeats it
    assert oldest_kept(moments, last=99) == "1"


def test_what_is_within_the_time_is_kept_even_if_a_clock_went_wrong():
    moments = chain("++++")
    assert oldest_kept(moments, since_ns=3 * 10**9) == "3"
    assert oldest_kept(moments, since_ns=99 * 10**9) == "4"
    assert oldest_kept(moments, since_ns=3 * 10**9, last=3) == "2"
    wrong = [moments[0], Moment("3", 0, is_change=True), *moments[2:]]
    assert oldest_kept(wrong, since_ns=2 * 10**9) == "2"
