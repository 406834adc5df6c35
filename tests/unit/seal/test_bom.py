"""ML-BOMs: every card and manifest gives a document that the published schema takes."""

import functools
import json
import uuid
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.core.artifact import FileEntry, Manifest, Port, Schema
from modelkeep.core.card import BLANK, Card, DataSet, Metric
from modelkeep.core.digest import Digest
from modelkeep.core.policy import Policy, Use
from modelkeep.seal.bom import SPECS, Ancestor, bom_of

DIGEST = Digest("blake3:" + "ab" * 32)
TEXT = st.text(max_size=12)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
DIGESTS = TEXT | st.sampled_from(
    ["sha256:" + "1" * 64, "SHA-512:" + "F" * 128, "blake3:" + "2" * 64]
)
URLS = TEXT | st.sampled_from(
    ["https://example.org/a?b=c", "s3://bucket/key", "file:///data", "not a url", "http://[::1]/"]
)
LICENCES = TEXT | st.sampled_from(["Apache-2.0", "MIT OR (GPL-2.0+ WITH x)", "of my own making"])
CARDS = st.builds(
    Card,
    task=TEXT,
    family=TEXT,
    architecture=TEXT,
    licence=LICENCES,
    supplier=TEXT,
    datasets=st.lists(
        st.builds(DataSet, name=TEXT, digest=DIGESTS, url=URLS, purpose=TEXT), max_size=3
    ).map(tuple),
    run=TEXT,
    code=TEXT,
    metrics=st.lists(st.builds(Metric, kind=TEXT, value=st.floats(), slice=TEXT), max_size=3).map(
        tuple
    ),
    users=TEXTS,
    use_cases=TEXTS,
    limitations=TEXTS,
    tradeoffs=TEXTS,
    ethics=TEXTS,
)
POLICIES = st.builds(
    Policy, loaders=TEXTS, uses=st.lists(st.sampled_from(Use), max_size=2).map(tuple)
)
PORTS = st.lists(
    st.builds(Port, name=TEXT, dtype=st.just("FP32"), shape=st.just((-1, 64))), max_size=2
).map(tuple)


def manifest(**facts):
    files = tuple(
        FileEntry(path=path, size_bytes=7, digest=Digest("blake3:" + "c" * 64))
        for path in sorted(facts.pop("paths", ("m.onnx",)))
    )
    known = {
        "version": 3,
        "kind": "onnx",
        "domain": "default",
        "admitted_ns": 1_700_000_000 * 10**9,
    }
    return Manifest(name="fraud", files=files, **known, **facts)


@functools.cache
def validator(spec):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cyclonedx.schema import SchemaVersion  # noqa: PLC0415 - half a second
        from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

        return JsonStrictValidator(SchemaVersion.from_version(spec))


def written(found, ancestors=(), spec=SPECS[0]):
    """The document: the published schema takes it, and every reference in it leads somewhere."""
    raw = bom_of(found, DIGEST, ancestors, spec=spec)
    error = validator(spec).validate_str(raw.decode())
    assert error is None, error
    document = json.loads(raw)
    refs = _refs(document)
    assert len(set(refs)) == len(refs)
    named = [each["ref"] for each in document["dependencies"]]
    named += [each["ref"] for each in _parameters(document).get("datasets", [])]
    assert set(named) <= set(refs)
    return document


def _refs(value):
    if isinstance(value, dict):
        own = [value["bom-ref"]] if "bom-ref" in value else []
        return own + [ref for each in value.values() for ref in _refs(each)]
    return [ref for each in value for ref in _refs(each)] if isinstance(value, list) else []


def _parameters(document):
    return document["metadata"]["component"]["modelCard"].get("modelParameters", {})


def properties(component):
    return {
        each["name"].removeprefix("modelkeep:"): each["value"] for each in component["properties"]
    }


@pytest.mark.verify("bom")
def test_every_card_is_taken_by_the_published_schema(count):
    """Holding one document against the schema takes ten milliseconds."""

    @settings(max_examples=count(10, full=3_000))
    @given(
        facts=st.fixed_dictionaries(
            {
                "card": CARDS,
                "policy": POLICIES,
                "schema": st.none() | st.builds(Schema, inputs=PORTS, outputs=PORTS),
                "note": TEXT,
                "base": TEXT,
                "marks": TEXTS,
                "paths": st.sets(TEXT, max_size=3),
            }
        ),
        spec=st.sampled_from(SPECS),
    )
    def check(facts, spec):
        found = manifest(**facts)
        ancestors = [Ancestor("fraud:2", found, DIGEST)] * 2 + [Ancestor("x")]
        document = written(found, ancestors, spec)
        again = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        assert bom_of(found, DIGEST, ancestors, spec=spec) == again

    check()


