"""Templates, YAML, XML: text that its reader acts on."""
# ruff: noqa: E501, ISC004 - tables

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from model_files import gguf

from modelkeep.core.verdict import Decision
from tests.corpus.cases import Case, Family, Harm, Trap, Traps

TEMPLATE = Family("template", "jinja", "chat_template.jinja")
TOKENIZER = Family("tokenizer", "tokenizer_template", "tokenizer_config.json")
GGUF = Family("gguf", "gguf_template", "model.gguf")
YAML = Family("yaml", "yaml_all", "config.yaml")
XML = Family("xml", "xml_sax", "model.pmml")


def cases(traps: Traps) -> Iterator[Case]:
    """All of them."""
    for name, (evil, twin) in _TEMPLATES.items():
        trap = traps(f"template-{name}")
        yield TEMPLATE.case(name, _filled(evil, trap), _filled(twin, trap))
    yield from _templates(traps)
    yield from _carried(traps)
    yield from _yaml(traps)
    yield from _xml(traps)


def _filled(text: str, trap: Trap) -> bytes:
    """A chat template with this in the middle."""
    text = text.replace("COMMAND", trap.command).replace("CODE", trap.code)
    return _around(text.replace("NEW", trap.new)).encode()


def _around(text: str) -> str:
    return (
        "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
        "{{ message['content'] | trim }}{% endfor %}\n" + text + "\n"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )


