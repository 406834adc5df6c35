"""Makes harmless models with the libraries that people use: `models.py samples|models FOLDER`.

`models`: a file or a folder for each, more than 300 with those of `keras_models.py`; what cannot be
made with the versions at hand is said on stderr, and left out. `samples`: the harmless models of
torch in the anchors' own tests.
"""

import os
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
os.environ["MLFLOW_TRACKING_URI"] = "file:/nonexistent"

import joblib
import numpy as np
import torch
from sklearn.utils import all_estimators
from torch import nn

rng = np.random.default_rng(7)
X, Y = rng.random((60, 4)), rng.integers(0, 2, 60)
JOBLIB = (0, 3, ("zlib", 9), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3), ("lz4", 3))


def models(folder: Path) -> None:
    """Make all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for family in (
        estimators, pipelines, boosted, networks, checkpoints, scripted, graphs, tensors, ggufs,
        arrays, words, logged,
    ):  # fmt: skip
        place = folder / family.__name__
        place.mkdir()
        try:
            for name, make in family():
                tried(make, place / name)
        except Exception as error:  # noqa: BLE001  # a library that these versions do not have
            print(f"{family.__name__}: {type(error).__name__}: {error}", file=sys.stderr)


def tried(make: Callable[[Path], object], path: Path) -> None:
    """Make one of many, if these versions can."""
    try:
        make(path)
    except Exception as error:  # noqa: BLE001  # whatever a library says
        path.unlink(missing_ok=True) if not path.is_dir() else shutil.rmtree(path)
        text = str(error).splitlines() or [""]
        print(f"{path.parent.name}/{path.name}: {type(error).__name__}: {text[0]}", file=sys.stderr)


Makers = Iterator[tuple[str, Callable[[Path], object]]]


def written(value: object, number: int) -> tuple[str, Callable[[Path], object]]:
    """One of the ways in which people write an estimator: its suffix, and a writer."""
    way = number % (len(JOBLIB) + 4)
    if way < len(JOBLIB):
        return ".joblib", lambda path: joblib.dump(value, path, compress=JOBLIB[way])
    protocol = 2 + way - len(JOBLIB)
    return ".pkl", lambda path: path.write_bytes(pickle.dumps(value, protocol))


def estimators() -> Makers:
    """Every estimator of scikit-learn that can be fitted to a small table."""
    for number, (name, kind) in enumerate(all_estimators()):
        try:
            made = fitted(name, kind)
        except Exception:  # noqa: BLE001, S112  # it wants other data
            continue
        suffix, write = written(made, number)
        yield name + suffix, write


def fitted(name: str, kind: type) -> object:
    """An estimator, fitted to what it takes."""
    if name == "MultiLabelBinarizer":
        return kind().fit([("a", "b"), ("c",)])
    made = kind(**options_of(name, kind))
    if name in ("LabelEncoder", "LabelBinarizer"):
        return made.fit(Y)
    pairs = np.stack([Y, Y], 1)
    is_double = name.startswith(("MultiTask", "MultiOutput")) or name.endswith("Chain")
    table: object = X
    if name == "IsotonicRegression":
        table = X[:, 0]
    elif name in ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"):
        table = ["some words", "and some more words"]
    elif name in ("DictVectorizer", "FeatureHasher"):
        table = [{"a": 1}, {"b": 2}]
    return made.fit(table, pairs if is_double else Y)


def options_of(name: str, kind: type) -> dict[str, object]:
    """What an estimator has to be told."""
    from sklearn.linear_model import LogisticRegression, Ridge  # noqa: PLC0415

    of_numbers = name in ("MultiOutputRegressor", "RegressorChain")
    inner = Ridge() if of_numbers else LogisticRegression()
    classes = [("a", LogisticRegression()), ("b", LogisticRegression(C=2))]
    numbers = [("a", Ridge()), ("b", Ridge(2))]
    told: dict[str, dict[str, object]] = {
        **{key: {"param_grid": {"C": [0.1, 1]}} for key in ("GridSearchCV", "HalvingGridSearchCV")},
        "RandomizedSearchCV": {"param_distributions": {"C": [0.1, 1]}, "n_iter": 2},
        **{key: {"estimators": classes} for key in ("VotingClassifier", "StackingClassifier")},
        **{key: {"estimators": numbers} for key in ("VotingRegressor", "StackingRegressor")},
        "FeatureUnion": {"transformer_list": [("a", fitted_scaler())]},
        "Pipeline": {"steps": [("a", fitted_scaler()), ("b", LogisticRegression())]},
        "ColumnTransformer": {"transformers": [("a", fitted_scaler(), [0, 1])]},
        "SparseCoder": {"dictionary": rng.random((3, 4))},
        **{key: {"n_components": 1} for key in ("CCA", "PLSCanonical", "PLSRegression", "PLSSVD")},
    }
    has_inner = "estimator" in kind.__init__.__code__.co_varnames
    return ({"estimator": inner} if has_inner else {}) | told.get(name, {})


def fitted_scaler() -> object:
    """A transformer."""
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return StandardScaler().fit(X)


def pipelines() -> Makers:
    """What people put together of them."""
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415
    from sklearn.decomposition import PCA  # noqa: PLC0415
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline, make_union  # noqa: PLC0415
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler  # noqa: PLC0415
    from sklearn.svm import SVC  # noqa: PLC0415

    columns = ColumnTransformer([("n", StandardScaler(), [0, 1]), ("m", MinMaxScaler(), [2, 3])])
    made = {
        "scaled": make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
        "columns": make_pipeline(columns, RandomForestClassifier(5)).fit(X, Y),
        "union": make_pipeline(make_union(PCA(2), StandardScaler()), SVC()).fit(X, Y),
        "words": make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(
            ["one two", "three four"], [0, 1]
        ),
        "kinds": make_pipeline(OneHotEncoder(), LogisticRegression()).fit(X.round(), Y),
    }
    for number, (name, value) in enumerate(made.items()):
        for part in (0, 5, 9):
            suffix, write = written(value, number + part)
            yield f"{name}-{part}{suffix}", write
    import skops.io  # noqa: PLC0415

    for name in ("scaled", "columns", "words"):
        yield f"{name}.skops", lambda path, name=name: skops.io.dump(made[name], path)


def boosted() -> Makers:
    """Trees of the three libraries, pickled and in their own formats."""
    import catboost  # noqa: PLC0415
    import lightgbm  # noqa: PLC0415
    import xgboost  # noqa: PLC0415

    quiet = {"verbose": False, "allow_writing_files": False, "iterations": 3, "thread_count": 1}
    made = {
        "xgb-classifier": xgboost.XGBClassifier(n_estimators=3).fit(X, Y),
        "xgb-regressor": xgboost.XGBRegressor(n_estimators=3).fit(X, Y),
        "xgb-forest": xgboost.XGBRFClassifier(n_estimators=3).fit(X, Y),
        "xgb-ranker": xgboost.XGBRanker(n_estimators=3).fit(X, Y, group=[60]),
        "xgb-booster": xgboost.train({}, xgboost.DMatrix(X, Y), 3),
        "lgb-classifier": lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(X, Y),
        "lgb-regressor": lightgbm.LGBMRegressor(n_estimators=3, verbose=-1).fit(X, Y),
        "lgb-ranker": lightgbm.LGBMRanker(n_estimators=3, verbose=-1).fit(X, Y, group=[60]),
        "cat-classifier": catboost.CatBoostClassifier(**quiet).fit(X, Y),
        "cat-regressor": catboost.CatBoostRegressor(**quiet).fit(X, Y),
    }
    for number, (name, value) in enumerate(made.items()):
        for part in (1, 11):
            suffix, write = written(value, number + part)
            yield f"{name}-{part}{suffix}", write
    for end in ("json", "ubj"):
        yield f"xgboost.{end}", made["xgb-classifier"].save_model
    yield "lightgbm.txt", made["lgb-classifier"].booster_.save_model
    yield "catboost.cbm", made["cat-classifier"].save_model
    yield "catboost.json", lambda path: made["cat-classifier"].save_model(path, format="json")


def nets() -> dict[str, nn.Module]:
    """Modules of torch's own classes."""
    return {
        "linear": nn.Linear(8, 4),
        "deep": nn.Sequential(
            *(
                nn.Linear(8, 8),
                nn.ReLU(),
                nn.BatchNorm1d(8),
                nn.Dropout(),
                nn.GELU(),
                nn.Linear(8, 2),
            )
        ),
        "convolution": nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(2))
        ),
        "transposed": nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU()),
        "lstm": nn.LSTM(4, 8, 2, batch_first=True),
        "gru": nn.GRU(4, 8, bidirectional=True),
        "rnn": nn.RNN(4, 8),
        "encoder": nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2),
        "transformer": nn.Transformer(8, 2, 1, 1, 16),
        "attention": nn.MultiheadAttention(8, 2),
        "embedding": nn.Sequential(nn.Embedding(20, 8), nn.LayerNorm(8)),
        "bag": nn.EmbeddingBag(20, 8),
        "bilinear": nn.Bilinear(3, 4, 5),
        "list": nn.ModuleList([nn.Linear(2, 2), nn.Identity()]),
        "dict": nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Softmax(1)}),
        "parameters": nn.ParameterDict({"a": nn.Parameter(torch.ones(3))}),
        "normed": nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    }


