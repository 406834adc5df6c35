"""Writes the golden keep of sealed models, and what is done to it, if they are not there yet.

    PYTHONPATH=tests/support python tests/vectors/sealed_model/make.py

`keep_v1.tar.xz` holds a keep of three models with a `fast` store (`main`) and a `small` one
(`offsite`), and what some cases add to them. `cases.json` says what each case changes and how each
way to each model must end then. What is expected is written here by hand, not found by running.
Neither file is ever written again: what one version sealed, every later one opens.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenes import CHEAP, PASSPHRASE, Scene
from sealed_forgeries import (
    committed,
    index_redirected,
    map_of_another,
    map_reordered,
    map_shortened,
    map_spliced,
    older_envelope,
    sealed_under,
    with_chunks,
)
from sealed_vaults import Vault, admitted, objects_of, two_and_one, vault_of

from modelkeep.core.artifact import Manifest
from modelkeep.core.policy import Policy, Use
from modelkeep.core.record import from_json, from_msgpack, replaced, to_json
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.sdk.keep import Keep
from modelkeep.seal.envelope import Envelope, sealed
from modelkeep.testing.power import Fuse
from modelkeep.vault.objects import opened_object, series_member
from modelkeep.vault.pack import bound_to, pack_cipher
from modelkeep.vault.snapshot import Head

HERE = Path(__file__).parent
ARCHIVE, CASES = HERE / "keep_v1.tar.xz", HERE / "cases.json"
MODELS = two_and_one(16)
TENSOR, RANGE = "w1", (600, 900)
SECOND_STORE = '[[stores]]\nlabel = "offsite"\npath = "stores/offsite"\n\n[serve]'

Expect = dict[str, str]
Done = list[list[Any]]
GOOD = {"expect": "success"}
# A damaged chunk is named with its tensors by all but what asks for bytes alone.
DAMAGED = {"expect": "model.damaged", "mount": "vault.chunk", "range": "vault.chunk"}
ELSEWHERE = {"tensor": "success", "range": "success"}  # it lies in neither of the two
DIGEST = {"expect": "seal.digest", "tensor": "tensor.digest", "safetensors": "tensor.digest"}
LEANS = {"range": "leans", "mount": "leans"}  # on the signature of the recipe: see the README
ALL = ("a:1", "a:2", "b:1")


@dataclass
class Case:
    """One case.

    Attributes:
        done: what is changed, in order.
        added: objects that are put into the store.
        head: number and snapshot that the ledger committed, where that is another one.
    """

    name: str
    expects: dict[str, Expect]
    store: str = "main"
    done: Done = field(default_factory=list)
    added: dict[str, bytes] = field(default_factory=dict)
    head: tuple[int, str] | None = None


def every(expect: Expect) -> dict[str, Expect]:
    return dict.fromkeys(ALL, expect)


def only(reference: str, expect: Expect) -> dict[str, Expect]:
    return every(GOOD) | {reference: expect}


def code(text: str) -> Expect:
    return {"expect": text}


def segments(vault: Vault) -> Iterator[Case]:
    """What is done to the bytes of chunks."""
    chunks = vault.model("a:2").chunks
    own = [at for at, each in enumerate(chunks) if each.needs[0] not in _needs(vault, "a:1")]
    shared = chunks[0].needs[0]
    pack, start, end = chunks[own[0]].needs[0]
    pair = [chunks[at].needs[0] for at in own if chunks[at].pack == pack][:2]
    (_, left, _), (_, right, _) = pair
    size = end - start
    theirs = vault.model("b:1").chunks[own[0]].needs[0]
    last = chunks[-1].needs[0]
    damaged, tail = only("a:2", DAMAGED), only("a:2", DAMAGED | ELSEWHERE)
    yield Case("segment_bit", damaged, done=[["flip", pack, start]])
    yield Case("segment_tag", damaged, done=[["flip", pack, end - 1]])
    yield Case("segment_elsewhere", tail, done=[["flip", last[0], last[1]]])
    two = {"a:1": DAMAGED | ELSEWHERE, "a:2": DAMAGED | ELSEWHERE, "b:1": GOOD}
    yield Case("segment_shared", two, done=[["flip", shared[0], shared[1]]])
    swapped = [
        ["splice", pack, left, size, pack, right],
        ["splice", pack, right, size, pack, left],
    ]
    yield Case("segments_reordered", damaged, done=swapped)
    yield Case("segment_repeated", damaged, done=swapped[:1])
    yield Case("segment_spliced", damaged, done=[["splice", pack, start, size, *theirs[:2]]])
    yield Case("pack_cut", damaged, done=[["cut", pack, start + 9]])
    yield Case("pack_gone", damaged, done=[["delete", pack]])
    yield Case("pack_of_another", damaged, done=[["put", pack, theirs[0]]])
    unread = ("padding", max(at[2] for at in vault.segments() if at[0] == pack)), ("magic", 0)
    for what, at in (*unread, ("salt", 8), ("signature", -1), ("table", -100)):
        yield Case(f"pack_{what}_unread", every(GOOD), done=[["flip", pack, at]])
    forged = _segment_by_the_domain_key(vault, own[0])
    leans = DAMAGED | {"first load": "seal.digest", "publish": "seal.digest"}
    yield Case(
        "segment_by_the_domain_key",
        only("a:2", leans | {"export": "model.damaged", "later load": "leans"}),
        done=[["add", pack]],
        added={pack: forged},
    )


def _needs(vault: Vault, reference: str) -> set[tuple[str, int, int]]:
    return {each.needs[0] for each in vault.model(reference).chunks}


def _segment_by_the_domain_key(vault: Vault, number: int) -> bytes:
    """Other plaintext under a chunk's own id, number and key: its tag is good."""
    chunk = vault.model("a:2").chunks[number]
    domain = vault.keep.domains.named("default")
    raw = vault.whole[chunk.pack]
    cipher = pack_cipher(domain, raw[8:40])
    bound = bound_to(domain.name, chunk.segment)
    _, start, end = chunk.needs[0]
    return (
        raw[:start]
        + cipher.seal(chunk.segment.number, b"\1" * chunk.length, bound=bound)
        + raw[end:]
    )


