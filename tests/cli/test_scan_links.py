"""`modelkeep scan` of a folder: a link may not bring in what lies elsewhere."""

import pytest
from command import modelkeep


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.txt").write_text("secret")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "vocab.txt").write_text("a b c")
    return tmp_path / "model"


def found(folder, *, wanted):
    lines = modelkeep("scan", folder, "--json", wanted=wanted).lines
    return {each["path"].rpartition("/")[2]: each for each in lines}


def test_a_link_out_of_the_folder_is_held(folder):
    (folder / "merges.txt").symlink_to("../elsewhere/secret.txt")
    (folder / "data").symlink_to("../elsewhere")
    files = found(folder, wanted=3)
    assert files["vocab.txt"]["decision"] == "allow"
    for name in ("merges.txt", "data"):
        assert files[name]["decision"] == "hold"
        assert files[name]["findings"][0]["rule"] == "scan.format.link"


def test_a_link_within_the_folder_is_as_good_as_a_file(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "again.txt").symlink_to("../vocab.txt")
    (folder / "latest").symlink_to("deep")
    assert {each["decision"] for each in found(folder, wanted=0).values()} == {"allow"}


def test_links_of_a_hub_cache_into_its_own_blobs_are_allowed(tmp_path):
    model = tmp_path / "models--a--b"
    snapshot = model / "snapshots" / ("0" * 40)
    (snapshot / "unet").mkdir(parents=True)
    (model / "blobs").mkdir()
    (model / "blobs" / ("a" * 64)).write_text("a b c")
    (snapshot / "vocab.txt").symlink_to(f"../../blobs/{'a' * 64}")
    (snapshot / "unet" / "vocab.txt").symlink_to(f"../../../blobs/{'a' * 64}")
    assert {each["decision"] for each in found(snapshot, wanted=0).values()} == {"allow"}
    (model / "blobs" / ("b" * 64)).symlink_to("/etc/hostname")
    (snapshot / "merges.txt").symlink_to(f"../../blobs/{'b' * 64}")
    assert found(snapshot, wanted=3)["merges.txt"]["decision"] == "hold"


def test_tensors_that_a_link_brings_from_elsewhere_deny_the_graph(folder):
    onnx = pytest.importorskip("onnx")
    place = [
        onnx.StringStringEntryProto(key=key, value=value)
        for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "8"))
    ]
    tensor = onnx.TensorProto(
        name="w", dims=[2], data_type=1, data_location="EXTERNAL", external_data=place
    )
    graph = onnx.GraphProto(
        name="g",
        node=[onnx.helper.make_node("Identity", ["w"], ["y"])],
        initializer=[tensor],
        output=[onnx.helper.make_tensor_value_info("y", 1, [2])],
    )
    onnx.save(onnx.helper.make_model(graph), folder / "model.onnx")
    (folder / "w.bin").write_bytes(bytes(8))
    assert found(folder, wanted=0)["model.onnx"]["decision"] == "allow"
    (folder / "w.bin").rename(folder.parent / "elsewhere" / "w.bin")
    (folder / "w.bin").symlink_to("../elsewhere/w.bin")
    assert found(folder, wanted=3)["model.onnx"]["decision"] == "deny"
