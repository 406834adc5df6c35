"""`modelkeep convert` to ONNX: what a scan allows, in a process of its own, and only if both agree.

Estimators of scikit-learn here; Keras and TensorFlow in tests/flows/test_conversion.py.
"""

import pickle
import stat
import warnings

import attack_pickles
import joblib
import numpy as np
import onnxruntime
import pytest
from command import Desk, modelkeep
from model_files import node, saved_model
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from modelkeep.adapters.conversion_process import ConversionAsk, asked
from modelkeep.core.errors import IntegrityError, UnavailableError, UsageError
from modelkeep.sdk.conversion import to_onnx

pytestmark = pytest.mark.slow
ROWS, LABELS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[LABELS]


def fitted(model, labels=LABELS):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(ROWS, labels)


@pytest.fixture(scope="module")
def pipeline():
    return fitted(make_pipeline(StandardScaler(), LogisticRegression()))


@pytest.fixture
def source(pipeline, tmp_path):
    path = tmp_path / "iris.joblib"
    joblib.dump(pipeline, path, compress=3)
    return path


def test_an_estimator_becomes_onnx_that_is_admitted_and_says_the_same(source, pipeline, tmp_path):
    desk, target = Desk.made(tmp_path / "desk", second=False), tmp_path / "iris.onnx"
    said = modelkeep("convert", source, "-o", target).out
    assert "label(s) are equal" in said
    assert "(seed 0)" in said
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    session = onnxruntime.InferenceSession(target.read_bytes())
    labels, shares = session.run(None, {"x": ROWS.astype("f4")})
    assert np.array_equal(labels, pipeline.predict(ROWS))
    assert np.allclose(shares, pipeline.predict_proba(ROWS), atol=1e-5)
    admitted = desk.json("admit", target, "--name", "iris")
    assert admitted["version"] == 1
    assert modelkeep("convert", source, "-o", target, "--json", wanted=2).error["code"] == (
        "file.exists"
    )


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        (RandomForestClassifier(5, random_state=1), NAMES),
        (LinearSVC(random_state=1), LABELS),
        (LinearSVC(random_state=1), LABELS > 0),
        (RandomForestRegressor(5, random_state=1), ROWS[:, 0]),
        (KMeans(3, n_init=1, random_state=1), None),
        (StandardScaler(), None),
    ],
)
def test_each_kind_of_estimator_is_compared_with_itself(model, labels, tmp_path):
    source = tmp_path / "m.pkl"
    source.write_bytes(pickle.dumps(fitted(model, labels)))
    done = modelkeep("convert", source, "-o", tmp_path / "m.onnx", "--json").json
    assert done["framework"] == "sklearn"
    assert done["unsheltered"] == []
    assert done["agreement"]["largest"] < 1e-3
    assert done["agreement"]["numbers"] + done["agreement"]["labels"] >= 74


def test_what_a_scan_denies_or_holds_is_not_converted(tmp_path):
    source, target = tmp_path / "m.pkl", tmp_path / "m.onnx"
    for raw in (
        attack_pickles.line_call("os", "system"),
        attack_pickles.line_call("somewhere", "Thing"),
    ):
        source.write_bytes(raw)
        error = modelkeep("convert", source, "-o", target, "--json", wanted=3).error
        assert error["code"] == "convert.verdict"
    assert [each.name for each in tmp_path.iterdir()] == ["m.pkl"]


def test_nothing_is_written_that_does_not_agree(source, tmp_path):
    words = ("convert", source, "-o", tmp_path / "o.onnx", "--tolerance", "0", "--json")
    assert modelkeep(*words, wanted=4).error["code"] == "conversion.differs"
    assert [each.name for each in tmp_path.iterdir()] == [source.name]


def test_what_does_not_take_rows_of_numbers_or_is_no_model_is_refused(tmp_path):
    words = CountVectorizer().fit(["a model", "of words"])
    cases = {"words.pkl": (pickle.dumps(words), 2, "conversion.inputs")}
    cases["list.pkl"] = (pickle.dumps([1, 2]), 2, "conversion.inputs")
    cases["some.txt"] = (b"some text", 2, "conversion.kind")
    for name, (raw, status, code) in cases.items():
        (tmp_path / name).write_bytes(raw)
        line = ("convert", tmp_path / name, "-o", tmp_path / "o.onnx", "--json")
        assert modelkeep(*line, wanted=status).error["code"] == code
    for tolerance in ("1", "-1", "nan"):
        line = ("convert", tmp_path / "some.txt", "-o", tmp_path / "o.onnx", "--tolerance")
        found = modelkeep(*line, tolerance, "--json", wanted=2)
        assert found.error["code"] == "conversion.tolerance"
    assert not (tmp_path / "o.onnx").exists()


def test_a_folder_with_links_is_refused(tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").symlink_to("/etc/passwd")
    with pytest.raises(UsageError) as refused:
        to_onnx(folder, tmp_path / "o.onnx")
    assert refused.value.code == "conversion.kind"


def test_a_framework_that_is_not_installed_is_named(tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(saved_model(node("a", "Const")))
    error = modelkeep("convert", folder, "-o", tmp_path / "o.onnx", "--json", wanted=2).error
    assert error["code"] == "conversion.package"
    assert "tensorflow" in error["message"]
    assert "pip install" in error["hint"]


def test_a_process_that_hangs_is_killed_and_one_that_eats_memory_fails(source, tmp_path):
    target = tmp_path / "o.onnx"
    with pytest.raises(UnavailableError) as refused:
        to_onnx(source, target, wait_s=0.2)
    assert refused.value.code == "conversion.ended"
    hungry = fitted(RandomForestClassifier(5, random_state=1))
    hungry.n_features_in_ = 4_000_000_000  # rows of 16 GB
    path = tmp_path / "hungry.pkl"
    path.write_bytes(pickle.dumps(hungry))
    error = modelkeep("convert", path, "-o", target, "--json", wanted=4).error
    assert error["code"] == "conversion.failed"
    assert not target.exists()


class Probe:
    def __reduce__(self):
        return exec, (PROBE, {})


PROBE = """
import os, socket
reached = [name for name in os.environ if "SECRET" in name or name in ("HOME", "PATH")]
for what, does in {
    "read": lambda: open("/etc/passwd"),
    "write": lambda: open("/tmp/written", "wb"),
    "socket": socket.socket,
    "fork": os.fork,
    "kill": lambda: os.kill(os.getppid(), 0),
}.items():
    try:
        does()
    except OSError:
        continue
    reached.append(what)
raise ValueError(f"reached: {reached}")
"""


def test_what_runs_when_a_model_is_loaded_reaches_nothing(tmp_path, monkeypatch):
    source = tmp_path / "m.pkl"
    source.write_bytes(pickle.dumps(Probe()))
    monkeypatch.setenv("A_SECRET", "of this process")
    ask = ConversionAsk(
        framework="sklearn",
        path=str(source),
        rtol=0,
        atol=0,
        seed=0,
        memory_bytes=1 << 32,
        cpu_s=60,
    )
    with pytest.raises(IntegrityError) as told:
        asked(ask, wait_s=60)  # as if no scan had denied it
    assert told.value.message == "ValueError: reached: []"