_ATTR = "{{ (lipsum|attr(g))['os'].system('COMMAND') }}"
_PLAIN = "{% set u = '_' %}{{ (messages[0])['content'] ~ u }}"
# Way to reach Python's inside: the template, and one of the same means that reaches nothing.
_TEMPLATES: dict[str, tuple[str, str]] = {
    "globals-of-a-function": (
        "{{ lipsum.__globals__['os'].system('COMMAND') }}",
        "{{ lipsum(n=1, html=false) | length > 0 and 'COMMAND' }}",
    ),
    "constructor-of-a-class": (
        "{{ cycler.__init__.__globals__.os.popen('COMMAND').read() }}",
        "{{ cycler('a', 'b').next() }}",
    ),
    "all-subclasses": (
        "{% for c in ''.__class__.__base__.__subclasses__() %}{% if c.__name__ == 'Popen' or "
        "c.__name__ == '_wrap_close' %}{{ c.__init__.__globals__['system']('COMMAND') }}"
        "{% endif %}{% endfor %}",
        "{% for c in 'abc' %}{% if c == 'Popen' %}{{ c }}{% endif %}{% endfor %}",
    ),
    "function-of-the-loader": (
        "{{ raise_exception.__globals__['__builtins__'].open('NEW', 'w') }}",
        "{% if not messages %}{{ raise_exception('NEW') }}{% endif %}",
    ),
    "its-own-macro": (
        "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__.sys.modules.os.system('COMMAND') }}",
        "{% macro m() %}COMMAND{% endmacro %}{{ m() }}",
    ),
    "itself": (
        '{{ self.__init__.__globals__.__builtins__.exec("CODE") }}',
        "{% block b %}{% endblock %}{{ self.b() }}",
    ),
    "generator-frame": (
        "{{ (messages|map(attribute='role')).gi_frame.f_builtins.exec(\"CODE\") }}",
        "{{ messages|map(attribute='role')|join(',') }}",
    ),
    "escapes-in-a-filter": (
        r"{{ (lipsum|attr('\x5f\x5fglobals\x5f\x5f'))['os'].system('COMMAND') }}",
        r"{{ messages[0]['content']|replace('\x5c\x5f', '') }}",
    ),
    "concatenated": ("{{ lipsum['__glo' ~ 'bals__'].os.system('COMMAND') }}", _PLAIN),
    "set-in-steps": (
        "{% set u = '_' * 2 %}{% set g = u + 'globals' + u %}" + _ATTR, _PLAIN,
    ),
    "reversed": ("{% set g = '__slabolg__'|reverse %}" + _ATTR,
                 "{{ messages[0]['content']|reverse }}"),
    "sliced": ("{% set g = '__slabolg__'[::-1] %}" + _ATTR, "{{ messages[0]['content'][::-1] }}"),
    "lowered": ("{% set g = '__GLOBALS__'|lower %}" + _ATTR, "{{ messages[0]['role']|lower }}"),
    "joined": ("{% set g = ['_', '_', 'glob', 'als', '_', '_']|join %}" + _ATTR,
               "{{ ['a', 'b']|join }}"),
    "formatted": ("{% set g = '%sglobals%s'|format('_' * 2, '_' * 2) %}" + _ATTR,
                  "{{ '%s: %s'|format(messages[0].role, messages[0].content) }}"),
    "by-numbers": ("{% set u = '%c%c'|format(95, 95) %}{% set g = u ~ 'globals' ~ u %}" + _ATTR,
                   "{{ '%c%c'|format(95, 95) }}"),
    "replaced": ("{% set g = 'xxglobalsxx'|replace('x', '_') %}" + _ATTR,
                 "{{ messages[0]['content']|replace('x', '_') }}"),
    "key-of-a-dictionary": ("{% set g = dict(__globals__=1)|first %}" + _ATTR,
                            "{{ dict(globals=1)|first }}"),
    "underscore-out-of-a-function": (
        "{% set u = (lipsum|string)[18] %}{% set g = u ~ u ~ 'globals' ~ u ~ u %}" + _ATTR,
        "{% set u = messages[0]['content'][0] %}{{ u ~ u }}",
    ),
    "in-a-namespace": (
        "{% set ns = namespace(g='__globals__') %}{{ (lipsum|attr(ns.g)).os.system('COMMAND') }}",
        "{% set ns = namespace(g='globals') %}{{ ns.g }}",
    ),
    "in-a-loop-variable": (
        "{% for g in ['__globals__'] %}" + _ATTR + "{% endfor %}",
        "{% for g in ['globals'] %}{{ g }}{% endfor %}",
    ),
    "in-a-block": (
        "{% set g %}__globals__{% endset %}" + _ATTR, "{% set g %}globals{% endset %}{{ g }}",
    ),
    "mapped": (
        "{{ ([lipsum]|map(attribute='__globals__')|first).os.system('COMMAND') }}",
        "{{ (messages|map(attribute='content')|first) }}",
    ),
    "grouped": (
        "{{ ([lipsum]|groupby('__globals__.os')|first)[0].system('COMMAND') }}",
        "{{ (messages|groupby('role')|first)[0] }}",
    ),
    "macro-argument": (
        "{% macro m(g='__globals__') %}" + _ATTR + "{% endmacro %}{{ m() }}",
        "{% macro m(g='globals') %}{{ g }}{% endmacro %}{{ m() }}",
    ),
    "url-encoded": (
        "{% set p = ('%'|urlencode)[:1] %}{% set g = (p ~ 'c' ~ p ~ 'cglobals' ~ p ~ 'c' ~ p ~ 'c')"
        "|format(95, 95, 95, 95) %}" + _ATTR,
        "{{ messages[0]['content']|urlencode }}",
    ),
}  # fmt: skip


def _templates(traps: Traps) -> Iterator[Case]:
    trap = traps("template-includes-a-file")
    evil = _around("{% include '" + trap.secret + "' %}").encode()
    yield TEMPLATE.case("includes-a-file", evil, _around(trap.secret).encode(), harm=Harm.READ)
    trap = traps("template-imports-a-file")
    evil = _around("{% import '" + trap.secret.lstrip("/") + "' as m %}").encode()
    yield TEMPLATE.case("imports-a-file", evil, _around("{# import #}").encode(), harm=Harm.READ)
    text = "{{ 'a' * 2000000000 }}"
    twin = _around("{{ '-' * 40 }}").encode()
    yield TEMPLATE.case("long-text", _around(text).encode(), twin, harm=Harm.MEMORY)
    loops = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
    calm = "{% for a in range(9) %}" * 3 + "{% endfor %}" * 3
    yield TEMPLATE.case(
        "nested-loops", _around(loops).encode(), _around(calm).encode(), harm=Harm.TIME
    )
    doubling = "{% set ns = namespace(a='aaaaaaaa') %}{% for i in range(40) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}"
    calm = "{% set ns = namespace(a='') %}{% for i in range(40) %}{% set ns.a = ns.a ~ 'a' %}{% endfor %}"
    yield TEMPLATE.case(
        "doubling", _around(doubling).encode(), _around(calm).encode(), harm=Harm.MEMORY,
        wanted=Decision.HOLD,
    )  # fmt: skip