CARD = Card(
    task="classification",
    family="tree",
    architecture="gbdt",
    licence="Apache-2.0",
    supplier="Fraud team",
    datasets=(
        DataSet(name="2025", digest="sha256:" + "1" * 64, url="https://example.org/2025"),
        DataSet(name="own", digest="crc:1", url="the cellar", purpose="test"),
    ),
    run="run-7",
    metrics=(Metric(kind="auc", value=0.97, slice="EU"),),
    users=("analysts",),
    use_cases=("triage",),
    limitations=("new shops",),
    tradeoffs=("recall for precision",),
    ethics=("bias by region",),
)


def test_the_card_of_the_makers_stands_where_readers_look_for_it():
    document = written(
        manifest(
            card=CARD,
            schema=Schema(inputs=(Port(name="x", dtype="FP32", shape=(-1, 3)),), outputs=()),
        )
    )
    model = document["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == (
        "machine-learning-model",
        "fraud",
        "3",
    )
    assert model["licenses"] == [{"expression": "Apache-2.0"}]
    assert model["supplier"] == {"name": "Fraud team"}
    assert model["hashes"] == [{"alg": "BLAKE3", "content": "c" * 64}]
    parameters = _parameters(document)
    assert (parameters["task"], parameters["architectureFamily"]) == ("classification", "tree")
    assert parameters["inputs"] == [{"format": "x: FP32[-1,3]"}]
    card = model["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "auc", "value": "0.97", "slice": "EU"}
    ]
    assert card["considerations"] == {
        "users": ["analysts"],
        "useCases": ["triage"],
        "technicalLimitations": ["new shops"],
        "performanceTradeoffs": ["recall for precision"],
        "ethicalConsiderations": [{"name": "bias by region"}],
    }


def test_data_has_its_digest_where_the_format_knows_its_kind():
    first, second = written(manifest(card=CARD))["components"]
    assert first["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    assert first["data"][0]["contents"] == {"url": "https://example.org/2025"}
    assert "hashes" not in second
    assert properties(second) == {"purpose": "test", "digest": "crc:1", "url": "the cellar"}


def test_a_blank_card_says_nothing():
    model = written(manifest(card=BLANK))["metadata"]["component"]
    assert model["modelCard"] == {}
    assert "licenses" not in model
    assert "supplier" not in model


def test_what_it_was_made_from_is_told_as_far_as_it_is_known():
    older = manifest(card=Card(licence="my own"))
    document = written(
        manifest(base="fraud:2"), (Ancestor("fraud:2", older, DIGEST), Ancestor("f:1"))
    )
    first, second = document["metadata"]["component"]["pedigree"]["ancestors"]
    assert first["licenses"] == [{"license": {"name": "my own"}}]
    assert properties(first)["manifest"] == DIGEST
    assert second == {
        "type": "machine-learning-model",
        "bom-ref": "ancestor-1",
        "name": "f",
        "version": "1",
    }


def test_files_are_listed_with_their_digests_and_a_model_of_several_has_none_itself():
    model = written(manifest(paths=("a", "b")))["metadata"]["component"]
    assert [each["name"] for each in model["components"]] == ["a", "b"]
    assert all(each["hashes"][0]["alg"] == "BLAKE3" for each in model["components"])
    assert "hashes" not in model


def test_the_serial_number_is_of_the_manifest():
    """RFC 9562, version 8; the time is that of admission."""
    document = written(manifest())
    found = uuid.UUID(document["serialNumber"])
    assert (found.version, found.variant) == (8, uuid.RFC_4122)
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    other = json.loads(bom_of(manifest(), Digest("blake3:" + "cd" * 32), ()))
    assert other["serialNumber"] != document["serialNumber"]


@pytest.mark.parametrize(
    ("text", "is_expression"),
    [
        ("MIT", True),
        ("GPL-2.0-or-later WITH Bison-exception-2.2", True),
        ("(MIT OR Apache-2.0) AND LicenseRef-own", True),
        ("llama 3 community licence", False),
        ("MIT OR", False),
        ("(MIT", False),
        ("OR", False),
    ],
)
def test_a_licence_is_an_expression_only_where_it_reads_as_one(text, is_expression):
    (found,) = written(manifest(card=Card(licence=text)))["metadata"]["component"]["licenses"]
    assert found == ({"expression": text} if is_expression else {"license": {"name": text}})
