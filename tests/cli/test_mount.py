"""`modelkeep mount`: a real mount, where this machine has FUSE; every byte of it is proven."""

import ctypes.util
import errno
import mmap
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import Process
from onnx_models import two_models
from tensor_files import tensors, tuned, written

from modelkeep.kernels.tensors import safetensors_layout


def _missing() -> str:
    if not Path("/dev/fuse").exists():
        return "this kernel has no /dev/fuse"
    if ctypes.util.find_library("fuse3") is None:
        return "libfuse3 is not installed (Debian: fuse3)"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return ""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(_missing()), reason=_missing() or "-")]
pytest.importorskip("mfusepy", reason="the extra `mount` is not installed", exc_type=ImportError)


@pytest.fixture
def mounted(running, tmp_path):
    """Mounts a desk's keep; the process and the folder."""

    def mount(desk):
        folder = tmp_path / "mnt"
        folder.mkdir(exist_ok=True)
        process = running(Process(*desk.words("mount", folder, "--json")))
        assert process.event("mounted")["folder"] == str(folder)
        return process, folder

    yield mount
    command = [shutil.which("fusermount3"), "-u", "-z", tmp_path / "mnt"]
    subprocess.run(command, capture_output=True, check=False)


@pytest.fixture
def family(desk, tmp_path):
    """lm:1 and lm:2 with several chunks each, and a folder with a link in it."""
    desk.configure("[serve]", "[vault]\nsegment_bytes = 65536\n\n[serve]")
    base = tensors(1, count=3, items=60_000)
    for arrays in (base, tuned(base, "layer.1")):
        desk.run("admit", written(tmp_path / "m.safetensors", arrays), "--name", "lm")
    data = tmp_path / "data"
    (data / "deep" / "er").mkdir(parents=True)
    (data / "empty").mkdir()
    (data / "deep" / "er" / "run.sh").write_text("#!/bin/sh\n")
    (data / "deep" / "er" / "run.sh").chmod(0o755)
    (data / "link").symlink_to("deep/er/run.sh")
    np.save(data / "array.npy", base["layer.0"])
    (data / "nothing").touch()
    desk.run("save", data, "--name", "data")
    desk.run("alias", "lm:prod", "1")
    return desk


def test_models_and_snapshots_are_folders_with_the_bytes_that_were_admitted(
    family, mounted, tmp_path
):
    _, folder = mounted(family)
    assert names(folder) == ["models", "snapshots"]
    assert names(folder / "models") == ["data", "lm"]
    assert names(folder / "models" / "lm") == ["1", "2", "prod"]
    assert (folder / "models" / "lm" / "prod").readlink() == Path("1")
    newest = folder / "models" / "lm" / "2" / "m.safetensors"
    assert newest.read_bytes() == (tmp_path / "m.safetensors").read_bytes()
    assert names(folder / "snapshots") == ["1", "2", "3", "head"]
    assert names(folder / "snapshots" / "1" / "lm") == ["1"]
    assert names(folder / "snapshots" / "head") == ["data", "lm"]
    old = folder / "snapshots" / "1" / "lm" / "1" / "m.safetensors"
    assert old.read_bytes() == (folder / "models" / "lm" / "prod" / "m.safetensors").read_bytes()
    assert old.stat().st_size == newest.stat().st_size
    assert family.entries("vault.mounted")[0]["facts"]["head"] == 3


def test_a_saved_folder_is_there_with_its_links_modes_and_times(family, mounted, tmp_path):
    _, folder = mounted(family)
    data = folder / "models" / "data" / "1"
    assert names(data) == ["array.npy", "deep", "empty", "link", "nothing"]
    assert names(data / "empty") == []
    assert (data / "link").read_text() == "#!/bin/sh\n"
    assert os.access(data / "link", os.X_OK)
    assert (data / "nothing").read_bytes() == b""
    source = tmp_path / "data" / "array.npy"
    assert (data / "array.npy").stat().st_mtime_ns == source.stat().st_mtime_ns


def test_arrays_and_tensors_open_straight_from_it(family, mounted):
    """What numpy and safetensors do: map the file, read the header, look at parts."""
    _, folder = mounted(family)
    base = tensors(1, count=3, items=60_000)
    array = np.load(folder / "models" / "data" / "1" / "array.npy", mmap_mode="r")
    assert np.array_equal(array[1000:2000], base["layer.0"][1000:2000])
    wanted = tuned(base, "layer.1")
    with (folder / "models" / "lm" / "2" / "m.safetensors").open("rb") as stream:
        view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        for each in safetensors_layout(view).tensors:
            raw = view[each.offset : each.offset + each.length]
            assert np.array_equal(np.frombuffer(raw, np.float32), wanted[each.name])
            del raw


def test_a_range_may_begin_and_end_anywhere(family, mounted, tmp_path):
    _, folder = mounted(family)
    whole = (tmp_path / "m.safetensors").read_bytes()
    random = np.random.default_rng(5)
    with (folder / "models" / "lm" / "2" / "m.safetensors").open("rb", buffering=0) as stream:
        for start, length in random.integers(0, len(whole), (60, 2)):
            assert os.pread(stream.fileno(), int(length), int(start)) == whole[start:][:length]
        assert os.pread(stream.fileno(), 100, len(whole)) == b""


def test_nothing_can_be_written_and_others_may_use_the_keep_meanwhile(family, mounted):
    _, folder = mounted(family)
    file = folder / "models" / "lm" / "1" / "m.safetensors"
    for change in ((folder / "models" / "new").mkdir, file.touch, file.unlink):
        with pytest.raises(OSError, match="Read-only") as caught:
            change()
        assert caught.value.errno == errno.EROFS
    with pytest.raises(FileNotFoundError):
        (folder / "models" / "lm" / "9").stat()
    with pytest.raises(FileNotFoundError):
        (folder / "snapshots" / "7").stat()
    assert family.admit()["version"] == 1
    assert not (folder / "models" / "digits").exists()


def test_a_damaged_chunk_is_an_error_and_the_rest_stays_readable(family, mounted):
    packs = [path for path in (family.main / "pack").rglob("*") if path.is_file()]
    largest = max(packs, key=lambda path: path.stat().st_size)
    raw = bytearray(largest.read_bytes())
    raw[100] ^= 1  # of the first chunk
    largest.write_bytes(raw)
    process, folder = mounted(family)
    with (folder / "models" / "lm" / "1" / "m.safetensors").open("rb", buffering=0) as stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            stream.read(10)
        assert len(os.pread(stream.fileno(), 1000, size_bytes - 1000)) == 1000
    process.interrupt()
    assert "damaged in every store" in process.ended().err


def test_ctrl_c_unmounts(one, mounted):
    process, folder = mounted(one)
    assert (folder / "models" / "digits" / "1" / "digits-v1.onnx").read_bytes() == (
        two_models()[0].read_bytes()
    )
    process.interrupt()
    outcome = process.ended()
    assert (outcome.status, outcome.err) == (0, "")
    assert names(folder) == []
    assert not os.path.ismount(folder)


def test_only_an_empty_folder_is_mounted_on(one, tmp_path):
    assert one.refusal("mount", one.keep, wanted=2) == "mount.folder"
    assert one.refusal("mount", tmp_path / "nowhere", wanted=2) == "mount.folder"
