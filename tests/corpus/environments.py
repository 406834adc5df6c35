"""Which Python has which natural loader, and how to make it.

Loaders that the developers' own environment has are proven in every run; the others have an
environment of their own each, made once from a lock beside this file (`./run verify corpus`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENVS = HERE.parents[1] / ".venv-peers"
OWN = "own"
# Name: what is installed first and alone (any wheel of torch will do), and what is imported once.
FIRST = {"torch": ("torch==2.13.0",), "tensorflow": (), "older": ()}
WARM = {
    OWN: ("numpy", "joblib", "yaml", "jinja2"),
    "torch": ("torch", "joblib"),
    "tensorflow": ("tensorflow", "keras"),
    "older": (),
}
_LOADERS = {
    "torch": (
        "torch_load", "torch_jit", "torch_package", "torch_export", "torch_call", "dill_load",
        "keras_torch_load", "transformers_config", "transformers_tokenizer", "mlflow_load",
        "sentence_transformer", "jsonpickle_load", "hyperpyyaml", "lxml_parse", "pandas_pickle",
        "stable_baselines", "joblib_load_lz4", "hydra_instantiate", "nemo_restore",
    ),
    "tensorflow": (
        "keras_load", "keras_tf_load", "keras_json", "h5_walk", "savedmodel_init", "frozen_graph",
        "text_graph",
    ),
    "older": ("onnx_run_1_17", "keras_3_8", "hydra_1_3_2", "nemo_restore_older",
              "instantiate_from_config"),
}  # fmt: skip
HOME = {loader: name for name, loaders in _LOADERS.items() for loader in loaders}


def home_of(loader: str) -> str:
    """The name of the environment that has this loader."""
    return HOME.get(loader, OWN)


def python_of(name: str) -> Path:
    """The Python of an environment, which is made if it is not there as its lock says.

    Raises:
        RuntimeError: it cannot be made; what the tool said.
    """
    if name == OWN:
        return Path(sys.executable)
    folder, lock = VENVS / f"corpus-{name}", HERE / "environments" / name / "requirements.lock"
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join([*FIRST[name], lock.read_text()])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        *([*pip, each] for each in FIRST[name]),
        [*pip, "--no-deps", "--require-hashes", "-r", str(lock)],
    ]
    for step in steps:
        done = subprocess.run(step, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name}: {(done.stderr or done.stdout)[-800:]}")
    stamp.write_text(wanted)
    return python
