"""The natural loaders: what a person calls to get what is in a file, with the options it needs.

Each takes a path; what it needs is imported when it is called. `LOADERS` gives them names. What
comes out of a file is used as little as is usual: templates are rendered, graphs run once.
"""
# ruff: noqa: FBT003, PLC0415, PTH123, S106, S202, S301, S317, S701, SIM115 - as they do

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

import frameworks

warnings.simplefilter("ignore")


# ---- pickles ----


def pickles(path):
    """All streams of a file, as those who append to one read it."""
    with open(path, "rb") as file:
        while True:
            try:
                pickle.load(file)
            except EOFError:
                return


def pickle_or_safetensors(path):
    """A reader that tries one format after the other."""
    try:
        with open(path, "rb") as file:
            return pickle.load(file)
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError):
        from safetensors.numpy import load_file

        return load_file(path)


def joblib_load(path):
    import joblib

    return joblib.load(path)


def joblib_load_lz4(path):
    """Of a writer that has the library lz4."""
    return joblib_load(path)


def joblib_transform(path):
    """A transformer is loaded and used once."""
    import numpy as np

    return joblib_load(path).transform(np.ones((1, 1)))


def dill_load(path):
    import dill

    with open(path, "rb") as file:
        return dill.load(file)


def cloudpickle_load(path):
    import cloudpickle

    with open(path, "rb") as file:
        return cloudpickle.load(file)


def pandas_pickle(path):
    import pandas

    return pandas.read_pickle(path)


def base64_pickle(path):
    """A pickle as text, as configurations carry it."""
    import base64

    return pickle.loads(base64.b64decode(Path(path).read_bytes()))


# ---- arrays ----


def npy(path):
    import numpy as np

    return np.load(path, allow_pickle=True)


def npz(path):
    import numpy as np

    with np.load(path, allow_pickle=True) as held:
        return [held[name] for name in held.files]


def npz_members(path):
    """Every member by the loader of single arrays, which takes pickles too."""
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        return [
            np.load(io.BytesIO(archive.read(name)), allow_pickle=True)
            for name in archive.namelist()
        ]


def npy_numbers(path):
    """Arrays of numbers alone: nothing is unpickled."""
    import numpy as np

    with np.load(path, allow_pickle=False) as held:
        return [held[name] for name in held.files]


def npy_plain(path):
    import numpy as np

    return np.load(path, allow_pickle=False)


# ---- archives ----


def tar_extract(path):
    """Unpacks as Python did by default up to 3.13."""
    Path("out").mkdir()
    with tarfile.open(path) as archive:
        archive.extractall("out", filter="fully_trusted")


def tar_then_pickle(path):
    tar_extract(path)
    with open("out/model.pkl", "rb") as file:
        return pickle.load(file)


def tar_hard(path):
    """Unpacks, then reads what was unpacked."""
    tar_extract(path)
    return Path("out/w").read_bytes()


def tar_rewritten(path):
    """Unpacks as GNU tar before 1.35 and others do: files open what is there already."""
    with tarfile.open(path) as archive:
        for entry in archive:
            target = Path("out", entry.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry.issym():
                target.symlink_to(entry.linkname)
            else:
                target.write_bytes(archive.extractfile(entry).read())


def zip_extract(path):
    with zipfile.ZipFile(path) as archive:
        archive.extractall("out")


def zip_then_pickle(path):
    """A bundle is opened, the pickle in it loaded."""
    with zipfile.ZipFile(path) as archive:
        return pickle.loads(archive.read("model.pkl"))


def zip_zip_pickle(path):
    with (
        zipfile.ZipFile(path) as outer,
        zipfile.ZipFile(io.BytesIO(outer.read("inner.zip"))) as inner,
    ):
        return pickle.loads(inner.read("model.pkl"))


def unpacked(path):
    import shutil

    Path("out").mkdir()
    shutil.unpack_archive(path, "out")


# ---- documents and templates ----


def yaml_all(path):
    import yaml

    with open(path, "rb") as file:
        return list(yaml.load_all(file, Loader=yaml.UnsafeLoader))


def yaml_safe(path):
    import yaml

    with open(path, "rb") as file:
        return json.dumps(yaml.safe_load(file))


def _rendered(text):
    """As loaders render that have no sandbox (CVE-2024-34359)."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([".", "/"]),
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", "jinja2.ext.do"],
    )
    environment.globals["raise_exception"] = _refused
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes"}]
    return environment.from_string(text).render(
        messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=True, tools=[]
    )


def _refused(text):
    raise ValueError(text)


def jinja(path):
    return _rendered(Path(path).read_text())


def tokenizer_template(path):
    found = json.loads(Path(path).read_text())["chat_template"]
    if isinstance(found, list):
        found = found[0]["template"]
    return _rendered(found)


def gguf_template(path):
    """Reads the header as llama.cpp does, then renders."""
    import struct

    raw = Path(path).read_bytes()
    at = 24
    for _ in range(struct.unpack_from("<Q", raw, 16)[0]):
        values = []
        for _ in range(2):
            if values:
                at += 4
            size = struct.unpack_from("<Q", raw, at)[0]
            values.append(raw[at + 8 : at + 8 + size].decode())
            at += 8 + size
        if values[0].startswith("tokenizer.chat_template"):
            _rendered(values[1])


def xml_sax(path):
    import xml.sax
    import xml.sax.handler

    parser = xml.sax.make_parser()
    parser.setFeature(xml.sax.handler.feature_external_ges, True)
    parser.parse(path)


# ---- graphs ----


def onnx_run(path):
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {
        each.name: np.ones([d if isinstance(d, int) else 1 for d in each.shape], np.float32)
        for each in session.get_inputs()
    }
    return session.run(None, feeds)


def onnx_run_1_17(path):
    """By the version of onnxruntime that so many services still have."""
    import onnxruntime

    assert onnxruntime.__version__.startswith("1.17."), onnxruntime.__version__
    return onnx_run(path)


def _opened(opener):
    return lambda path: pickle.load(opener(path))


LOADERS = {
    "pickle": lambda path: pickle.load(open(path, "rb")),
    "pickle_python": lambda path: pickle._Unpickler(open(path, "rb")).load(),
    "gzip_pickle": _opened(gzip.open),
    "bz2_pickle": _opened(bz2.open),
    "xz_pickle": _opened(lzma.open),
    "zlib_pickle": lambda path: pickle.loads(zlib.decompress(Path(path).read_bytes())),
    "zlib_zlib_pickle": lambda path: pickle.loads(
        zlib.decompress(gzip.decompress(Path(path).read_bytes()))
    ),
    "gzip_read": lambda path: gzip.open(path).read(),
    **{
        name: each
        for name, each in {**vars(frameworks), **globals()}.items()
        if callable(each) and getattr(each, "__module__", "") in (__name__, frameworks.__name__)
    },
}
