"""Unit tests of scan.boms and scan.inventory: bills that come in, and bills that go out."""

import functools
import json
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.artifact import FileEntry, Manifest
from modelkeep.core.card import Card, DataSet, Metric
from modelkeep.core.digest import Digest
from modelkeep.core.errors import IntegrityError
from modelkeep.scan.boms import filled, is_bom, told_model, told_packages
from modelkeep.scan.environments import OF_CONDA
from modelkeep.scan.inventory import SPECS, inventory
from modelkeep.scan.packages import Package
from modelkeep.scan.requirements import ELSEWHERE, UNPINNED
from modelkeep.seal.bom import Ancestor, bom_of

DIGEST = Digest("blake3:" + "ab" * 32)
CARD = Card(
    task="classification",
    licence="Apache-2.0",
    supplier="ACME",
    datasets=(DataSet(name="digits", digest="sha256:" + "1" * 64, url="https://example.org/d"),),
    run="run-7",
    code="abc",
    metrics=(Metric(kind="accuracy", value=0.98, slice="test"),),
    limitations=("only digits",),
    ethics=("none",),
)


def ours(*paths, card=CARD):
    """What we say of a model ourselves."""
    files = tuple(FileEntry(path=path, size_bytes=1, digest=DIGEST) for path in paths)
    manifest = Manifest(
        name="fraud",
        version=2,
        kind="onnx",
        domain="default",
        admitted_ns=1,
        files=files,
        card=card,
    )
    return bom_of(manifest, DIGEST, [Ancestor("fraud:1")])


def bill(*components, **more):
    model = {"type": "machine-learning-model", "name": "m", **more}
    return json.dumps(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "metadata": {"component": model},
            "components": list(components),
        }
    ).encode()


def test_what_we_say_of_a_model_is_understood():
    told = told_model(ours("a.onnx", "b/c.json"))
    assert told.files == {"a.onnx": (DIGEST,), "b/c.json": (DIGEST,)}
    assert (told.card, told.base) == (CARD, "fraud:1")
    one = told_model(ours("a.onnx"))
    assert one.files == {"": (DIGEST,), "a.onnx": (DIGEST,)}


def test_a_card_is_filled_and_what_differs_is_said():
    assert filled(Card(), CARD) == (CARD, ())
    assert filled(CARD, Card()) == (CARD, ())
    mine = Card(licence="apache-2.0", task="regression")
    card, apart = filled(mine, CARD)
    assert (card.licence, card.task, card.run) == ("apache-2.0", "regression", "run-7")
    assert apart == ("task",)


def test_other_tools_write_models_otherwise():
    inner = {"type": "machine-learning-model", "name": "inner", "licenses": [
        {"license": {"id": "MIT"}}, {"expression": "BSD-3-Clause OR MIT"}]}  # fmt: skip
    raw = json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "components": [inner]})
    assert told_model(raw.encode()).card.licence == "(MIT) AND (BSD-3-Clause OR MIT)"
    data = {"modelCard": {"modelParameters": {"datasets": [{"name": "d"}, {"ref": "x"}]}}}
    assert [each.name for each in told_model(bill(**data)).card.datasets] == ["d", "x"]
    weak = {"components": [{"type": "file", "name": "f", "hashes": [
        {"alg": "MD5", "content": "0" * 32}]}]}  # fmt: skip
    assert told_model(bill(**weak)).files == {}
    nothing = {"bomFormat": "CycloneDX", "specVersion": "1.4"}
    assert told_model(json.dumps(nothing).encode()) is None


@pytest.mark.parametrize(
    ("name", "digits"), [("SHA-256", 64), ("SHA-384", 96), ("SHA-512", 128), ("BLAKE3", 64)]
)
def test_a_digest_has_as_many_digits_as_its_algorithm_gives(name, digits):
    for more in (-32, -1, 1, 32):
        assert (
            told_model(bill(hashes=[{"alg": name, "content": "a" * (digits + more)}])).files == {}
        )
    (found,) = told_model(bill(hashes=[{"alg": name, "content": "A" * digits}])).files[""]
    assert found.endswith(":" + "a" * digits)


def test_packages_are_of_an_index_or_not_assessed():
    raw = bill(
        {"type": "library", "name": "A_b", "version": "9", "purl": "pkg:pypi/A_b@1.0?x=y#z"},
        {"type": "library", "name": "left-pad", "version": "1", "purl": "pkg:npm/left-pad@1"},
        {"type": "library", "name": "none", "version": "1", "components": [
            {"type": "framework", "name": "in", "purl": "pkg:pypi/in@2%2Bcpu"}]},
        {"type": "data", "name": "digits"},
    )  # fmt: skip
    found = told_packages(raw, place="s.json")
    assert [(each.name, each.version, bool(each.why_not)) for each in found] == [
        ("a-b", "1.0", False),
        ("left-pad", "1", True),
        ("none", "1", True),
        ("in", "2+cpu", False),
    ]


