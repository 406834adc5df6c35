"""Folders and configurations of whole projects: what they name is imported, called, unpickled."""
# ruff: noqa: E501 - tables

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping

from model_files import tarred

from modelkeep.core.verdict import Decision
from tests.corpus.cases import Case, Family, Harm, Trap, Traps
from tests.corpus.opcodes import called, line, mapped, named, state, text, whole
from tests.corpus.packed import acting, calm
from tests.corpus.torch_files import archive

HUB = Family("transformers", "transformers_config", "")
HYDRA = Family("hydra", "hydra_instantiate", "config.yaml")
DIFFUSION = Family("diffusion", "instantiate_from_config", "v1-inference.yaml")
NEMO = Family("nemo", "nemo_restore", "model.nemo")
MLFLOW = Family("mlflow", "mlflow_load", "")
OTHER = Family("other", "jsonpickle_load", "model.json")
HOLD = Decision.HOLD


def cases(traps: Traps) -> Iterator[Case]:
    """All of them."""
    yield from _hub(traps)
    yield from _sentences(traps)
    yield from _diffusion(traps)
    yield from _hydra(traps)
    yield from _nemo(traps)
    yield from _mlflow(traps)
    yield from _others(traps)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


_BERT = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8,
         "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 8,
         "vocab_size": 9, "max_position_embeddings": 8}  # fmt: skip
_SOURCE = """from transformers import PretrainedConfig
ACT
class Own(PretrainedConfig):
    model_type = "own"
"""


def _source(trap: Trap) -> bytes:
    return _SOURCE.replace("ACT", trap.code).encode()


def _hub(traps: Traps) -> Iterator[Case]:
    twin = {"config.json": _json(_BERT)}
    trap = traps("transformers-auto-map")
    config = _BERT | {"auto_map": {"AutoConfig": "own.Own"}, "model_type": "own"}
    evil = {"config.json": _json(config), "own.py": _source(trap)}
    yield HUB.case("auto-map", evil, twin, wanted=HOLD)
    trap = traps("transformers-tokenizer-code")
    config = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    code = f"from transformers import BertTokenizer as Own\n{trap.code}\n".encode()
    evil = {"config.json": _json(_BERT), "tokenizer_config.json": _json(config), "own.py": code}
    calm_files = {"config.json": _json(_BERT), "tokenizer_config.json": _json(
        {"tokenizer_class": "BertTokenizer"}), "vocab.txt": b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n"}  # fmt: skip
    yield HUB.case("tokenizer-code", evil, calm_files, wanted=HOLD, loader="transformers_tokenizer")
    trap = traps("transformers-sentence-module")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Normalize"}
    ]
    own = [{"idx": 0, "name": "0", "path": "", "type": "own.Own"}]
    code = f"{trap.code}\nfrom sentence_transformers.models import Normalize as Own\n".encode()
    evil = {"modules.json": _json(own), "own.py": code}
    yield HUB.case(
        "sentence-module", evil, {"modules.json": _json(modules)}, wanted=HOLD,
        loader="sentence_transformer",
    )  # fmt: skip


OLD_HYDRA = "hydra_1_3_2"
# Not on the list of names that Hydra refuses since 1.3.3.
_TODAY = ("another-pickle", "torch-load", "opens-a-file", "sympy", "numpy-runs-text")


