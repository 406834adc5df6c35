"""The list of harmless names: families of data classes pass, what acts among them does not."""

import pytest
from attack_pickles import asked, called, text, whole

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan import symbols, symbols_dangerous
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.symbols_values import Symbol

STATE = b"}" + text("a") + b"K\x01s"
# Made without arguments and given their state, as NEWOBJ and BUILD do.
OBJECTS = (
    ("torch.distributions.normal", "Normal"),
    ("torch.distributions.transformed_distribution", "TransformedDistribution"),
    ("torch.distributions.transforms", "AffineTransform"),
    ("torch.distributions.constraints", "_Real"),
    ("torch.optim.swa_utils", "AveragedModel"),
    ("torch.nn.utils.weight_norm", "WeightNorm"),
    ("torch.ao.quantization.observer", "MinMaxObserver"),
    ("torch.ao.quantization.observer", "_PartialWrapper"),
    ("torch.ao.quantization.qconfig", "QConfig"),
    ("torch.ao.nn.quantized.dynamic.modules.linear", "Linear"),
    ("torch.ao.nn.quantized.modules.conv", "Conv2d"),
    ("torch.distributed.checkpoint.metadata", "Metadata"),
    ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.distributed.checkpoint.filesystem", "_StoragePrefix"),
    ("transformers.models.bert.configuration_bert", "BertConfig"),
    ("transformers.models.bert.modeling_bert", "BertModel"),
    ("transformers.models.llama.modeling_llama", "LlamaDecoderLayer"),
    ("transformers.models.whisper.modeling_whisper", "WhisperForConditionalGeneration"),
    ("transformers.activations", "GELUActivation"),
    ("transformers.tokenization_utils_base", "BatchEncoding"),
    ("transformers.generation.configuration_utils", "GenerationConfig"),
    ("tokenizers", "Tokenizer"),
    ("scipy.stats._kde", "gaussian_kde"),
    ("scipy.spatial.transform._rotation", "Rotation"),
    ("scipy.stats._multivariate", "multivariate_normal_frozen"),
    ("scipy.stats._covariance", "CovViaPSD"),
    ("scipy.stats._continuous_distns", "rv_histogram"),
    ("scipy.stats._stats_py", "KstestResult"),
    ("scipy.interpolate._rbfinterp", "RBFInterpolator"),
    ("scipy.signal._ltisys", "TransferFunctionContinuous"),
    ("random", "Random"),
    ("collections", "UserDict"),
    ("UserDict", "UserDict"),
    ("collections", "UserList"),
    ("collections", "ChainMap"),
    ("packaging.version", "Version"),
    ("matplotlib.colors", "ListedColormap"),
    ("matplotlib.colors", "Normalize"),
    ("matplotlib.cbook", "CallbackRegistry"),
    ("pandas.api.typing", "TimeGrouper"),
)
# Called with data.
CALLS = (
    ("pandas._libs.tslibs.offsets", "BusinessMonthEnd"),
    ("pandas._libs.tslibs.offsets", "CustomBusinessDay"),
    ("re", "RegexFlag"),
    ("builtins", "OSError"),
    ("builtins", "UnicodeDecodeError"),
    ("numpy._core._internal", "_convert_to_stringdtype_kwargs"),
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
)
# Stand in an argument.
NAMES = (
    ("pandas", "DatetimeIndex"),
    ("pandas", "PeriodIndex"),
    ("pandas.core.frame", "DataFrame.round"),
    ("pandas.core.generic", "NDFrame.fillna"),
    ("scipy.spatial.distance", "cosine"),
    ("matplotlib.cbook", "_exception_printer"),
)
# Near those families, and each acts: it evaluates, reads a file, or calls what it is given.
ACTING = (
    ("pandas.core.frame", "DataFrame.eval"),
    ("pandas.core.frame", "DataFrame.query"),
    ("pandas.core.frame", "DataFrame.apply"),
    ("pandas.core.generic", "NDFrame.to_pickle"),
    ("pandas.core.generic", "NDFrame.pipe"),
    ("pandas.io.pickle", "read_pickle"),
    ("torch", "ScriptObject"),
    ("torch.distributed.checkpoint.filesystem", "FileSystemReader"),
    ("torch.distributed.checkpoint.metadata", "os.system"),
    ("torch.ao.quantization.utils", "getattr_from_fqn"),
    ("tokenizers.models", "BPE"),
    ("tokenizers", "Tokenizer.from_file"),
    ("transformers.models.auto.modeling_auto", "AutoModel"),
    ("transformers.models.bert.modeling_bert", "BertModel.from_pretrained"),
    ("transformers.configuration_utils", "PreTrainedConfig.from_pretrained"),
    ("matplotlib.colors", "_picklable_norm_constructor"),
    ("matplotlib.cbook", "_picklable_class_constructor"),
    ("scipy.stats._distn_infrastructure", "rv_generic"),
    ("random", "SystemRandom"),
    ("collections", "UserString"),
)


def decision(raw):
    return judged(findings_of("m.pkl", raw, ScanSettings())).decision


def kept(module, name):
    return whole(called(module, name, by=b"\x81"), STATE, b"b")


@pytest.mark.parametrize(("module", "name"), OBJECTS)
def test_a_data_class_with_its_state_is_allowed(module, name):
    assert decision(kept(module, name)) is Decision.ALLOW
    with_a_call = whole(called(module, name, called("os", "getpid"), by=b"\x81"), STATE, b"b")
    assert decision(with_a_call) is Decision.DENY


@pytest.mark.parametrize(("module", "name"), OBJECTS)
def test_a_data_class_is_no_function(module, name):
    raw = whole(called(module, name, text("model.json")))
    assert decision(raw) is not Decision.ALLOW


@pytest.mark.parametrize(("module", "name"), CALLS)
def test_what_is_made_of_data_by_a_call_is_allowed(module, name):
    assert decision(whole(called(module, name, b"K\x02"))) is Decision.ALLOW


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_name_that_is_only_kept_is_allowed_and_not_called(module, name):
    assert decision(whole(b"]", asked(module, name), b"a")) is Decision.ALLOW
    assert decision(whole(called(module, name, text("x")))) is not Decision.ALLOW


@pytest.mark.parametrize(("module", "name"), ACTING)
def test_what_acts_beside_them_is_not_allowed(module, name):
    for raw in (whole(called(module, name, text("x"))), kept(module, name)):
        assert decision(raw) is not Decision.ALLOW


def test_a_container_of_results_takes_items():
    made = called("scipy.optimize._optimize", "OptimizeResult", by=b"\x81")
    assert decision(whole(made, text("success"), b"\x88s")) is Decision.ALLOW
    hooked = whole(made, text("__setstate__"), asked("numpy", "sum"), b"s", STATE, b"b")
    assert decision(hooked) is Decision.DENY


def test_no_line_of_the_list_names_what_is_dangerous():
    vetted = {
        "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem",
    }  # fmt: skip
    every = [(module, name) for module, names in symbols._harmless().items() for name in names]
    assert len(every) > 10_000
    for module, name in every:
        is_named = symbols_dangerous.is_dangerous(Symbol(module, name))
        assert not is_named or module in vetted, f"{module}.{name}"
        assert "*" not in name
