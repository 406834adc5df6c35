"""OMS bundles: what is not exactly what was signed, by whom it was asked for, is refused."""

import base64
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, KeepError, RefusedError, UsageError
from modelkeep.crypto.ec_signatures import EcSigner
from modelkeep.crypto.secret import Secret
from modelkeep.kernels.digest import digest_of
from modelkeep.seal import oms
from modelkeep.seal.oms import signed_bundle, verified_bundle
from modelkeep.seal.oms_files import FileDigest, checked_ignored, demand_digests, demand_listed

SIGNER = EcSigner(Secret(b"s" * 32))
OTHER = EcSigner(Secret(b"o" * 32))
A, B = ("a" * 64, "b" * 64)
NAMES = st.text("ab.:é ", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
LISTS = st.dictionaries(PATHS, st.sampled_from([A, B, "0" * 64]), min_size=1, max_size=6)


def signed(digests=None, *, algorithm="sha256", ignored=(), name="model"):
    return signed_bundle(
        name, digests or {"x": A, "d/y": B}, algorithm=algorithm, ignored=ignored, signer=SIGNER
    ).raw


def verified(raw, public=SIGNER.public):
    return verified_bundle(raw, public=public)


def statement_of(raw):
    return json.loads(base64.b64decode(json.loads(raw)["dsseEnvelope"]["payload"]))


def resigned(change, raw=None):
    """A bundle whose statement was changed by somebody who holds the key."""
    bundle = json.loads(raw or signed())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    signature = SIGNER.sign(oms._encoded(payload))
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    return json.dumps(bundle).encode()


def code_of(raw, public=SIGNER.public):
    with pytest.raises(KeepError) as refused:
        verified(raw, public)
    return refused.value.code


def rooted(statement):
    digests = b"".join(
        bytes.fromhex(each["digest"]) for each in statement["predicate"]["resources"]
    )
    statement["subject"][0]["digest"]["sha256"] = hashlib.sha256(digests).hexdigest()


# ---- the statement -----------------------------------------------------------------------------


@given(LISTS, st.text(max_size=20).filter(lambda name: name.isprintable()))
def test_what_is_signed_is_what_is_verified(digests, name):
    found = verified(signed(digests, name=name, ignored=("logs",)))
    assert {path: each.digest for path, (each,) in found.files.items()} == digests
    assert (found.name, found.ignored, found.shard_bytes) == (name, ("logs",), 0)
    assert found.key == SIGNER.public.fingerprint


@given(LISTS)
def test_the_same_list_gives_the_same_bytes(digests):
    turned = dict(reversed(digests.items()))
    assert signed(digests) == signed(turned)


def test_the_list_is_in_the_order_of_the_public_tool():
    """Which compares the parts of paths, not their letters."""
    names = [
        each["name"]
        for each in statement_of(signed(dict.fromkeys(["a.b", "a/c"], A)))["predicate"]["resources"]
    ]
    assert names == ["a/c", "a.b"]


@pytest.mark.parametrize("path", ["/a", "a/", "../a", "a/../b", "a//b", "./a", "", "a\0"])
def test_no_path_leads_out_of_the_folder(path):
    with pytest.raises(UsageError):
        signed({path: A, "b": B})

    def change(statement):
        statement["predicate"]["resources"][0]["name"] = path

    assert code_of(resigned(change)) == "oms.statement"


def test_too_many_files_are_not_signed(monkeypatch):
    monkeypatch.setattr(oms, "RESOURCES_MAX", 2)
    raw = signed({"a": A, "b": B})
    with pytest.raises(UsageError) as refused:
        signed({"a": A, "b": B, "c": A})
    assert refused.value.code == "oms.count"
    monkeypatch.setattr(oms, "RESOURCES_MAX", 1)
    assert code_of(raw) == "oms.statement"
    monkeypatch.setattr(oms, "BUNDLE_BYTES_MAX", len(raw) - 1)
    assert code_of(raw) == "oms.bundle"


# ---- the signature -----------------------------------------------------------------------------


def test_another_key_is_refused():
    assert code_of(signed(), OTHER.public) == "oms.signer"
    bundle = json.loads(signed())
    bundle["verificationMaterial"]["publicKey"]["hint"] = OTHER.public.fingerprint
    assert code_of(json.dumps(bundle).encode(), OTHER.public) == "ec.signature"
    bundle["verificationMaterial"]["publicKey"] = {}
    assert code_of(json.dumps(bundle).encode(), OTHER.public) == "ec.signature"


def test_no_key_and_no_root_trusts_nobody():
    assert code_of(signed(), None) == "oms.signer"


def test_a_signer_of_another_kind_is_not_taken_for_the_named_one():
    bundle = json.loads(signed())
    chain = {"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}]}}
    bundle["verificationMaterial"] = chain
    assert code_of(json.dumps(bundle).encode()) == "oms.signer"
    asked = []

    def of_chain(certificates):
        asked.append(certificates)
        return SIGNER.public

    found = verified_bundle(json.dumps(bundle).encode(), of_chain=of_chain)
    assert (found.name, asked) == ("model", [[b"\0\0\0"]])
    with pytest.raises(RefusedError):
        verified_bundle(signed(), of_chain=of_chain)


@pytest.mark.parametrize(
    "material", [{}, {"publicKey": {}, "x509CertificateChain": {"certificates": []}}]
)
def test_a_bundle_names_one_kind_of_signer(material):
    bundle = json.loads(signed())
    bundle["verificationMaterial"] = material
    assert code_of(json.dumps(bundle).encode()) == "oms.bundle"


def test_what_only_a_transparency_log_can_prove_is_said_so():
    bundle = json.loads(signed())
    bundle["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}, "tlogEntries": []}
    assert code_of(json.dumps(bundle).encode()) == "oms.signer"


@settings(max_examples=200)
@given(st.data())
def test_no_changed_bit_says_anything_else(data):
    raw = bytearray(signed())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = verified(bytes(raw))
    except KeepError:
        return
    assert found == verified(
        signed()
    )  # only what is not signed may differ: the list of log entries


# ---- hostile statements ------------------------------------------------------------------------


def _set(*way_and_value):
    *way, last, value = way_and_value

    def change(statement):
        at = statement
        for step in way:
            at = at[step]
        at[last] = value

    return change


def _twice(statement):
    statement["predicate"]["resources"] *= 2
    rooted(statement)


def _whole_and_part(statement):
    statement["predicate"]["resources"][0]["name"] = "."
    rooted(statement)


HOSTILE = {
    "another type": _set("_type", "https://in-toto.io/Statement/v0.1"),
    "the list of before 1.0": _set("predicateType", "https://model_signing/Digests/v0.1"),
    "no subject": _set("subject", []),
    "two subjects": lambda said: said["subject"].append(said["subject"][0]),
    "another root": _set("subject", 0, "digest", "sha256", A),
    "no root": _set("subject", 0, "digest", {}),
    "nothing listed": _set("predicate", "resources", []),
    "another algorithm": _set("predicate", "resources", 0, "algorithm", "md5"),
    "a short digest": _set("predicate", "resources", 0, "digest", "ab"),
    "no hex": _set("predicate", "resources", 0, "digest", "g" * 64),
    "an unknown hash": _set("predicate", "serialization", "hash_type", "md5"),
    "an unknown method": _set("predicate", "serialization", "method", "tensors"),
    "shards without a size": _set("predicate", "serialization", "method", "shards"),
    "ignored that are no text": _set("predicate", "serialization", "ignore_paths", [1]),
    "listed twice": _twice,
    "a file and a folder": _whole_and_part,
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_statement_that_is_not_one_is_refused_though_it_is_signed(change):
    assert code_of(resigned(change)) == "oms.statement"


def test_others_may_say_more():
    def change(statement):
        statement["predicate"]["card"] = {"task": "x"}
        statement["predicate"]["resources"][0]["size"] = 7

    assert verified(resigned(change)).files == verified(signed()).files


def test_what_is_ignored_outside_of_the_folder_ignores_nothing():
    def change(statement):
        statement["predicate"]["serialization"]["ignore_paths"] = ["/", "..", ".", "../x", "logs"]

    assert verified(resigned(change)).ignored == ("logs",)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_bundle_or_refused(raw):
    with pytest.raises(IntegrityError):
        verified(raw)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@pytest.mark.verify("oms")
@given(st.data())
def test_no_json_in_the_place_of_another_does_anything_but_be_refused(data):
    """In the bundle, or in a statement that is signed."""

    def change(value):
        ways = []
        _ways(value, (), ways)
        *way, last = data.draw(st.sampled_from(ways))
        at = value
        for step in way:
            at = at[step]
        at[last] = data.draw(JSON)

    is_signed = data.draw(st.booleans())
    if is_signed:
        raw = resigned(change)
    else:
        bundle = json.loads(signed())
        change(bundle)
        raw = json.dumps(bundle).encode()
    try:
        found = verified(raw)
    except KeepError:
        return
    assert all(map(oms._is_path, found.files))
    if not is_signed:
        assert set(found.files) == {"x", "d/y"}


def _ways(value, way, found):
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    for step, below in steps:
        found.append((*way, step))
        if isinstance(below, dict | list):
            _ways(below, (*way, step), found)


def test_nesting_is_bounded():
    assert code_of(b"[" * 100_000) == "oms.bundle"
    deep = b'{"mediaType":"","verificationMaterial":' + b'{"x":' * 100_000
    assert code_of(deep) == "oms.bundle"


# ---- the files ---------------------------------------------------------------------------------


def code_of_files(statement, sizes, ignored=()):
    with pytest.raises(IntegrityError) as refused:
        demand_listed(statement, sizes, ignored)
    return refused.value.code


@given(LISTS, st.data())
def test_files_and_list_are_the_same(digests, data):
    statement = verified(signed(digests))
    sizes = dict.fromkeys(digests, 5)
    counted, passed = demand_listed(statement, sizes, ())
    assert (set(counted), passed) == (set(digests), ())
    assert code_of_files(statement, {**sizes, "zz": 1}) == "oms.files"
    assert demand_listed(statement, {**sizes, "zz": 1}, ("zz",))[1] == ("zz",)
    gone = data.draw(st.sampled_from(sorted(digests)))
    assert code_of_files(statement, {path: 5 for path in sizes if path != gone}) == "oms.files"
    demand_digests(statement, gone, [digests[gone]])
    with pytest.raises(IntegrityError) as refused:
        demand_digests(statement, gone, ["c" * 64])
    assert refused.value.code == "oms.digest"


def test_what_is_listed_cannot_be_ignored():
    statement = verified(signed({"logs/a": A, "b": B}))
    sizes = {"logs/a": 1, "b": 1}
    assert code_of_files(statement, sizes, ("logs",)) == "oms.files"
    assert code_of_files(verified(signed({"logs/a": A}, ignored=("logs",))), sizes) == "oms.files"


def test_a_folder_is_ignored_with_all_below_it_and_nothing_beside_it():
    statement = verified(signed({"a": A}, ignored=("logs",)))
    assert demand_listed(statement, {"a": 1, "logs": 1, "logs/x/y": 1}, ())[1] == (
        "logs",
        "logs/x/y",
    )
    assert code_of_files(statement, {"a": 1, "logs2": 1}) == "oms.files"


@pytest.mark.parametrize("path", ["..", "/etc", "a/../b", "", "a\0"])
def test_a_path_to_ignore_is_one_below_the_folder(path):
    with pytest.raises(UsageError):
        checked_ignored([path])
    assert checked_ignored(["./logs/", "logs", "a/b"]) == ("logs", "a/b")


# ---- digests -----------------------------------------------------------------------------------


@given(st.binary(max_size=100), st.integers(1, 40), st.lists(st.integers(0, 30)))
def test_shards_are_digested_wherever_the_blocks_end(raw, shard_bytes, lengths):
    digest, at = FileDigest("sha256", shard_bytes), 0
    for length in [*lengths, len(raw)]:
        digest.update(memoryview(raw)[at : at + length])
        at = min(at + length, len(raw))
    wanted = [
        hashlib.sha256(raw[start : start + shard_bytes]).hexdigest()
        for start in range(0, len(raw), shard_bytes)
    ]
    assert list(digest.digests()) == wanted


@given(st.binary())
def test_whole_files_have_one_digest_by_each_algorithm(raw):
    found = []
    for algorithm in ("sha256", "blake2b", "blake3"):
        digest = FileDigest(algorithm)
        digest.update(memoryview(raw))
        found += digest.digests()
    assert found == [
        hashlib.sha256(raw).hexdigest(),
        hashlib.blake2b(raw).hexdigest(),
        digest_of(raw).removeprefix("blake3:"),
    ]


def sharded(name, *, size=10):
    def change(statement):
        statement["predicate"]["serialization"] |= {"method": "shards", "shard_size": size}
        for resource, path in zip(statement["predicate"]["resources"], name, strict=True):
            resource |= {"name": path, "algorithm": f"sha256-sharded-{size}"}

    return resigned(change)


def test_shards_must_be_all_of_a_file():
    statement = verified(sharded(["x:0:10", "x:10:12"]))
    assert demand_listed(statement, {"x": 12, "empty": 0}, ()) == (("x",), ("empty",))
    for size_bytes in (0, 11, 13, 20, 21, 10**15):
        assert code_of_files(statement, {"x": size_bytes}) in ("oms.digest", "oms.files")
    holed = verified(sharded(["x:0:10", "x:20:30"]))
    assert code_of_files(holed, {"x": 30}) == "oms.digest"


@pytest.mark.parametrize(
    "names", [["x", "y"], ["x:0:10", "x:0:10"], ["x:a:b", "y:0:1"], ["../x:0:10", "y:0:1"]]
)
def test_what_is_no_shard_is_refused(names):
    assert code_of(sharded(names)) == "oms.statement"


@pytest.mark.parametrize("size", [0, -1, 0.5, 1e300])
def test_the_size_of_shards_is_a_size(size):
    assert code_of(sharded(["x:0:1", "y:0:1"], size=size)) == "oms.statement"
