"""Bills of materials in CycloneDX 1.4 to 1.7 (JSON): what one says of a model, and of packages.

Theory of operation. What comes with a model is somebody's word: it has bounds of size and of
components, and its texts are made printable where they are shown. Two things are read out of it:
the Python packages that it lists, and, of the component of the type machine-learning-model that it
is about, what can be held against the model itself (digests of files) or fills its card.

Fields that are not looked at may say anything; those that are must have the form of the schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from modelkeep.core.card import Card, DataSet, Metric
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import as_plain, parsed_json, replaced
from modelkeep.scan.evidence import printable
from modelkeep.scan.licences import normal_licence
from modelkeep.scan.packages import PACKAGES_MAX, Package
from modelkeep.scan.pep_rules import normal_name

# A bill of a thousand packages has some megabytes.
BOM_BYTES_MAX = 16 << 20
_SPECS = ("1.4", "1.5", "1.6", "1.7")
_DEPTH_MAX = 20
_MODEL = "machine-learning-model"
# What is no package: nothing is assessed of it, and nothing need be.
_NO_PACKAGES = frozenset(
    {_MODEL, "file", "data", "operating-system", "device", "cryptographic-asset", "firmware",
     "device-driver", "platform", "container"}
)  # fmt: skip
_PURL = re.compile(
    r"pkg:(?P<type>[A-Za-z][A-Za-z0-9.+-]*)/(?P<name>[^@?#]+)(?:@(?P<version>[^?#]*))?.*"
)
_HEX = re.compile(r"[0-9a-fA-F]*")
# Digests as CycloneDX names them, as people write them, and how many digits they have.
_ALGORITHMS = {
    "SHA-256": ("sha256", 64),
    "SHA-384": ("sha384", 96),
    "SHA-512": ("sha512", 128),
    "SHA3-256": ("sha3_256", 64),
    "SHA3-512": ("sha3_512", 128),
    "BLAKE2b-512": ("blake2b", 128),
    "BLAKE3": ("blake3", 64),
}
_PREFIX = "modelkeep:"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToldModel:
    """What a bill says of a model.

    Attributes:
        files: digests by the path of a file; those of the empty path are of the only one. Digests
            that prove nothing are left out.
        card: what it says that a card has fields for.
        base: what the model was made from, by name.
    """

    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    card: Card = field(default_factory=Card)
    base: str = ""


def told_model(raw: bytes) -> ToldModel | None:
    """What a bill says of the model that it is about; None where it is about none.

    Raises:
        IntegrityError: `bom.form`.
    """
    document = _document(raw)
    about = _object(_object(document.get("metadata"), "metadata").get("component"), "component")
    if about.get("type") != _MODEL:
        models = [each for each in _components(document) if each.get("type") == _MODEL]
        if len(models) != 1:
            return None
        (about,) = models
    files: dict[str, tuple[str, ...]] = {}
    listed = [("", about)] if about.get("hashes") else []
    listed += [
        (_text(each.get("name"), "name"), each)
        for each in _components(about)
        if each.get("type") == "file"
    ]
    for path, each in listed:
        digests = tuple(_digests(each))
        if digests:
            files[path] = (*files.get(path, ()), *digests)
    return ToldModel(files=files, card=_card(about, document), base=_base(about))


def told_packages(raw: bytes, *, place: str) -> tuple[Package, ...]:
    """The packages that a bill lists, but what it is itself about.

    Raises:
        IntegrityError: `bom.form`.
    """
    return tuple(
        _package(each, place)
        for each in _components(_document(raw))
        if _text(each.get("type"), "type") not in _NO_PACKAGES
    )


def is_bom(raw: bytes) -> bool:
    """Whether bytes claim to be such a bill."""
    head = bytes(raw[:4096]).lstrip()
    return head.startswith(b"{") and b'"bomFormat"' in bytes(raw)


def filled(card: Card, told: Card) -> tuple[Card, tuple[str, ...]]:
    """A card with what it did not say and a bill does, and the fields in which they differ."""
    own, other, blank = as_plain(card), as_plain(told), as_plain(Card())
    new = {
        name: getattr(told, name)
        for name in own
        if own[name] == blank[name] and other[name] != blank[name]
    }
    apart = tuple(
        name
        for name in own
        if blank[name] not in (own[name], other[name]) and own[name] != other[name]
    )
    if normal_licence(card.licence) and normal_licence(card.licence) == normal_licence(
        told.licence
    ):
        apart = tuple(name for name in apart if name != "licence")
    return replaced(card, **new), apart


def _document(raw: bytes) -> Json:
    if len(raw) > BOM_BYTES_MAX:
        raise _no_bom(f"it has more than {BOM_BYTES_MAX} bytes")
    try:
        document = parsed_json(raw, what="it")
    except IntegrityError as error:
        raise _no_bom(f"{error.message:.160}") from None
    document = _object(document, "it")
    if document.get("bomFormat") != "CycloneDX" or document.get("specVersion") not in _SPECS:
        shown = f"{document.get('bomFormat')!r:.40} {document.get('specVersion')!r:.20}"
        raise _no_bom(f"it is {shown}, not CycloneDX {' or '.join(_SPECS)}")
    return document


def _components(of: Json) -> Iterator[Json]:
    """Components and those inside them, in order."""
    waiting: list[tuple[Json, int]] = [(of, 0)]
    count = 0
    while waiting:
        now, depth = waiting.pop()
        inside = [_object(each, "a component") for each in _list(now.get("components"))]
        count += len(inside)
        if count > PACKAGES_MAX or depth > _DEPTH_MAX:
            raise _no_bom(f"it lists more than {PACKAGES_MAX} components, or nests too deep")
        if depth:
            yield now
        waiting += [(each, depth + 1) for each in reversed(inside)]


def _package(component: Json, place: str) -> Package:
    name = _text(component.get("name"), "name")
    version = _text(component.get("version"), "version")
    purl = _text(component.get("purl"), "purl")
    named = _PURL.fullmatch(purl)
    why = "" if named else "it has no package URL, so nobody knows which index it is of"
    if named:
        name = normal_name(unquote(named["name"])) if named["type"].lower() == "pypi" else name
        version = unquote(named["version"] or "") or version
        if named["type"].lower() != "pypi":
            why = f"it is of {printable(named['type'], 40)}, and the advisories are of PyPI"
    return Package(
        name=printable(name),
        version=printable(version),
        place=place,
        why_not=why,
        hashes=tuple(_digests(component)),
        licence=_licence(component),
    )


def _card(about: Json, document: Json) -> Card:
    card = _object(about.get("modelCard"), "modelCard")
    how = _object(card.get("modelParameters"), "modelParameters")
    said = _object(card.get("considerations"), "considerations")
    figures = _object(card.get("quantitativeAnalysis"), "quantitativeAnalysis")
    own = _properties(about)
    return Card(
        task=_shown(how.get("task")),
        family=_shown(how.get("architectureFamily")),
        architecture=_shown(how.get("modelArchitecture")),
        licence=_licence(about),
        supplier=_shown(_object(about.get("supplier"), "supplier").get("name")),
        datasets=tuple(_datasets(how, document)),
        run=own.get("run", ""),
        code=own.get("code", ""),
        metrics=tuple(_metrics(figures)),
        users=tuple(map(_shown, _list(said.get("users")))),
        use_cases=tuple(map(_shown, _list(said.get("useCases")))),
        limitations=tuple(map(_shown, _list(said.get("technicalLimitations")))),
        tradeoffs=tuple(map(_shown, _list(said.get("performanceTradeoffs")))),
        ethics=tuple(
            _shown(_object(each, "a risk").get("name"))
            for each in _list(said.get("ethicalConsiderations"))
        ),
    )


def _datasets(how: Json, document: Json) -> Iterator[DataSet]:
    """Data sets, written in place or by reference to a component."""
    by_ref = {
        each["bom-ref"]: each
        for each in _components(document)
        if isinstance(each.get("bom-ref"), str)
    }
    for each in _list(how.get("datasets")):
        one = _object(each, "a data set")
        ref = one.get("ref")
        named = by_ref.get(ref, {}) if isinstance(ref, str) else one
        inner = [_object(part, "data") for part in _list(named.get("data"))] or [named]
        contents = _object(inner[0].get("contents"), "contents")
        own = _properties(named)
        name = _shown(named.get("name")) or _shown(ref)
        if name:
            yield DataSet(
                name=name,
                digest=next(_digests(named), own.get("digest", "")),
                url=_shown(contents.get("url")) or own.get("url", ""),
                purpose=own.get("purpose", "training"),
            )


def _metrics(figures: Json) -> Iterator[Metric]:
    for each in _list(figures.get("performanceMetrics")):
        one = _object(each, "a metric")
        try:
            value = float(_text(one.get("value"), "value"))
        except ValueError:
            continue
        if value - value == 0:  # neither infinite nor no number
            yield Metric(kind=_shown(one.get("type")), value=value, slice=_shown(one.get("slice")))


def _base(about: Json) -> str:
    """What the model was made from: its first ancestor."""
    ancestors = _list(_object(about.get("pedigree"), "pedigree").get("ancestors"))
    if not ancestors:
        return ""
    first = _object(ancestors[0], "an ancestor")
    name, version = _shown(first.get("name")), _shown(first.get("version"))
    return f"{name}:{version}" if version else name


def _licence(component: Json) -> str:
    """The licence; several are all meant."""
    found = []
    for each in _list(component.get("licenses")):
        one = _object(each, "a licence")
        inner = _object(one.get("license"), "license")
        text = one.get("expression") or inner.get("id") or inner.get("name")
        found.append(_shown(text))
    return found[0] if len(found) == 1 else " AND ".join(f"({each})" for each in found)


def _digests(component: Json) -> Iterator[str]:
    for each in _list(component.get("hashes")):
        one = _object(each, "a hash")
        name, value = _text(one.get("alg"), "alg"), _text(one.get("content"), "content")
        written, digits = _ALGORITHMS.get(name, ("", -1))
        if len(value) == digits and _HEX.fullmatch(value):
            yield f"{written}:{value.lower()}"


def _properties(component: Json) -> dict[str, str]:
    """What a bill of ours says beyond the schema."""
    pairs = [_object(each, "a property") for each in _list(component.get("properties"))]
    return {
        _shown(each.get("name")).removeprefix(_PREFIX): _shown(each.get("value"))
        for each in pairs
        if _shown(each.get("name")).startswith(_PREFIX)
    }


def _object(value: object, what: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _no_bom(f"{what} is no object")
    return value


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > PACKAGES_MAX:
        raise _no_bom("a list is none, or too long")
    return value


def _text(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _no_bom(f"{what} is no text")
    return value


def _shown(value: object) -> str:
    return printable(_text(value, "a field"), 1_000)


def _no_bom(why: str) -> IntegrityError:
    return IntegrityError("bom.form", f"this is no bill of materials that is read here: {why}")