def small_store(vault: Vault) -> Iterator[Case]:
    """The same in a store of deltas: a base that is damaged takes its deltas with it."""
    delta = next(each for each in vault.model("a:2").chunks if each.segment.base)
    (pack, start, _), _, (base, at, _), _ = delta.needs
    two = {"a:1": DAMAGED, "a:2": DAMAGED, "b:1": GOOD}
    yield Case("small_good", every(GOOD))
    yield Case("small_delta_bit", only("a:2", DAMAGED), done=[["flip", pack, start]])
    yield Case("small_base_bit", two, done=[["flip", base, at]])
    yield Case("small_base_gone", {"a:1": DAMAGED, "a:2": DAMAGED}, done=[["delete", base]])


def objects(vault: Vault) -> Iterator[Case]:
    """What is done to small objects, by who has no key."""
    a1, a2, b1 = (vault.model(each) for each in ALL)
    index = a2.chunks[-1].needs[1][0]
    indexes = vault.names("index")
    other_index = next(each for each in indexes if each != index)
    lost = only("a:2", DAMAGED)
    for what, done in (
        ("bit", ["flip", index, 60]),
        ("gone", ["delete", index]),
        ("of_another", ["put", index, other_index]),
    ):
        yield Case(f"index_{what}", lost, done=[done])
    for place, kind in ((1, "envelope"), (2, "recipe")):
        name, older, other = (each.core[place] for each in (a2, a1, b1))
        bad, gone = only("a:2", code("vault.digest")), only("a:2", code("store.missing"))
        yield Case(f"{kind}_bit", bad, done=[["flip", name, 60]])
        yield Case(f"{kind}_signature_bit", bad, done=[["flip", name, -1]])
        yield Case(f"{kind}_cut", bad, done=[["cut", name, -64]])
        yield Case(f"{kind}_gone", gone, done=[["delete", name]])
        yield Case(f"{kind}_rolled_back", bad, done=[["put", name, older]])
        yield Case(f"{kind}_of_another", bad, done=[["put", name, other]])
        front = [["splice", name, 0, 40, other, 0]]
        yield Case(f"{kind}_front_of_another", bad, done=front)
    newest = a1.core[0]
    older = next(each for each in vault.names("snapshot") if each != newest)
    yield Case("snapshot_bit", every(code("vault.digest")), done=[["flip", newest, 60]])
    yield Case("snapshot_rolled_back", every(code("vault.digest")), done=[["put", newest, older]])
    yield Case("snapshot_gone", every(code("store.missing")), done=[["delete", newest]])
    late = sorted(set(vault.whole) - set(vault.images[0]))
    replayed: Done = [["delete", name] for name in late]
    yield Case("store_rolled_back", every(code("store.missing")), done=replayed)
    first, last = sorted(vault.names("head"))[:: len(vault.names("head")) - 1]
    beyond = f"head/{int(last[5:]) + 1:012d}"
    for what, done in (
        ("bit", ["flip", last, 30]),
        ("gone", ["delete", last]),
        ("rolled_back", ["put", last, first]),
        ("of_before_as_next", ["put", beyond, first]),
    ):
        yield Case(f"head_{what}_made_again", every(GOOD), done=[done])


