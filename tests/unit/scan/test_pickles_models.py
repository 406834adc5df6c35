"""Unit tests of scan.pickles: what joblib and the model libraries write is allowed, to the byte."""

import io
import pickle
import struct
import tarfile
import warnings
import zlib
from itertools import pairwise

import attack_pickles
import model_zoo
import numpy as np
import pytest
from torch_files import Kept, View, legacy_file

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.pickles import pickle_findings
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings

joblib = pytest.importorskip("joblib")
pytest.importorskip("sklearn")
SETTINGS = ScanSettings()
FAMILIES = (
    "LogisticRegression", "RandomForestClassifier", "HistGradientBoostingRegressor", "SVC",
    "KNeighborsClassifier", "GaussianProcessRegressor", "MLPClassifier", "Pipeline",
    "ColumnTransformer", "TfidfVectorizer", "IsolationForest", "FunctionTransformer", "KMeans",
    "GradientBoostingClassifier",
)  # fmt: skip


def look(raw, name="m.joblib"):
    return findings_of(name, raw, SETTINGS)


def dumped(value, compress=0):
    into = io.BytesIO()
    joblib.dump(value, into, compress=compress)
    return into.getvalue()


def made(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def demand_allowed(model):
    for raw in (dumped(model), dumped(model, 3), pickle.dumps(model, 2), pickle.dumps(model, 5)):
        assert judged(look(raw)).decision is Decision.ALLOW, look(raw)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fitted_estimator_is_allowed(family):
    demand_allowed(made(model_zoo.estimators()[f"sklearn {family}"]))


@pytest.mark.verify("estimators")
def test_every_fitted_estimator_is_allowed(count):
    makers = list({**model_zoo.estimators(), **model_zoo.MODELS}.items())
    missing = []
    for name, make in makers[:: max(1, len(makers) // count(4, full=1_000))]:
        try:
            model = made(make)
        except ImportError:
            missing.append(name)
            continue
        for each in model if isinstance(model, list) else [model]:
            demand_allowed(each)
    assert len(missing) < 8


@pytest.mark.parametrize("name", ["numpy", "plain", "scipy", "distributions", "neighbours"])
def test_what_models_are_made_of_is_allowed(name):
    model = made(model_zoo.MODELS[name])
    for each in model if isinstance(model, list) else [model]:
        for raw in (dumped(each), pickle.dumps(each, 4)):
            assert judged(look(raw)).decision is Decision.ALLOW, look(raw)


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "xz", "lzma"])
def test_every_compressor_of_joblib_is_followed(method):
    benign = dumped({"a": np.arange(50)}, (method, 3))
    assert judged(look(benign)).decision is Decision.ALLOW, look(benign)


def test_an_array_is_followed_by_its_type_and_shape_and_not_by_its_bytes():
    code = b"cos\nsystem\n(S'id'\ntR."
    for kind in ("u1", "<i4", ">f8", "U2", "?", "M8[s]", [("a", "u1"), ("b", "<f4")]):
        size = np.dtype(kind).itemsize
        array = np.frombuffer(bytes(size * 8), kind).copy()
        raw = dumped([array, array[:0], array.reshape(2, 4, order="F")])
        assert judged(look(raw)).decision is Decision.ALLOW, (kind, look(raw))
        behind = raw[:-1] + b"0" + code
        assert judged(look(behind)).decision is Decision.DENY


def test_the_pickle_of_an_array_of_objects_is_judged():
    good = dumped(np.array([{"a": 1}, None], dtype=object))
    assert judged(look(good)).decision is Decision.ALLOW
    at = good.rindex(b"\x80\x05")
    for gadget in attack_pickles.GADGETS[:10]:
        bad = good[:at] + attack_pickles.simple(*gadget) + good[good.rindex(b".") :]
        assert judged(look(bad)).decision is Decision.DENY


def test_the_bytes_of_an_array_are_opcodes_to_a_loader_without_joblib():
    code = b"\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R."
    raw = dumped(np.frombuffer(code.ljust(64, b"\x00"), "u1").copy())
    at = raw.index(code)
    opcode = raw.rindex(b"b", 0, at)
    unpadded = raw[: opcode + 1].replace(
        b"numpy_array_alignment_bytes", b"numpy_array_alignment_bytez"
    )
    unpadded += raw[at:]
    rules = [each.rule for each in look(unpadded)]
    assert "scan.format.polyglot" in rules
    assert judged(look(unpadded)).decision is Decision.DENY
    assert judged(look(raw)).decision is Decision.ALLOW


def test_a_wrapper_that_cannot_be_followed_holds():
    raw = dumped(np.arange(4.0)).replace(b"\x8c\x02f8", b"\x8c\x02w8")
    assert judged(look(raw)).decision is Decision.HOLD


def test_a_cut_file_of_joblib_is_denied():
    raw = dumped([np.arange(4.0), "end"])
    for cut in range(2, len(raw)):
        assert judged(look(raw[:cut])).decision is Decision.DENY, cut


def test_a_file_of_old_joblib_names_its_arrays_beside_it_only():
    def naming(name):
        return attack_pickles.whole(
            attack_pickles.asked("joblib.numpy_pickle", "NDArrayWrapper"), b")\x81}(",
            attack_pickles.text("filename"), attack_pickles.text(name),
            attack_pickles.text("subclass"), attack_pickles.asked("numpy", "ndarray"), b"ub",
        )  # fmt: skip

    assert judged(look(naming("model.pkl_01.npy"))).decision is Decision.ALLOW
    for name in ("../x.npy", "/etc/x.npy", "a/../../x", "..\\x", ".."):
        assert judged(look(naming(name))).decision is Decision.DENY


def test_a_file_that_old_joblib_compressed_is_bounded():
    plain = bytes(SETTINGS.member_bytes_max + 1)
    raw = b"ZF" + hex(len(plain)).ljust(19).encode() + zlib.compress(plain)
    assert judged(pickle_findings("m.pkl", memoryview(raw), SETTINGS)).decision is Decision.HOLD
    cut = raw[: len(raw) // 2]
    assert judged(pickle_findings("m.pkl", memoryview(cut), SETTINGS)).decision is Decision.DENY


def test_torchs_old_format_is_read_to_its_last_byte():
    storages = [Kept("0", "FloatStorage", bytes(12)), Kept("1", "LongStorage", bytes(16))]
    raw = legacy_file([View("a", "0", (3,), (1,)), View("b", "1", (2,), (1,))], storages)
    assert judged(look(raw, "m.pt")).decision is Decision.ALLOW, look(raw, "m.pt")
    assert judged(look(raw + b"\x00", "m.pt")).decision is Decision.HOLD
    for cut in range(16, len(raw), 7):
        assert judged(look(raw[:cut], "m.pt")).decision is Decision.DENY
    other = raw.replace(struct.pack("<Q", 3), struct.pack("<Q", 4))
    assert judged(look(other, "m.pt")).decision is Decision.DENY


def test_the_old_format_in_the_name_of_a_tar_archives_member_is_denied():
    block = bytearray(attack_pickles.STORAGE[:15].ljust(512, b"\x00"))
    block[124:136], block[148:156] = b"00000000000\0", b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    with tarfile.open(fileobj=io.BytesIO(bytes(block) + bytes(1024))) as archive:
        assert len(archive.getmembers()) == 1  # Python reads it as an archive
    assert (
        judged(pickle_findings("m.pt", memoryview(bytes(block)), SETTINGS)).decision
        is Decision.DENY
    )
    assert [each.rule for each in pickle_findings("m.pt", memoryview(bytes(block)), SETTINGS)] == [
        "scan.format.polyglot"
    ]


def test_members_of_torchs_tar_files_are_read_to_their_last_byte():
    kind = b"ctorch\nFloatStorage\n"
    entry = b"\x80\x02(X\x03\x00\x00\x00keyX\x03\x00\x00\x00cpu" + kind + b"t."
    storages = pickle.dumps(1, 2) + entry + struct.pack("<Q3f", 3, 1, 2, 3) + pickle.dumps([], 2)
    assert pickle_findings("m.tar!storages", memoryview(storages), SETTINGS) == ()
    tensors = pickle.dumps(1, 2) + b"\x80\x02(K\x01K\x01ctorch\nFloatTensor\nt."
    tensors += struct.pack("<ii3q", 1, 0, 3, 1, 0)
    assert pickle_findings("m.tar!tensors", memoryview(tensors), SETTINGS) == ()
    more = memoryview(storages + b"\x01")
    assert judged(pickle_findings("m.tar!storages", more, SETTINGS)).decision is Decision.HOLD


def test_offsets_rise():
    """Findings name where in the file they are: later opcodes, later bytes."""
    raw = attack_pickles.whole(
        *(attack_pickles.called("os", name, attack_pickles.text("x")) + b"0" for name in "abc"),
        b"N",
    )
    places = [int(each.evidence.rpartition("byte ")[2][:-1]) for each in look(raw, "m.pkl")]
    assert all(first < second for first, second in pairwise(places))
