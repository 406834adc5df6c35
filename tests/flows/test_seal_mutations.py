"""Goal: 10,000 random mutations of models in a vault, and no way in gives out a byte that they hit.

Method: two keeps, one `fast` and one `small` with deltas, each with two versions of a model, one
of the same sizes and a folder, which share chunks. Each round changes the store as its owner
could, who has no key, and then goes some ways to the models. What of the store each chunk is read
from is known, so every way must end in one of two exact ways: refused before a byte of what was hit
is given out, or, where nothing that it needs was hit, with the bytes that were signed.

What the keep's own keys forge is judged in a test of its own: the signed manifest holds against it.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from sealed_forgeries import (
    OTHERS,
    index_redirected,
    map_of_another,
    map_reordered,
    map_shortened,
    map_spliced,
    older_envelope,
)
from sealed_vaults import KINDS, Facts, over, sealed_vault
from sealed_ways import FILL, WAYS, taken, ways_to

from modelkeep.core.names import content_name
from modelkeep.kernels.digest import hex_of

HEAD_BYTES = 40  # magic and salt, of packs and of sealed objects
TAIL_BYTES = 64  # the signature
SIZES = (1, 2, 16, 32, 80)


@pytest.fixture(scope="module")
def vaults(tmp_path_factory):
    folder = tmp_path_factory.mktemp
    with sealed_vault(folder("fast"), "fast") as fast, sealed_vault(folder("small"), "small") as it:
        yield [fast, it]


# ---- what the owner of a store can do -----------------------------------------------------------


def any_object(vault, rng):
    """An object, of any kind as often as of any other."""
    return rng.choice(vault.names(rng.choice(KINDS)))


def edited(edit):
    """Change the bytes of one object."""

    def mutation(vault, objects, rng):
        name = any_object(vault, rng)
        raw = bytearray(objects[name])
        edit(raw, rng)
        objects[name] = bytes(raw)

    mutation.__name__ = edit.__name__
    return mutation


@edited
def flip(raw, rng):
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


@edited
def overwrite(raw, rng):
    at = rng.randrange(len(raw))
    raw[at : at + 16] = rng.randbytes(len(raw[at : at + 16]))


@edited
def insert(raw, rng):
    at = rng.choice([0, HEAD_BYTES, len(raw), rng.randrange(len(raw))])
    raw[at:at] = rng.randbytes(rng.choice(SIZES))


@edited
def remove(raw, rng):
    at = rng.choice([0, HEAD_BYTES, rng.randrange(len(raw))])
    del raw[at : at + rng.choice(SIZES)]


@edited
def exchange_blocks(raw, rng):
    """Two blocks of a cipher: the order of chunks in a recipe lies in them."""
    one, other = (rng.randrange(len(raw) // 16) * 16 for _ in range(2))
    raw[one : one + 16], raw[other : other + 16] = raw[other : other + 16], raw[one : one + 16]


def truncate(vault, objects, rng):
    name = any_object(vault, rng)
    borders = [end for pack, _, end in vault.segments() if pack == name]
    cuts = [0, HEAD_BYTES, len(objects[name]) - TAIL_BYTES, *borders]
    at = rng.choice([rng.randrange(len(objects[name])), *cuts])
    objects[name] = objects[name][: max(0, at)]


def delete(vault, objects, rng):
    del objects[any_object(vault, rng)]


def flip_segment(vault, objects, rng):
    pack, start, end = rng.choice(vault.segments())
    raw = bytearray(objects[pack])
    raw[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    objects[pack] = bytes(raw)


def alike(vault, rng, *, is_same_pack):
    """Two segments of one size, in one pack or in two: of one model, or of two of one domain."""
    places = vault.segments()
    while True:
        one, other = rng.sample(places, 2)
        if one[2] - one[1] == other[2] - other[1] and (one[0] == other[0]) == is_same_pack:
            return one, other


def put(objects, place, raw):
    name, start, end = place
    objects[name] = objects[name][:start] + raw + objects[name][end:]


def reorder_segments(vault, objects, rng):
    one, other = alike(vault, rng, is_same_pack=True)
    put(objects, one, vault.whole[other[0]][other[1] : other[2]])
    put(objects, other, vault.whole[one[0]][one[1] : one[2]])


def splice_segment(vault, objects, rng):
    one, other = alike(vault, rng, is_same_pack=False)
    put(objects, one, vault.whole[other[0]][other[1] : other[2]])


def repeat_segment(vault, objects, rng):
    one, other = alike(vault, rng, is_same_pack=True)
    put(objects, one, vault.whole[other[0]][other[1] : other[2]])


def swap_front(vault, objects, rng):
    """Magic and salt; of a pack the first segment too."""
    kind = rng.choice(KINDS[:5])
    one, other = rng.sample(vault.names(kind), 2)
    size = rng.choice([8, HEAD_BYTES, HEAD_BYTES + 1040])
    objects[one] = objects[other][:size] + objects[one][size:]


def swap_tail(vault, objects, rng):
    """The signature; of a pack the length, the table and the padding too."""
    kind = rng.choice(KINDS)
    one, other = rng.sample(vault.names(kind), 2)
    size = rng.choice([TAIL_BYTES, TAIL_BYTES + 20, rng.randrange(65, 300)])
    objects[one] = objects[one][:-size] + objects[other][-size:]


def swap_objects(vault, objects, rng):
    one, other = rng.sample(vault.names(rng.choice(KINDS)), 2)
    objects[one], objects[other] = objects[other], objects[one]


def swap_kinds(vault, objects, rng):
    one, other = (rng.choice(vault.names(kind)) for kind in rng.sample(KINDS, 2))
    objects[one] = objects[other]


def manifest_over_others(vault, objects, rng):
    """A model's manifest, and under its recipe's name, or its packs', another one's."""
    one, other = rng.sample(vault.models, 2)
    if rng.random() < 0.5:
        objects[one.core[2]] = objects[other.core[2]]
        return
    packs = zip(one.chunks, other.chunks, strict=False)
    objects |= {ours.pack: vault.whole[theirs.pack] for ours, theirs in packs}


def envelope_of_another(vault, objects, rng):
    one, other = rng.sample(vault.models, 2)
    objects[one.core[1]] = objects[other.core[1]]


def roll_back(vault, objects, rng):
    """What belongs to version 1 under the names of version 2; all of it, or some."""
    old, new = vault.model("a:1"), vault.model("a:2")
    pairs = list(zip(new.core[1:], old.core[1:], strict=True))
    pairs += {(ours.pack, its.pack) for ours, its in zip(new.chunks, old.chunks, strict=True)}
    for ours, its in rng.sample(sorted(pairs), rng.randint(1, len(pairs))):
        objects[ours] = vault.whole[its]


def roll_back_snapshot(vault, objects, rng):
    newest = vault.models[0].core[0]
    older = [name for name in vault.names("snapshot") if name != newest]
    objects[newest] = objects[rng.choice(older)]


def roll_back_head(vault, objects, rng):
    """An older head is the newest, in its own name, in the newest's, or in the next one's."""
    heads = sorted(vault.names("head"))
    old = rng.choice(heads[:-1])
    raw = objects[old]
    if rng.random() < 0.5:
        objects[rng.choice([heads[-1], f"head/{len(heads):012d}"])] = raw
        return
    for name in heads[heads.index(old) + 1 :]:
        del objects[name]


def replay_store(vault, objects, rng):
    """All of the store as it once was, or all of some kinds."""
    image = rng.choice(vault.images[:-1])
    kinds = rng.sample(KINDS, rng.randint(1, len(KINDS)))
    for name in vault.names(*kinds):
        if name not in image:
            del objects[name]


def rename(vault, objects, rng):
    """Changed bytes under the name that they hash to, beside the others or in their place."""
    name = rng.choice(vault.names(*KINDS[:5]))
    raw = bytearray(objects[name])
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    kind, key_id, *_ = name.split("/")
    objects[content_name(kind, key_id, hex_of(bytes(raw)))] = bytes(raw)
    if rng.random() < 0.7:
        del objects[name]


MUTATIONS = (
    flip,
    overwrite,
    insert,
    remove,
    exchange_blocks,
    truncate,
    delete,
    flip_segment,
    reorder_segments,
    splice_segment,
    repeat_segment,
    swap_front,
    swap_tail,
    swap_objects,
    swap_kinds,
    manifest_over_others,
    envelope_of_another,
    roll_back,
    roll_back_snapshot,
    roll_back_head,
    replay_store,
    rename,
)
# Heads are made again from the ledger, so that rolling them back alone hits nothing.
HARMLESS = {"roll_back_head"}


# ---- the judge ----------------------------------------------------------------------------------


def asked_for(model, way, rng):
    """The tensor or the range that a way shall read; None for all of it."""
    if way == "tensor":
        return model.tensor(rng.choice(model.tensors))
    if way == "range":
        path = rng.choice(sorted(model.files))
        start = rng.randrange(len(model.files[path]))
        return path, start, rng.randint(1, len(model.files[path]) - start)
    return None


def touches(chunk, place):
    path, start, length = place
    return (
        chunk.path == path and start < chunk.start + chunk.length and chunk.start < start + length
    )


def judge(vault, objects, model, way, rng):
    """Go one way; it must end as what was hit says. Whether it was refused."""
    keep = over(vault.keep, objects)
    given = taken(keep, model, way, asked_for(model, way, rng))
    hit = model.hit(vault.whole, objects)
    wanted = [each for each in hit if any(touches(each, place) for place in given.wanted)]
    is_lost = model.lacks(vault.whole, objects)
    for path, start, block in given.parts:
        assert block == model.files[path][start : start + len(block)], "not what was signed"
        assert not any(touches(each, (path, start, len(block))) for each in wanted), (
            "hit, and given"
        )
    for path, raw in given.memory.items():
        demand_memory(model, path, raw, [] if is_lost else wanted)
    got = sum(len(block) for *_, block in given.parts)
    asked = sum(length for *_, length in given.wanted)
    if is_lost:
        assert given.error
        assert not given.parts
    elif wanted:
        demand_named(model, given, way, wanted)
        assert way != "mount" or got == asked - sum(each.length for each in wanted)
    else:
        assert given.code == "success", given.error
        assert got == asked
    demand_reported(keep, reportable(vault, objects, hit))
    if given.error and rng.random() < 0.25:
        demand_not_laundered(keep, model)
    return bool(given.error)


def demand_not_laundered(keep, model):
    """What a read that was refused has mended is what was signed, or it is refused again."""
    given = taken(keep, model, "later load")
    for path, start, block in given.parts:
        assert block == model.files[path][start : start + len(block)], "mended with other bytes"


def reportable(vault, objects, hit):
    """What was changed, and packs of deltas whose base was."""
    changed = {name for name in vault.whole if objects.get(name) != vault.whole[name]}
    return changed | (objects.keys() - vault.whole) | {each.pack for each in hit}


def demand_memory(model, path, raw, hit):
    """Memory of a load that failed: what was hit is not in it, and nothing that was never ours."""
    for each in model.chunks:
        if each.path != path:
            continue
        part = raw[each.start : each.start + each.length]
        blank = {bytes([FILL]) * len(part), bytes(len(part))}
        assert part in blank or (
            each not in hit and part == model.files[path][each.start : each.start + each.length]
        )


def demand_named(model, given, way, hit):
    """A chunk that is damaged is said with what it hits."""
    assert given.error
    if way in ("mount", "range"):  # by path and place
        assert given.code == "vault.chunk"
        context = given.error.context
        assert (context["path"], context["offset"]) in {(each.path, each.start) for each in hit}
        return
    assert given.code == "model.damaged", given.error
    said = str(given.error.context["tensors"]).split(", ")
    may = {name for name in model.tensors for each in hit if touches(each, model.tensor(name))}
    assert set(said) <= may | {""}


def demand_reported(keep, changed):
    """What the ledger is told of is what was changed, and nothing else."""
    facts = keep.recorder
    assert isinstance(facts, Facts)
    for entry in facts.entries:
        if entry.kind.startswith("vault."):
            name = str(entry.facts["object"])
            assert name in changed or name.startswith("head ")


@pytest.mark.verify("seal-mutations")
def test_no_mutation_gives_out_a_byte_of_what_it_hit(vaults, count):
    rng = random.Random(17)  # noqa: S311 - the same in every run
    found, judged = Counter(), Counter()
    rounds = count(1_000, full=10_000)
    per_round, per_other = count(1, full=len(WAYS)), count(2, full=1)
    turn = 0
    for number in range(rounds):
        vault = vaults[number // len(MUTATIONS) % 2]
        mutation = MUTATIONS[number % len(MUTATIONS)]
        objects = dict(vault.whole)
        while objects == vault.whole:
            mutation(vault, objects, rng)
        touched = [
            each
            for each in vault.models
            if each.lacks(vault.whole, objects) or each.hit(vault.whole, objects)
        ]
        target = rng.choice(touched or vault.models)
        ways = ways_to(target)
        chosen = [ways[(turn + step) % len(ways)] for step in range(min(per_round, len(ways)))]
        turn += len(chosen)
        walks = [(target, way) for way in chosen]
        if not number % per_other:
            other = rng.choice([each for each in vault.models if each is not target])
            walks.append((other, rng.choice(ways_to(other))))
        refused = 0
        for model, way in walks:
            try:
                is_refused = judge(vault, objects, model, way, rng)
            except AssertionError as error:
                label = f"round {number}: {mutation.__name__}, {way} of {model.reference}"
                raise AssertionError(label) from error
            refused += is_refused
            judged[way, is_refused] += 1
        outcome = "refused" if refused else "not asked for" if touched else "not needed"
        found[mutation.__name__, outcome] += 1
    totals = Counter()
    for (_, outcome), times in found.items():
        totals[outcome] += times
    for each in MUTATIONS:
        assert each.__name__ in HARMLESS or found[each.__name__, "refused"], each.__name__
    assert not any(found[name, "refused"] for name in HARMLESS)
    assert all(judged[way, True] and judged[way, False] for way in WAYS), judged
    assert totals["refused"] > 0.6 * rounds, totals
    assert totals["not needed"] < 0.3 * rounds, totals


# ---- what the keep's own keys can forge ---------------------------------------------------------

# What each forgery ends in: at the ways that compare with the manifest, and at those that cannot.
FORGERIES = {
    map_reordered: ("seal.digest", ""),
    map_spliced: ("seal.digest", ""),
    map_of_another: ("seal.digest", ""),
    map_shortened: ("registry.recipe", "registry.recipe"),
    older_envelope: ("seal.identity", "seal.identity"),
    index_redirected: ("model.damaged", "vault.chunk"),
}


@pytest.mark.verify("seal-mutations")
def test_what_our_own_keys_mapped_otherwise_is_not_the_model_that_was_signed(vaults, count):
    """A byte range, and a chunk of a mount, lean on the recipe's signature: not judged by bytes."""
    rng = random.Random(19)  # noqa: S311 - the same in every run
    found = Counter()
    for number in range(count(48, full=1_200)):
        vault = vaults[number % 2]
        forge, (code, other_code) = list(FORGERIES.items())[number // 2 % len(FORGERIES)]
        model = vault.model(rng.choice(sorted(OTHERS)))
        objects = dict(vault.whole)
        applied = forge(vault, objects, model, rng)
        for way in ways_to(model):
            asked = asked_for(model, way, rng)
            given = taken(over(vault.keep, objects, applied), model, way, asked)
            label = f"round {number}: {forge.__name__}, {way} of {model.reference}: {given.code}"
            if way == "tensor":
                path, start, length = asked
                same = model.files[path][start : start + length]
                assert given.error or given.parts == [(path, start, same)], label
                assert given.code in ("success", "tensor.digest", code), label
            elif way == "safetensors" and code == "seal.digest":
                assert given.error or not differing(model, given), label
            elif way in ("range", "mount"):
                ends = (other_code, "tree.recipe" if way == "mount" else "")
                assert not other_code or given.code in ends or way == "range", label
                assert other_code != "vault.chunk" or not differing(model, given), label
            else:
                assert given.code == code, label
                blank = {0, FILL}
                assert code != "seal.digest" or all(
                    set(raw) <= blank for raw in given.memory.values()
                ), label
            found[forge.__name__, way, given.code] += 1
    assert len(found) > 50, found


def differing(model, given):
    """What was given out and is not what was signed."""
    return [
        (path, start)
        for path, start, block in given.parts
        if model.files[path][start : start + len(block)] != block
    ]