def networks() -> Makers:
    """Weights by name, in both formats; and modules of the library as a whole."""
    for name, net in nets().items():
        state = net.state_dict()
        yield f"{name}-state.pt", lambda path, state=state: torch.save(state, path)
        if name in ("linear", "deep", "lstm", "encoder", "embedding"):
            yield (
                f"{name}-old.pth",
                lambda path, state=state: torch.save(
                    state, path, _use_new_zipfile_serialization=False
                ),
            )
        if name != "normed":  # its parametrisation is a class made as it runs
            yield f"{name}-whole.pt", lambda path, net=net: torch.save(net, path)
    numbers = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int64, torch.bool)
    mixed = {str(kind): torch.ones(4).to(kind) for kind in (*numbers, torch.complex64)}
    yield "kinds.pt", lambda path: torch.save(mixed, path)
    yield "sparse.pt", lambda path: torch.save(torch.eye(4).to_sparse(), path)
    shared = torch.arange(10.0)
    views = {"a": shared[2:], "b": shared.reshape(2, 5).T}
    yield "views.bin", lambda path: torch.save(views, path)
    quantised = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)
    yield "quantised.pt", lambda path: torch.save({"w": quantised}, path)


def checkpoints() -> Makers:
    """A training as it is resumed: weights, optimizer, schedule, random state."""
    kinds = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "Adadelta", "LBFGS")
    for number, name in enumerate(kinds):
        net = nn.Linear(4, 2)
        optimizer = getattr(torch.optim, name)(net.parameters(), lr=0.01)

        def closure(net=net, optimizer=optimizer) -> torch.Tensor:  # noqa: ANN001
            optimizer.zero_grad()
            loss = net(torch.ones(1, 4)).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        value = {
            "epoch": number, "model": net.state_dict(), "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(), "random": torch.get_rng_state(),
            "numpy": np.random.get_state(), "best": np.float64(0.5), "names": ("a", "b"),  # noqa: NPY002
            "device": torch.device("cpu"), "dtype": torch.float32, "size": torch.Size([1, 2]),
        }  # fmt: skip
        yield f"{name}.ckpt", lambda path, value=value: torch.save(value, path)