def _sentences(traps: Traps) -> Iterator[Case]:
    """Modules of sentence-transformers, whose own configurations name more classes."""
    top = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Normalize"}]
    dense = {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.models.Dense"}
    router = {"idx": 1, "name": "1", "path": "1_R", "type": "sentence_transformers.models.Router"}

    def activated(name: str) -> Mapping[str, bytes]:
        config = {"in_features": 2, "out_features": 2, "bias": True, "activation_function": name}
        return {"modules.json": _json([*top, dense]), "1_Dense/config.json": _json(config),
                "1_Dense/pytorch_model.bin": archive(_LINEAR)}  # fmt: skip

    def routed(name: str) -> Mapping[str, bytes]:
        config = {"types": {"0_N": name}, "structure": {"query": ["0_N"]}, "parameters": {}}
        return {"modules.json": _json([*top, router]), "1_R/router_config.json": _json(config),
                "1_R/0_N/config.json": b"{}"}  # fmt: skip

    yield HUB.case(
        "sentence-activation", activated("os.abort"),
        activated("torch.nn.modules.activation.Tanh"), harm=Harm.CRASH,
        loader="sentence_transformer",
    )  # fmt: skip
    trap = traps("transformers-sentence-router")
    code = f"{trap.code}\nfrom sentence_transformers.models import Normalize as Own\n".encode()
    yield HUB.case(
        "sentence-router", {**routed("own.Own"), "own.py": code},
        routed("sentence_transformers.models.Normalize"), loader="sentence_transformer",
        wanted=HOLD,
    )  # fmt: skip


_LINEAR = (
    b"\x80\x02ccollections\nOrderedDict\n)R(" + b"".join(
        text(name) + line("torch._utils", "_rebuild_tensor_v2") + b"((" + text("storage")
        + line("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x10tQK\x00" + shape
        + b"\x89" + line("collections", "OrderedDict") + b")RtR"
        for name, shape in (("linear.weight", b"K\x02K\x02\x86K\x02K\x01\x86"),
                            ("linear.bias", b"K\x02\x85K\x01\x85"))
    ) + b"u."
)  # fmt: skip


def _diffusion(traps: Traps) -> Iterator[Case]:
    """`target` and `params`, as latent diffusion and all that came of it build models."""
    twin = b"model:\n  target: collections.OrderedDict\n  params:\n    a: 1\n"
    for name, target, params in (
        ("os-system", "os.system", lambda t: {"command": t.command}),
        ("popen", "subprocess.Popen", lambda t: {"args": ["touch", t.new]}),
        ("opens-a-file", "builtins.open", lambda t: {"file": t.new, "mode": "w"}),
        ("numpy-load", "numpy.load", lambda t: {"file": t.secret, "allow_pickle": True}),
    ):
        trap = traps(f"diffusion-{name}")
        evil = _json({"model": {"target": target, "params": params(trap)}})
        harm = {"numpy-load": Harm.READ, "opens-a-file": Harm.WRITE}.get(name, Harm.CODE)
        yield DIFFUSION.case(name, evil, twin, harm=harm)


def _hydra(traps: Traps) -> Iterator[Case]:
    def command(target: str, trap: Trap, key: str = "command") -> str:
        return f"_target_: {target}\n{key}: {trap.command!r}\n"

    twin = b"_target_: collections.OrderedDict\nlr: 0.1\n"
    for name, make, harm in (
        ("os-system", lambda t: command("os.system", t), Harm.CODE),
        ("nested", lambda t: "model:\n  layers:\n    - " + command("os.system", t).replace(
            "\n", "\n      "), Harm.CODE),
        ("subprocess", lambda t: f"_target_: subprocess.Popen\nargs: [touch, {t.new}]\n", Harm.CODE),
        ("eval", lambda t: f"_target_: builtins.eval\n_args_: [{json.dumps(t.code)}]\n", Harm.CODE),
        ("through-numpy", lambda t: command("numpy.f2py.os.system", t), Harm.CODE),
        ("by-a-call-of-a-call", lambda t: "_target_: builtins.exec\n_args_:\n- _target_: "
         f"builtins.str\n  _args_: [{json.dumps(t.code)}]\n", Harm.CODE),
        ("another-pickle", lambda t: f"_target_: numpy.load\nfile: {t.secret}\nallow_pickle: true\n",
         Harm.READ),
        ("torch-load", lambda t: f"_target_: torch.load\nf: {t.secret}\nweights_only: false\n",
         Harm.READ),
        ("opens-a-file", lambda t: f"_target_: builtins.open\nfile: {t.new}\nmode: w\n", Harm.WRITE),
        ("resolved-name", lambda t: "_target_: hydra.utils.call\nconfig:\n  _target_: os.system\n"
         f"  command: {t.command!r}\n", Harm.CODE),
        ("sympy", lambda t: "_target_: sympy.sympify\na: \"__import__('os').system('"
         + t.command + "')\"\n", Harm.CODE),
        ("numpy-runs-text", lambda t: "_target_: numpy.testing._private.utils.runstring\n"
         f"_convert_: all\n_args_: [{json.dumps(t.code)}, {{}}]\n", Harm.CODE),
    ):  # fmt: skip
        trap = traps(f"hydra-{name}")
        loader = "hydra_instantiate" if name in _TODAY else OLD_HYDRA
        yield HYDRA.case(name, make(trap).encode(), twin, harm=harm, loader=loader)
    trap = traps("hydra-anchor")
    evil = f"x: &x os.system\nm:\n  _target_: *x\n  command: {trap.command!r}\n".encode()
    yield HYDRA.case("anchor", evil, b"x: &x collections.OrderedDict\nm:\n  _target_: *x\n",
                     loader=OLD_HYDRA)  # fmt: skip
    trap = traps("hydra-interpolated")
    evil = (
        f"a: os\nb: system\nm:\n  _target_: ${{a}}.${{b}}\n  command: {trap.command!r}\n".encode()
    )
    calm_text = b"a: collections\nb: OrderedDict\nm:\n  _target_: collections.OrderedDict\n"
    yield HYDRA.case("interpolated", evil, calm_text, wanted=HOLD, loader=OLD_HYDRA)
    trap = traps("hydra-hyperpyyaml")
    yield HYDRA.case(
        "hyperpyyaml", f"a: !apply:os.system [{trap.command!r}]\n".encode(),
        b"a: !new:torch.nn.Identity\n", loader="hyperpyyaml", main="hyperparams.yaml",
    )  # fmt: skip


def _nemo(traps: Traps) -> Iterator[Case]:
    def model(config: str, weights: bytes = b"") -> bytes:
        found = {"./model_config.yaml": config.encode()}
        return tarred(found | ({"./model_weights.ckpt": weights} if weights else {}))

    calm_config = "_target_: collections.OrderedDict\nencoder:\n  a: 1\n"
    trap = traps("nemo-target")
    evil = f"_target_: os.system\ncommand: {trap.command!r}\n"
    yield NEMO.case("target", model(evil), model(calm_config), loader="nemo_restore_older")
    trap = traps("nemo-inner-target")
    evil = calm_config + f"  b:\n    _target_: os.system\n    command: {trap.command!r}\n"
    yield NEMO.case("inner-target", model(evil), model(calm_config), loader="nemo_restore_older")
    trap = traps("nemo-weights")
    weights = (archive(acting(trap)), archive(calm(trap)))
    yield NEMO.case("weights", *(model(calm_config, each) for each in weights))
    trap = traps("nemo-packed")
    evil = f"_target_: os.system\ncommand: {trap.command!r}\n"
    yield NEMO.case("packed", *(gzip.compress(model(each)) for each in (evil, calm_config)),
                    loader="nemo_restore_older")  # fmt: skip
    trap = traps("nemo-climbs")
    climbing = tarred({"./model_config.yaml": calm_config.encode(), trap.up(trap.new): b"x"})
    yield NEMO.case("climbs", climbing, model(calm_config), harm=Harm.WRITE)


def _mlmodel(**flavour: str) -> bytes:
    lines = "\n".join(f"    {key}: {value}" for key, value in flavour.items())
    return ("flavors:\n  python_function:\n" + lines + "\n    env: conda.yaml\n"
            "    python_version: 3.11.7\nmlflow_version: 3.0.0\n").encode()  # fmt: skip


def _mlflow(traps: Traps) -> Iterator[Case]:
    def sklearn(pickled: bytes) -> Mapping[str, bytes]:
        return {"MLmodel": _mlmodel(loader_module="mlflow.sklearn", model_path="model.pkl",
                                    predict_fn="predict") + b"  sklearn:\n    pickled_model: "
                b"model.pkl\n    serialization_format: cloudpickle\n    sklearn_version: 1.9.1\n",
                "model.pkl": pickled}  # fmt: skip

    def fixed(mlmodel: bytes) -> bytes:
        head, _, tail = mlmodel.partition(b"mlflow_version: 3.0.0\n")
        return head + tail + b"mlflow_version: 3.0.0\n"

    trap = traps("mlflow-pickled-model")
    estimator = (
        named("sklearn.preprocessing._data", "StandardScaler") + b")\x81"
        + mapped(("with_mean", b"\x88"), ("_sklearn_version", text("1.9.1"))) + b"b"
    )  # fmt: skip
    evil, twin = dict(sklearn(acting(trap))), dict(sklearn(whole(estimator)))
    for each in (evil, twin):
        each["MLmodel"] = fixed(each["MLmodel"])
    yield MLFLOW.case("pickled-model", evil, twin)
    trap = traps("mlflow-loader-module")
    code = f"{trap.code}\ndef _load_pyfunc(path):\n    return None\n".encode()
    evil = {"MLmodel": _mlmodel(loader_module="own", code="code"), "code/own.py": code}
    yield MLFLOW.case("loader-module", evil, twin, wanted=HOLD)
    trap = traps("mlflow-code-beside")
    evil = {**twin, "MLmodel": twin["MLmodel"].replace(b"mlflow.sklearn", b"mlflow_own.sklearn")}
    evil["MLmodel"] = evil["MLmodel"].replace(b"    env:", b"    code: code\n    env:")
    evil["code/mlflow_own/sklearn.py"] = f"{trap.code}\ndef _load_pyfunc(_): pass\n".encode()
    yield MLFLOW.case("code-beside", evil, twin, wanted=HOLD)


def _others(traps: Traps) -> Iterator[Case]:
    trap = traps("other-jsonpickle-reduce")
    evil = {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [trap.command]}]}
    yield OTHER.case("jsonpickle-reduce", _json({"a": evil}), _json({"a": [trap.command]}))
    trap = traps("other-jsonpickle-class")
    evil = {"py/reduce": [{"py/type": "subprocess.Popen"}, {"py/tuple": [["touch", trap.new]]}]}
    yield OTHER.case("jsonpickle-class", _json(evil), _json({"py/tuple": ["touch", trap.new]}))
    for name, loader, main in (
        ("dill", "dill_load", "model.dill"), ("cloudpickle", "cloudpickle_load", "python_model.pkl"),
        ("pandas", "pandas_pickle", "frame.pkl"),
    ):  # fmt: skip
        trap = traps(f"other-{name}")
        yield OTHER.case(name, acting(trap), calm(trap), loader=loader, main=main)
    trap = traps("other-dill-function")
    evil = state(called("dill._dill", "_create_type", named("builtins", "exec"), text(trap.code)))
    yield OTHER.case(
        "dill-function", evil, state(text(trap.code)), loader="dill_load", main="model.dill"
    )  # fmt: skip
    for name, doctype in (
        ("lxml-entity", '<!DOCTYPE p [<!ENTITY x SYSTEM "file://SECRET">]>'),
        ("lxml-parameter-entity", '<!DOCTYPE p [<!ENTITY % x SYSTEM "file://SECRET"> %x;]>'),
    ):
        trap = traps(f"other-{name}")
        use = "&x;" if "% x" not in doctype else ""
        evil = doctype.replace("SECRET", trap.secret) + f"<p>{use}</p>"
        yield OTHER.case(
            name, ('<?xml version="1.0"?>' + evil).encode(),
            f'<?xml version="1.0"?><p>{trap.secret}</p>'.encode(),
            loader="lxml_parse", main="model.pmml", harm=Harm.READ,
        )  # fmt: skip
