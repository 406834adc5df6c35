"""Configuration of spaCy and thinc (`config.cfg`): functions that it names in their registries.

Theory of operation. confection reads the file as INI whose values are JSON; an option that begins
with `@` names a function of a registry, which is called with the section's other options
(confection/__init__.py, `registry.resolve`). What spaCy, thinc and their own extensions register
passes; another name needs code that whoever loads the file must bring.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from modelkeep.core.verdict import Finding, Severity
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.walks import walked

_EXTENSIONS = (".cfg", ".ini", ".conf")
_SIGN = re.compile(r"(?m)^[ \t]*@\w|[{,][ \t\n]*\"(?:@|\\u0040)")
_SECTION = re.compile(r"(?m)^[ \t]*\[[^\]\n]{1,200}\][ \t]*(?:[#;].*)?$")
_OWN = re.compile(
    r"(?:spacy|spacy-(?:legacy|loggers|transformers|curated-transformers|llm|experimental|lookups"
    r"|pytorch|ray|huggingface-hub|alignments|layered-initialization|stanza|udpipe|wordnet)|thinc)"
    r"\.[A-Za-z][\w.-]*\.v\d{1,3}"
)
_READERS = re.compile(r"srsly\.read_(?:json|jsonl|msgpack|yaml)\.v\d{1,3}")
# What thinc registers under names without a prefix (thinc 8.3).
_LAYERS = re.compile(
    r"(?:CauchySimilarity|ClippedLinear|Dish|Dropout|Embed|Gelu|Hard\w{1,20}|HashEmbed|LSTM|LayerNorm"
    r"|Linear|Logistic|MXNetWrapper|Maxout|Mish|MultiSoftmax|ParametricAttention|PyTorch(?:LSTM"
    r"|RNNWrapper|Wrapper)|TensorFlowWrapper|TorchScriptWrapper|Relu|ReluK|Sigmoid|Softmax"
    r"|SparseLinear|Swish|add|bidirectional|chain|clone|concatenate|expand_window|noop|premap_ids"
    r"|remap_ids|residual|resizable|siamese|tuplify|uniqued|(?:list|padded|ragged|strings)2[a-z]{1,9}"
    r"|reduce_[a-z]{1,9}|(?:sigmoid|softmax)_activation|with_[a-z0-9]{1,9}|[a-z]{1,9}(?:_[a-z]{1,9})?"
    r"_init|CategoricalCrossentropy|SequenceCategoricalCrossentropy|CosineDistance|L2Distance|R?Adam"
    r"|SGD|compounding|constant|constant_then|cyclic_triangular|decaying|slanted_triangular"
    r"|warmup_linear|plateau)\.v\d{1,3}|(?:Cupy|MPS|Numpy|Apple)Ops"
)
_RUNNING = re.compile(r"(?i)pickle|dill|joblib|eval|exec|system|shell|subprocess|import")
_INNER = re.compile(r"\"(?:@|\\u0040)([^\"\n]{1,60})\"\s*:\s*\"?([^\"\n,}]{0,200})")
_LINES_MAX = 100_000
_SHOWN_MAX = 20


def is_ini(case: Case, text: str) -> bool:
    """Whether a text is configuration that names functions."""
    is_named = case.place.name.lower().endswith(_EXTENSIONS)
    return (is_named or _SECTION.match(text.lstrip()) is not None) and bool(
        _SIGN.search(text) and _SECTION.search(text)
    )


def ini_findings(case: Case, text: str) -> tuple[Finding, ...]:
    """Judge the functions that the configuration names."""
    findings: list[Finding] = []
    for section, key, value in _options(text):
        for registry, name in _named(key, value):
            severity = _severity(name)
            if severity is not None:
                shown = printable(f"@{registry} = {name}", 100)
                what = f"[{printable(section, 60)}] calls a function of no known library: {shown}"
                findings.append(case.found("scan.config.target", severity, what))
        if len(findings) >= _SHOWN_MAX:
            break
    if not findings:
        what = "is configuration; the functions that it names are those of spaCy and thinc"
        findings.append(case.found("scan.config.plain", Severity.NOTE, what))
    return tuple(findings)


def _severity(name: str) -> Severity | None:
    is_own = any(each.fullmatch(name) for each in (_OWN, _READERS, _LAYERS))
    if is_own and not _RUNNING.search(name):
        return None
    return Severity.HIGH if _RUNNING.search(name) else Severity.MEDIUM


def _named(key: str, value: str) -> Iterator[tuple[str, str]]:
    """The functions that one option names, itself or in the objects that are its value."""
    try:
        parsed: Any = json.loads(value) if value else value
    except (ValueError, RecursionError):
        parsed = value
    if key.startswith("@"):
        yield key[1:], parsed if isinstance(parsed, str) else value
        return
    if isinstance(parsed, str):  # `${…}` in an object makes it no JSON until it is filled in
        yield from ((match[1], match[2]) for match in _INNER.finditer(value))
    for entry in walked(parsed, _LINES_MAX):
        for name, function in entry.pairs.items():
            if name.startswith("@"):
                yield name[1:], str(function)


def _options(text: str) -> Iterator[tuple[str, str, str]]:
    """Section, option and value; lines that are indented continue a value."""
    section, key, value = "", "", list[str]()
    for count, line in enumerate(text.splitlines()):
        bare = line.strip()
        if count >= _LINES_MAX:
            break
        if not bare or bare[0] in "#;":
            continue
        if line[:1] in " \t" and key:
            value.append(bare)
            if bare[0] == "@":  # to a reader that ignores the indent it is an option
                own, _, rest = bare.partition("=")
                yield section, own.strip(), rest.strip()
            continue
        if key:
            yield section, key, "\n".join(value)
        key, value = "", []
        if bare.startswith("[") and "]" in bare:
            section = bare[1:].partition("]")[0]
            continue
        key, _, rest = bare.partition("=")
        if ":" in key:
            key, _, rest = bare.partition(":")
        key, value = key.strip(), [rest.strip()]
    if key:
        yield section, key, "\n".join(value)