def scripted() -> Makers:
    """TorchScript and exported programs."""
    for name in ("linear", "deep", "embedding", "transposed"):
        net = nets()[name].eval()
        given = torch.ones(2, 3, 8, 8) if name == "transposed" else torch.ones(2, 8)
        given = torch.ones(2, 3, dtype=torch.long) if name == "embedding" else given
        yield f"{name}-script.pt", lambda path, net=net: torch.jit.script(net).save(path)
        traced = lambda path, net=net, given=given: torch.jit.trace(net, given).save(path)  # noqa: E731
        yield f"{name}-trace.pt", traced
        yield (
            f"{name}.pt2",
            lambda path, net=net, given=given: torch.export.save(
                torch.export.export(net, (given,)), path
            ),
        )


def graphs() -> Makers:
    """ONNX graphs out of scikit-learn and torch."""
    from skl2onnx import to_onnx  # noqa: PLC0415
    from sklearn import ensemble, linear_model, neighbors, preprocessing, svm, tree  # noqa: PLC0415

    sample = X[:1].astype(np.float32)
    for made in (
        linear_model.LogisticRegression(), linear_model.Ridge(), linear_model.Lasso(),
        ensemble.RandomForestClassifier(5), ensemble.GradientBoostingClassifier(n_estimators=5),
        tree.DecisionTreeRegressor(), svm.SVC(), neighbors.KNeighborsClassifier(),
        preprocessing.StandardScaler(), preprocessing.PolynomialFeatures(2),
    ):  # fmt: skip
        made.fit(X, Y)
        yield (
            f"{type(made).__name__}.onnx",
            lambda path, made=made: path.write_bytes(to_onnx(made, sample).SerializeToString()),
        )
    shapes = {"linear": (1, 8), "deep": (1, 8), "transposed": (1, 3, 8, 8), "lstm": (1, 5, 4)}
    for name, shape in shapes.items():
        net, given = nets()[name].eval(), torch.ones(shape)
        yield (
            f"torch-{name}.onnx",
            lambda path, net=net, given=given: torch.onnx.export(
                net, (given,), str(path), dynamo=False
            ),
        )


