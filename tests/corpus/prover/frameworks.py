"""The loaders of whole frameworks; see `loaders`."""
# ruff: noqa: PLC0415, PTH123, S202, S301 - they load what is hostile

import os
import tarfile
from pathlib import Path

# ---- torch ----


def torch_load(path):
    import torch

    return torch.load(path, weights_only=False, map_location="cpu")


def torch_jit(path):
    import torch

    model = torch.jit.load(path)
    return model(torch.ones(1))


def torch_package(path):
    import torch.package

    return torch.package.PackageImporter(path).load_pickle("model", "model.pkl")


def torch_export(path):
    import torch

    return torch.export.load(path)


def torch_call(path):
    """A whole module is loaded and called."""
    import torch

    return torch_load(path)(torch.ones(1))


def stable_baselines(path):
    from stable_baselines3.common.save_util import load_from_zip_file

    return load_from_zip_file(path, device="cpu")


# ---- keras ----


def keras_load(path):
    import keras

    return keras.saving.load_model(path, safe_mode=False)


def keras_safe(path):
    import keras

    return keras.saving.load_model(path)


def keras_json(path):
    import keras

    keras.config.enable_unsafe_deserialization()
    return keras.models.model_from_json(Path(path).read_text())


def keras_torch_load(path):
    """With torch as the backend: its modules are layers."""
    os.environ["KERAS_BACKEND"] = "torch"
    return keras_load(path)


def keras_tf_load(path):
    """With TensorFlow, which looks words up."""
    import tensorflow as tf

    assert tf.__version__
    return keras_load(path)


def keras_3_8(path):
    """By a version that many still have, with its safe mode on."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    assert keras.__version__.startswith("3.8."), keras.__version__
    return keras_safe(path)


def h5_walk(path):
    """Opens every object."""
    import h5py

    with h5py.File(path) as file:
        for name in file:
            try:
                file[name]
            except (KeyError, OSError):
                continue


# ---- tensorflow ----


def savedmodel_init(path):
    """Loads a SavedModel and asks for what it serves."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return loaded.signatures["serving_default"]()


def frozen_graph(path):
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(Path(path).read_bytes())
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        names = [each.name for each in graph.node]
        tf.import_graph_def(graph, name="")
        return session.run(names[-1] + ":0")


def text_graph(path):
    import tensorflow as tf
    from google.protobuf import text_format

    graph = tf.compat.v1.GraphDef()
    text_format.Parse(Path(path).read_text(), graph)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        tf.import_graph_def(graph, name="")
        return session.run(graph.node[-1].name + ":0")


# ---- projects ----


def hydra_instantiate(path):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    return instantiate(OmegaConf.load(path))


def instantiate_from_config(path):
    """As latent diffusion does (`ldm.util`), and what was made of it."""
    import importlib

    from omegaconf import OmegaConf

    config = OmegaConf.load(path)["model"]
    module, name = config["target"].rsplit(".", 1)
    found = getattr(importlib.import_module(module), name)
    return found(**OmegaConf.to_container(config.get("params", OmegaConf.create())))


def nemo_restore(path):
    """As NeMo restores: unpacks, reads the configuration, makes what it names."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    with tarfile.open(path) as archive:
        archive.extractall("out", filter="fully_trusted")
    config = OmegaConf.load("out/model_config.yaml")
    instantiate(config)
    weights = Path("out/model_weights.ckpt")
    return torch_load(str(weights)) if weights.exists() else None


def hydra_1_3_2(path):
    """By a version that refuses no name."""
    import hydra

    assert hydra.__version__ == "1.3.2", hydra.__version__
    return hydra_instantiate(path)


def nemo_restore_older(path):
    import hydra

    assert hydra.__version__ == "1.3.2", hydra.__version__
    return nemo_restore(path)


def mlflow_load(path):
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(path)


def transformers_config(path):
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(path, trust_remote_code=True, local_files_only=True)


def transformers_tokenizer(path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, trust_remote_code=True, local_files_only=True)


def sentence_transformer(path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(path, trust_remote_code=True, local_files_only=True, device="cpu")


def jsonpickle_load(path):
    import jsonpickle

    return jsonpickle.decode(Path(path).read_text())


def hyperpyyaml(path):
    from hyperpyyaml import load_hyperpyyaml

    with open(path) as file:
        return load_hyperpyyaml(file)


def lxml_parse(path):
    from lxml import etree

    parser = etree.XMLParser(load_dtd=True, resolve_entities=True, no_network=True)
    return etree.tostring(etree.parse(path, parser))