def forged(vault: Vault) -> Iterator[Case]:
    """What the keep's own keys sealed, and nobody admitted."""
    model = vault.model("a:2")
    same = {each: GOOD for each in ALL if each != "a:2"}
    identity, recipe = code("seal.identity"), code("registry.recipe") | {"mount": "tree.recipe"}
    for forge, expect in (
        (map_reordered, DIGEST | LEANS | {"safetensors": "onnx.wire"}),
        (map_spliced, DIGEST | LEANS),
        (map_of_another, DIGEST | LEANS),
        (map_shortened, recipe),
        (older_envelope, identity),
    ):
        held = dict(vault.whole)
        applied = forge(vault, held, model, random.Random(4))  # noqa: S311 - the same in every run
        yield _added(vault, forge.__name__, same | {"a:2": expect}, held, applied)
    held = dict(vault.whole)
    index_redirected(vault, held, model, random.Random(4))  # noqa: S311 - the same in every run
    gone: Done = [["delete", each] for each in vault.names("index")]
    new = {name: raw for name, raw in held.items() if name not in vault.whole}
    done = gone + [["add", name] for name in new]
    yield Case("index_redirected", {"a:2": DAMAGED}, done=done, added=new)
    yield from _forged_envelopes(vault, same)
    held, (file,) = dict(vault.whole), model.found.recipe.files
    twice = replaced(model.found.recipe, files=(file, file))
    applied = committed(vault, held, model, recipe=twice)
    double = code("registry.recipe") | {"mount": "success"}
    yield _added(vault, "recipe_path_twice", same | {"a:2": double}, held, applied)
    held, (chunk, *rest) = dict(vault.whole), file.chunks
    negative = with_chunks(model, [(chunk[0], -1), *rest])
    applied = committed(vault, held, model, recipe=negative)
    yield _added(vault, "recipe_negative", same | {"a:2": code("vault.recipe")}, held, applied)
    keep, stands = vault.keep, vault.keep.state.applied()
    other = next(each for each in vault.names("snapshot") if each != stands.snapshot)
    fork = Head(number=stands.head, keep_id=keep.keep_id, snapshot=other)
    name, raw = series_member("head", fork, signer=keep.keys.signer)
    yield Case("head_forked", every(code("keep.fork")), done=[["add", name]], added={name: raw})