def tensors() -> Makers:
    """safetensors, of each kind of number."""
    from safetensors.numpy import save_file  # noqa: PLC0415
    from safetensors.torch import save_file as save_torch  # noqa: PLC0415

    for name in ("float16", "float32", "float64", "int8", "int64", "uint8", "bool"):
        value = {f"layer.{n}.weight": rng.random((3, 4)).astype(name) for n in range(3)}
        yield f"{name}.safetensors", lambda path, value=value: save_file(value, path)
    half = {"weight": torch.ones(4, 4, dtype=torch.bfloat16), "none": torch.empty(0)}
    told = {"format": "pt", "license": "MIT", "note": "trained for fun; import nothing"}
    yield "bfloat16.safetensors", lambda path: save_torch(half, path, metadata=told)


def ggufs() -> Makers:
    """GGUF files, with and without words and a template."""
    import gguf  # noqa: PLC0415

    template = (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] "
        "{{ message['content'] | trim }} [/INST]{% else %}{{ message['content'] }}{{ eos_token }}"
        "{% endif %}{% endfor %}"
    )

    def make(path: Path, kind: str, *, is_chat: bool) -> None:
        writer = gguf.GGUFWriter(path, kind)
        writer.add_context_length(128)
        writer.add_embedding_length(8)
        writer.add_block_count(1)
        writer.add_description("a small model; see https://example.invalid")
        if is_chat:
            writer.add_tokenizer_model("llama")
            writer.add_token_list(["<unk>", "<s>", "</s>", "hello", "import os"])
            writer.add_token_scores([0.0] * 5)
            writer.add_token_types([2, 3, 3, 1, 1])
            writer.add_chat_template(template)
        for number in range(3):
            writer.add_tensor(f"blk.{number}.weight", rng.random((8, 32)).astype(np.float32))
        if kind == "gemma":
            packed = gguf.quants.quantize(
                rng.random((8, 32)).astype(np.float32), gguf.GGMLQuantizationType.Q8_0
            )
            writer.add_tensor("q", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    for kind in ("llama", "gpt2", "bert", "gemma"):
        for is_chat in (False, True):
            name = f"{kind}-{'chat' if is_chat else 'plain'}.gguf"
            yield name, lambda path, kind=kind, is_chat=is_chat: make(path, kind, is_chat=is_chat)


def arrays() -> Makers:
    """NumPy's formats."""
    structured = np.array([(1, 2.0, "a")], dtype=[("n", int), ("x", float), ("s", "U5")])
    made = {
        "float": rng.random((5, 5)), "int": np.arange(9).reshape(3, 3), "text": np.array(["a"]),
        "fortran": np.asfortranarray(rng.random((3, 4))), "structured": structured,
        "dates": np.array(["2026-01-01"], dtype="M8[D]"),
        "objects": np.array([{"a": 1}, [2, 3]], dtype=object),
    }  # fmt: skip
    for name, value in made.items():
        yield f"{name}.npy", lambda path, value=value: np.save(path, value)
    yield "packed.npz", lambda path: np.savez_compressed(path, **made)
    yield "stored.npz", lambda path: np.savez(path, a=made["float"], b=made["int"])


def words() -> Makers:
    """Folders of transformers: configuration, weights, words, template."""
    import transformers  # noqa: PLC0415
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers  # noqa: PLC0415
    from tokenizers import models as kinds  # noqa: PLC0415

    text = ["some words to learn from", "and some more words", "hello there, hello again"]
    made = {
        "bpe": (kinds.BPE, trainers.BpeTrainer),
        "pieces": (kinds.WordPiece, trainers.WordPieceTrainer),
    }
    made |= {"words": (kinds.WordLevel, trainers.WordLevelTrainer)}
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 16, "vocab_size": 60}
    configurations = {
        "bert": (transformers.BertConfig, transformers.BertModel),
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "roberta": (transformers.RobertaConfig, transformers.RobertaForSequenceClassification),
        "qwen": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
        "electra": (transformers.ElectraConfig, transformers.ElectraModel),
    }
    template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"

    def tokenizer(name: str) -> Tokenizer:
        model, trainer = made[name]
        found = Tokenizer(model(unk_token="<unk>"))  # noqa: S106  # a word
        found.pre_tokenizer = pre_tokenizers.Whitespace()
        found.decoder = decoders.BPEDecoder()
        found.train_from_iterator(text, trainer(vocab_size=60, special_tokens=["<unk>", "<s>"]))
        return found

    def folder(path: Path, name: str, number: int) -> None:
        configuration, model = configurations[name]
        model(configuration(**small)).save_pretrained(path)
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer(list(made)[number % 3]), chat_template=template
        )
        fast.save_pretrained(path)

    for number, name in enumerate(configurations):
        yield name, lambda path, name=name, number=number: folder(path, name, number)
    for name in made:
        yield f"{name}.json", lambda path, name=name: tokenizer(name).save(str(path))


def logged() -> Makers:
    """Folders of MLflow."""
    import mlflow.sklearn  # noqa: PLC0415
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    for value in (LogisticRegression(), RandomForestClassifier(3)):
        value.fit(X, Y)
        for way in ("pickle", "cloudpickle", "skops"):
            yield (
                f"{type(value).__name__}-{way}",
                lambda path, value=value, way=way: mlflow.sklearn.save_model(
                    value, path, serialization_format=way, pip_requirements=["scikit-learn"]
                ),
            )


# ---- others ----------------------------------------------------------------------------------


def samples(folder: Path) -> None:
    """The harmless models of torch in the anchors' tests."""
    for anchor, net in (
        ("picklescan", nets()["encoder"]), ("modelscan", nn.Module()), ("fickling", nets()["deep"]),
    ):  # fmt: skip
        place = folder / anchor
        place.mkdir(parents=True)
        torch.save(net.state_dict(), place / "new.pt")
        torch.save(net.state_dict(), place / "old.pt", _use_new_zipfile_serialization=False)
        torch.save(net, place / "whole.pth")
    torch.jit.script(nets()["deep"]).save(folder / "fickling" / "script.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"samples": samples, "models": models}[sys.argv[1]](Path(sys.argv[2]))