def codes(raw):
    """Which of our errors the readers of a bill end in; any other one fails the test."""
    found = set()
    for read in (told_model, lambda raw: told_packages(raw, place="x")):
        try:
            read(raw)
        except IntegrityError as error:
            found.add(error.code)
    return found


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"bomFormat": "SPDX", "specVersion": "1.6"}',
        b'{"bomFormat": "CycloneDX", "specVersion": "9"}',
        b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": {}}',
        b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [1]}',
        bill(hashes=["x"]),
        bill(licenses=[{"license": {"id": 1}}]),
        bill({"type": "library", "name": 1}),
        bill(functools.reduce(lambda inside, _: {"components": [inside]}, range(30), {})),
    ],
)
def test_what_is_no_bill_is_our_error(raw):
    assert "bom.form" in codes(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["type", "name", "version", "purl", "hashes", "licenses", "components", "modelCard",
     "pedigree", "properties", "supplier", "data", "bom-ref"]
)  # fmt: skip


@pytest.mark.verify("fuzz")
@given(st.dictionaries(FIELDS, JSON), st.dictionaries(FIELDS, JSON))
def test_any_bill_is_read_or_is_our_error(model, other):
    raw = bill(other, **model)
    assert is_bom(raw)
    assert codes(raw) <= {"bom.form"}


# ---- what goes out -----------------------------------------------------------------------------


@functools.cache
def validator(spec):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cyclonedx.schema import SchemaVersion  # noqa: PLC0415 - half a second
        from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

        return JsonStrictValidator(SchemaVersion.from_version(spec))


def listed(*packages, spec=SPECS[0]):
    raw = inventory(
        packages, kind="application", name="r.txt", version="", now_ns=10**18, spec=spec
    )
    error = validator(spec).validate_str(raw.decode())
    assert error is None, error
    return raw


def test_a_list_of_packages_comes_back_as_it_went_out():
    hashes = tuple(f"sha256:{digit * 64}" for digit in "12")
    packages = (
        Package(name="a", version="1.0", hashes=hashes[:1], licence="MIT", needs=("b", "gone")),
        Package(name="b", version="2.0+cpu", hashes=hashes, licence="BSD\nand so on"),
        Package(name="b", version="2.0+cpu"),
        Package(name="c", why_not=UNPINNED),
        Package(name="d", version="1", why_not=OF_CONDA),
        Package(name="./e.whl", why_not=ELSEWHERE),
    )
    for spec in SPECS:
        raw = listed(*packages, spec=spec)
        found = told_packages(raw, place="x")
        assert [(each.name, each.version, bool(each.why_not)) for each in found] == [
            ("a", "1.0", False),
            ("b", "2.0+cpu", False),
            ("b", "2.0+cpu", False),
            ("c", "", False),
            ("d", "1", True),
            ("./e.whl", "", True),
        ]
        assert (found[0].hashes, found[0].licence, found[1].licence) == (hashes[:1], "MIT", "BSD")
    document = json.loads(raw)
    first = document["dependencies"][1]
    assert first == {"ref": "pkg:pypi/a@1.0", "dependsOn": ["pkg:pypi/b@2.0%2Bcpu"]} or first[
        "dependsOn"
    ] == ["pkg:pypi/b@2.0%2Bcpu#2"]
    files = document["components"][1]["externalReferences"]
    assert [each["hashes"][0]["content"] for each in files] == ["1" * 64, "2" * 64]


def test_the_same_packages_have_the_same_serial_number():
    one, other = listed(Package(name="a", version="1")), listed(Package(name="a", version="2"))
    assert (
        json.loads(one)["serialNumber"]
        == json.loads(listed(Package(name="a", version="1")))["serialNumber"]
    )
    assert json.loads(one)["serialNumber"] != json.loads(other)["serialNumber"]


@given(
    st.lists(
        st.builds(
            Package,
            name=st.text(min_size=1, max_size=8),
            version=st.text(max_size=8),
            place=st.text(max_size=8),
            why_not=st.sampled_from(["", UNPINNED, ELSEWHERE, OF_CONDA]),
            licence=st.text(max_size=12) | st.sampled_from(["MIT", "MIT OR Apache-2.0"]),
            hashes=st.sampled_from([(), ("sha256:" + "A" * 64,), ("md5:" + "0" * 32, "odd:1")]),
        ),
        max_size=4,
    )
)
def test_the_schema_takes_every_list_of_packages(packages):
    listed(*packages)