def _carried(traps: Traps) -> Iterator[Case]:
    """Templates inside of tokenizers and GGUF files."""
    evil_text = _TEMPLATES["globals-of-a-function"][0]
    calm_text = _TEMPLATES["globals-of-a-function"][1]

    def both(name: str) -> tuple[str, str]:
        trap = traps(name)
        return _filled(evil_text, trap).decode(), _filled(calm_text, trap).decode()

    evil, twin = both("tokenizer-template")
    yield TOKENIZER.case("template", _tokenizer(evil), _tokenizer(twin))
    evil, twin = both("tokenizer-named-template")
    evil_list, twin_list = ([{"name": "default", "template": each}] for each in (evil, twin))
    yield TOKENIZER.case("named-template", _tokenizer(evil_list), _tokenizer(twin_list))
    evil, twin = both("tokenizer-escaped-key")
    evil_raw = _tokenizer(evil).replace(b'"chat_template"', b'"\\u0063hat_template"')
    yield TOKENIZER.case("escaped-key", evil_raw, _tokenizer(twin))
    evil, twin = both("tokenizer-key-twice")
    head = _tokenizer(twin)[:-1] + b', "chat_template": ' + json.dumps(evil).encode() + b"}"
    yield TOKENIZER.case("key-twice", head, _tokenizer(twin))
    evil, twin = both("tokenizer-escaped-text")
    escaped = "".join(f"\\u{ord(char):04x}" for char in evil)
    raw = b'{"chat_template": "' + escaped.encode() + b'"}'
    yield TOKENIZER.case("escaped-text", raw, _tokenizer(twin))
    for name, key, version in (
        ("template", "tokenizer.chat_template", 3),
        ("named-template", "tokenizer.chat_template.tool_use", 3),
        ("version-2", "tokenizer.chat_template", 2),
    ):
        evil, twin = both(f"gguf-{name}")
        evil_file, twin_file = (
            gguf([("general.architecture", "llama"), (key, each)], version=version)
            for each in (evil, twin)
        )
        yield GGUF.case(name, evil_file, twin_file)
    evil, twin = both("gguf-named-as-weights")
    evil_file, twin_file = (gguf([("tokenizer.chat_template", each)]) for each in (evil, twin))
    yield GGUF.case("named-as-weights", evil_file, twin_file, main="weights.bin")


def _tokenizer(template: object) -> bytes:
    return json.dumps(
        {"model_max_length": 4096, "bos_token": "<s>", "chat_template": template}
    ).encode()