def _forged_envelopes(vault: Vault, same: dict[str, Expect]) -> Iterator[Case]:
    keep, model = vault.keep, vault.model("a:2")
    domain, name = keep.domains.named("default"), model.core[1]
    raw = vault.whole[name]
    body = opened_object(name, raw, kind="envelope", domain=domain, public=keep.public)
    envelope = from_msgpack(Envelope, body, what=name)
    manifest = from_json(Manifest, envelope.manifest, what=name)
    freer = replaced(manifest, policy=Policy(uses=(Use.LOAD,)))
    signature = bytearray(envelope.signature)
    signature[0] ^= 1
    for what, made, expect in (
        ("unsigned", replaced(envelope, signature=bytes(signature)), "signature.bad"),
        ("edited", replaced(envelope, manifest=to_json(freer)), "signature.bad"),
        ("of_a_stranger", sealed(manifest, signer=Signer(Secret(bytes(32)))), "seal.signer"),
        ("of_another_domain", replaced(envelope, domain="other"), "seal.identity"),
    ):
        held = dict(vault.whole)
        new = sealed_under(keep, held, "envelope", made, domain)
        applied = committed(vault, held, model, envelope=new)
        yield _added(vault, f"envelope_{what}", same | {"a:2": code(expect)}, held, applied)


def _added(
    vault: Vault, name: str, expects: dict[str, Expect], held: dict[str, bytes], applied: Any
) -> Case:
    new = {each: raw for each, raw in held.items() if vault.whole.get(each) != raw}
    done: Done = [["add", each] for each in new]
    return Case(name, expects, done=done, added=new, head=(applied.head, applied.snapshot))


def cases(main: Vault, offsite: Vault) -> list[Case]:
    """All of them."""
    found = [Case("good", every(GOOD)), *segments(main), *objects(main), *forged(main)]
    for case in small_store(offsite):
        case.store = "offsite"
        found.append(case)
    return found


# ---- the keep -----------------------------------------------------------------------------------


@contextmanager
def made() -> Iterator[tuple[Scene, Vault, Vault]]:
    """A keep with both stores, on a disk in memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = Scene(folder)
        world = scene.world(Fuse())
        at = scene.keep_path
        Keep.create(at, passphrase=PASSPHRASE, argon2=CHEAP, world=world).close()
        toml = at / "modelkeep.toml"
        text = scene.disk.read(toml).decode().replace("[serve]", SECOND_STORE, 1)
        scene.disk.rewrite(toml, text.encode())
        with Keep(at, passphrase=PASSPHRASE, world=scene.world(Fuse())) as keep:
            store = keep.opened.store
            images = [objects_of(store) for _ in admitted(keep, folder, MODELS, 512)]
            (report,) = keep.backup(fresh=("offsite",))
            assert report.is_whole
            images[-1] = objects_of(store)
            far = objects_of(keep.opened.stores[1])
            main = vault_of(keep.opened, images, MODELS)
            yield scene, main, vault_of(keep.opened, [far], MODELS)


def facts_of(main: Vault) -> dict[str, Any]:
    """What each model is."""

    def digest(raw: bytes) -> str:
        return hashlib.sha256(raw).hexdigest()

    found = {}
    for model in main.models:
        ((path, raw),) = model.files.items()
        _, start, length = model.tensor(TENSOR)
        found[model.reference] = {
            "file": [path, len(raw), digest(raw)],
            "tensor": [TENSOR, start, length, digest(raw[start : start + length])],
            "range": [*RANGE, digest(raw[RANGE[0] : sum(RANGE)])],
        }
    return found


def stated_of(near: Vault, found: list[Case]) -> dict[str, Any]:
    """What `cases.json` says."""
    said = {
        each.name: {
            "store": each.store,
            **({"head": each.head} if each.head else {}),
            "done": each.done,
            "expects": each.expects,
        }
        for each in found
    }
    return {"passphrase": PASSPHRASE, "models": facts_of(near), "cases": said}


def main() -> None:
    """Write what is missing."""
    if ARCHIVE.exists():
        return
    with made() as (scene, near, far):
        found = cases(near, far)
        stated = stated_of(near, found)
    with tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:  # the keep is closed, its ledger whole

        def put(name: str, raw: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(raw), 0o600
            archive.addfile(info, io.BytesIO(raw))

        for path, _ in scene.disk.walk(scene.keep_path):
            put(f"keep/{path.relative_to(scene.keep_path)}", scene.disk.read(path))
        for case in found:
            for name, raw in case.added.items():
                put(f"added/{case.name}/{name}", raw)
    CASES.write_text(json.dumps(stated, indent=1) + "\n")


if __name__ == "__main__":
    main()
