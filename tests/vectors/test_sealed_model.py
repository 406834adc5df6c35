"""A golden keep of sealed models, and what was done to it: each case ends as it says at every way.

It is made by `tests/vectors/sealed_model/make.py`. Whatever a way gives out is what was sealed, but
where a case says `leans`.
"""

import hashlib
import json
import runpy
import tarfile
from pathlib import Path

import pytest
from scenes import Scene
from sealed_vaults import objects_of, over, sealed_of
from sealed_ways import taken, ways_to

from modelkeep.core.record import replaced
from modelkeep.sdk.keep import Keep
from modelkeep.testing.power import Fuse

FOLDER = Path(__file__).parent / "sealed_model"
STATED = json.loads((FOLDER / "cases.json").read_text())
CASES, MODELS = STATED["cases"], STATED["models"]


def sha256(raw):
    return hashlib.sha256(raw).hexdigest()


class Golden:
    """The golden keep, open on a disk in memory; and what the cases add to its stores."""

    def __init__(self, folder):
        self.scene, self.added, self.stores = Scene(folder), {}, {"main": {}, "offsite": {}}
        with tarfile.open(FOLDER / "keep_v1.tar.xz") as archive:
            for member in archive:
                self._take(member.name, archive.extractfile(member).read())
        self.keep = Keep(
            self.scene.keep_path,
            passphrase=STATED["passphrase"],
            world=self.scene.world(Fuse()),
        )
        self.applied = self.keep.opened.state.applied()  # reading is recorded, and moves it on
        self.models = {}
        view = over(self.keep.opened, self.stores["main"], self.applied)
        for reference, facts in MODELS.items():
            path, size_bytes, digest = facts["file"]
            raw = bytes(self.keep.read(reference, path, 0, size_bytes))
            assert sha256(raw) == digest
            self.models[reference] = sealed_of(view, reference, {path: raw})

    def _take(self, name, raw):
        kind, _, rest = name.partition("/")
        if kind == "added":
            case, _, thing = rest.partition("/")
            self.added.setdefault(case, {})[thing] = raw
            return
        self.scene.disk.create(self.scene.keep_path / rest, raw)
        if rest.startswith("stores/"):
            _, label, thing = rest.split("/", 2)
            self.stores[label][thing] = raw

    def changed(self, case):
        """The keep after a case, as it reads one store."""
        facts = CASES[case]
        objects = dict(self.stores[facts["store"]])
        for verb, name, *rest in facts["done"]:
            raw = self.added[case][name] if verb == "add" else objects.get(name, b"")
            objects[name] = edited(objects, raw, verb, rest)
            if verb == "delete":
                del objects[name]
        applied = self.applied
        if "head" in facts:
            applied = replaced(applied, head=facts["head"][0], snapshot=facts["head"][1])
        return over(self.keep.opened, objects, applied)


def edited(objects, raw, verb, rest):
    """What an object becomes."""
    if verb == "flip":
        (at,) = rest
        at %= len(raw)
        return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
    if verb == "cut":
        return raw[: rest[0]]
    if verb == "put":
        return objects[rest[0]]
    if verb == "splice":
        start, size, other, at = rest
        return raw[:start] + objects[other][at : at + size] + raw[start + size :]
    assert verb in ("add", "delete"), verb
    return raw


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    found = Golden(tmp_path_factory.mktemp("golden"))
    yield found
    found.keep.close()


def asked_for(model, way):
    ((path, _),) = model.files.items()
    facts = MODELS[model.reference]
    if way == "tensor":
        name, start, length, _ = facts["tensor"]
        assert model.tensor(name) == (path, start, length)
        return path, start, length
    return (path, *facts["range"][:2]) if way == "range" else None


@pytest.mark.parametrize("case", CASES)
def test_a_golden_case_ends_as_it_says_at_every_way(golden, case):
    for reference, expects in CASES[case]["expects"].items():
        model, ended = golden.models[reference], {}
        for way in ways_to(model):
            given = taken(golden.changed(case), model, way, asked_for(model, way))
            ended[way] = given.code
            wanted = expects.get(way, expects["expect"])
            if wanted == "leans":
                ended[way] = "leans"
                continue
            if way in ("restore", "stream") and wanted == "seal.digest":
                continue  # the last word on a file is said when all of it was read
            for path, start, block in given.parts:
                assert block == model.files[path][start : start + len(block)], (reference, way)
        assert ended == {way: expects.get(way, expects["expect"]) for way in ended}, reference


def test_what_a_way_gives_out_of_the_golden_keep_is_what_was_sealed(golden):
    for reference, model in golden.models.items():
        facts = MODELS[reference]
        for way in ways_to(model):
            given = taken(golden.changed("good"), model, way, asked_for(model, way))
            raw = b"".join(block for _, _, block in sorted(given.parts, key=lambda each: each[1]))
            assert sha256(raw) == facts[way if way in ("tensor", "range") else "file"][-1]


def test_the_golden_keep_opens_is_whole_and_goes_on(golden, tmp_path):
    out = golden.scene.folder / "out.onnx"
    for reference, facts in MODELS.items():
        golden.keep.restore(reference, out, force=True)
        assert sha256(golden.scene.disk.read(out)) == facts["file"][-1]
        with golden.keep.load(reference) as model:
            assert sha256(model.file()) == facts["file"][-1]
    assert golden.keep.check(read_data=True).is_whole
    source = tmp_path / "next.onnx"
    source.write_bytes(golden.models["b:1"].files["b.onnx"])
    assert golden.keep.admit(source, name="a").version == 3
    assert objects_of(golden.keep.opened.store).keys() > golden.stores["main"].keys()


def test_every_case_is_made_and_every_object_that_a_case_adds_is_there(golden):
    made = runpy.run_path(str(FOLDER / "make.py"))
    with made["made"]() as (_, near, far):
        assert [each.name for each in made["cases"](near, far)] == list(CASES)
    adding = {case for case, facts in CASES.items() if any(d[0] == "add" for d in facts["done"])}
    assert adding == set(golden.added)
    assert (FOLDER / "keep_v1.tar.xz").stat().st_size < 100 * 1024