_APPLY = "!!python/object/apply:"
# The dangerous one, then its twin.
_YAML: dict[str, Callable[[Trap], tuple[str, str]]] = {
    "apply": lambda t: (f"a: {_APPLY}os.system [{t.command!r}]", f"a: [{t.command!r}]"),
    "apply-with-keywords": lambda t: (
        f"a: {_APPLY}subprocess.Popen {{kwds: {{args: [touch, {t.new}]}}}}",
        f"a: {{kwds: {{args: [touch, {t.new}]}}}}",
    ),
    "eval": lambda t: (f"a: {_APPLY}builtins.eval [{json.dumps(t.code)}]",
                       f"a: !!python/tuple [{json.dumps(t.code)}]"),
    "whole-tag": lambda t: (
        f"a: !<tag:yaml.org,2002:python/object/apply:os.system> [{t.command!r}]",
        f"a: !<tag:yaml.org,2002:seq> [{t.command!r}]",
    ),
    "tag-directive": lambda t: (
        f"%TAG !x! tag:yaml.org,2002:python/object/\n---\na: !x!apply:os.system [{t.command!r}]",
        f"%TAG !x! tag:yaml.org,2002:\n---\na: !x!seq [{t.command!r}]",
    ),
    "escaped-tag": lambda t: (
        f"a: !!python%2Fobject%2Fapply:os%2esystem [{t.command!r}]",
        f"a: !!python%2Ftuple [{t.command!r}]",
    ),
    "new-with-a-state": lambda t: (
        "a: !!python/object/new:type\n  args: ['z', !!python/tuple [], {extend: "
        f"!!python/name:exec }}]\n  listitems: {json.dumps(t.code)}",
        f"a:\n  args: ['z', !!python/tuple [], {{extend: exec}}]\n  listitems: {json.dumps(t.code)}",
    ),
    "second-document": lambda t: (
        f"a: 1\n---\nb: {_APPLY}os.system [{t.command!r}]", f"a: 1\n---\nb: [{t.command!r}]",
    ),
    "before-an-error": lambda t: (f"a: {_APPLY}os.system [{t.command!r}]\n---\n[", "a: 1\n---\n[]"),
    "in-a-key": lambda t: (f"? {_APPLY}os.system [{t.command!r}]\n: 1", f"? {t.command!r}\n: 1"),
    "in-an-alias": lambda t: (
        f"x: &x {_APPLY}os.system [{t.command!r}]\ny: *x", f"x: &x [{t.command!r}]\ny: *x",
    ),
    "map-in-a-tuple": lambda t: (
        f"a: {_APPLY}builtins.tuple [{_APPLY}builtins.map [!!python/name:os.system '', "
        f"[{t.command!r}]]]",
        f"a: !!python/tuple [[{t.command!r}]]",
    ),
    "state-that-is-run": lambda t: (
        "a: !!python/object:scipy.stats._continuous_distns.norm_gen "
        f"{{_parse_arg_template: {json.dumps(t.code)}}}",
        f"a: {{_parse_arg_template: {json.dumps(t.code)}}}",
    ),
    "creates-a-file": lambda t: (f"a: {_APPLY}logging.FileHandler [{t.new}]", f"a: [{t.new}]"),
}  # fmt: skip


def _yaml(traps: Traps) -> Iterator[Case]:
    for name, make in _YAML.items():
        trap = traps(f"yaml-{name}")
        evil, twin = make(trap)
        yield YAML.case(name, evil.encode(), twin.encode())
    trap = traps("yaml-utf-16")
    evil, twin = _YAML["apply"](trap)
    yield YAML.case("utf-16", evil.encode("utf-16"), twin.encode("utf-16"))
    trap = traps("yaml-without-a-name")
    evil, twin = _YAML["apply"](trap)
    yield YAML.case("without-a-name", evil.encode(), twin.encode(), main="hparams")
    levels = "\n".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]" for n in range(9)
    )
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + levels
    yield YAML.case(
        "aliases", bomb.encode(), b"a: &a [x]\nb: [*a, *a]\n", harm=Harm.MEMORY, loader="yaml_safe"
    )


def _xml(traps: Traps) -> Iterator[Case]:
    head = '<?xml version="1.0"?>'
    for name, declared, encoding in (
        ("entity", '<!DOCTYPE PMML [<!ENTITY x SYSTEM "file://SECRET">]>', "utf-8"),
        ("entity-in-utf-16", '<!DOCTYPE PMML [<!ENTITY x SYSTEM "file://SECRET">]>', "utf-16"),
        ("document-type", '<!DOCTYPE PMML SYSTEM "file://SECRET">', "utf-8"),
    ):
        trap = traps(f"xml-{name}")
        used = "&x;" if "ENTITY" in declared else ""
        evil = head + declared.replace("SECRET", trap.secret) + f"<PMML>{used}</PMML>"
        twin = head + f"<PMML>{trap.secret}</PMML>"
        yield XML.case(name, evil.encode(encoding), twin.encode(encoding), harm=Harm.READ)
