"""Models in the words of supply chains: a CycloneDX ML-BOM (ECMA-424) with a model card.

Everything in it is read off the signed manifest: files with their digests, inputs and outputs, the
card of the makers, where the model comes from. There is no clock and no chance in it: serial number
and time are those of the manifest, so that one version gives the same bytes for as long as the keep
holds what it was made from.

What CycloneDX has no field for stands in properties under `modelkeep:`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelkeep.core.artifact import FileEntry, Manifest, Port
from modelkeep.core.card import Card, DataSet, Metric
from modelkeep.core.digest import Digest
from modelkeep.core.instant import NS_PER_S
from modelkeep.core.policy import ANYTHING
from modelkeep.core.record import as_plain, to_json

SPECS = ("1.6", "1.7")

# Digests as people write them, and as CycloneDX names them, with how many hex digits they have.
_HASHES = {
    "md5": ("MD5", 32),
    "sha1": ("SHA-1", 40),
    "sha256": ("SHA-256", 64),
    "sha384": ("SHA-384", 96),
    "sha512": ("SHA-512", 128),
    "blake2b": ("BLAKE2b-512", 128),
    "blake3": ("BLAKE3", 64),
}
# An absolute URI (RFC 3986) of letters that every reader takes.
_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?://[A-Za-z0-9._~-]+(?::[0-9]{1,5})?)?"
    r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?"
    r"(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
)
# What an SPDX expression is put together from (SPDX 2.3, annex D).
_SPDX_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*\+?|DocumentRef-[\w.-]+:LicenseRef-[\w.-]+")
_MODEL_REF = "model"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A version that a model was made from, directly or not.

    Attributes:
        reference: as the version after it names it.
        manifest: None where the keep does not hold it any more.
    """

    reference: str
    manifest: Manifest | None = None
    digest: Digest | None = None


def bom_of(
    manifest: Manifest, digest: Digest, ancestors: Sequence[Ancestor], *, spec: str = SPECS[0]
) -> bytes:
    """The document, JSON.

    Args:
        digest: of the manifest's bytes.
        ancestors: the nearest first.
    """
    datasets = [_dataset(each, at) for at, each in enumerate(manifest.card.datasets)]
    model = {
        **_component(manifest, digest, ref=_MODEL_REF),
        "modelCard": _card(manifest.card, manifest),
        "components": [_file(each, at) for at, each in enumerate(manifest.files)],
    }
    if ancestors:
        model["pedigree"] = {
            "ancestors": [_ancestor(each, at) for at, each in enumerate(ancestors)]
        }
    seconds = manifest.admitted_ns // NS_PER_S
    admitted = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    refs = [each["bom-ref"] for each in datasets]
    document: Json = {
        "$schema": f"http://cyclonedx.org/schema/bom-{spec}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": spec,
        "serialNumber": _serial(digest),
        "version": 1,
        "metadata": {
            "timestamp": admitted.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": "modelkeep"}]},
            "component": model,
        },
        "components": datasets,
        "dependencies": [
            _present({"ref": _MODEL_REF, "dependsOn": refs}),
            *({"ref": ref} for ref in refs),
        ],
    }
    return to_json(document)


def _component(manifest: Manifest, digest: Digest, *, ref: str) -> Json:
    """What is said of a model and of its ancestors alike."""
    card = manifest.card
    (only, *others) = manifest.files or (None,)
    return _present(
        {
            "type": "machine-learning-model",
            "bom-ref": ref,
            "name": manifest.name,
            "version": str(manifest.version),
            "description": manifest.note,
            "supplier": {"name": card.supplier} if card.supplier else None,
            "licenses": _licences(card.licence),
            "hashes": _hashes(only.digest) if only is not None and not others else [],
            "properties": [
                *_properties("manifest", str(digest)),
                *_properties("kind", manifest.kind),
                *_properties("domain", manifest.domain),
                *_properties("run", card.run),
                *_properties("code", card.code),
                *_properties("base", manifest.base),
                *(each for mark in manifest.marks for each in _properties("mark", mark)),
                *_properties("policy", _policy_text(manifest)),
            ],
        }
    )


def _ancestor(ancestor: Ancestor, number: int) -> Json:
    ref = f"ancestor-{number}"
    if ancestor.manifest is None or ancestor.digest is None:
        name, _, version = ancestor.reference.partition(":")
        return _present(
            {
                "type": "machine-learning-model",
                "bom-ref": ref,
                "name": name,
                "version": version,
            }
        )
    return _component(ancestor.manifest, ancestor.digest, ref=ref)


def _file(entry: FileEntry, number: int) -> Json:
    return {
        "type": "file",
        "bom-ref": f"file-{number}",
        "name": entry.path,
        "hashes": _hashes(entry.digest),
        "properties": [
            *_properties("size_bytes", str(entry.size_bytes)),
            *_properties("tensors", str(len(entry.tensors))),
        ],
    }


def _dataset(data: DataSet, number: int) -> Json:
    is_uri = len(data.url) <= 2048 and _URI.fullmatch(data.url) is not None
    hashes = _hashes(data.digest)
    return _present(
        {
            "type": "data",
            "bom-ref": f"data-{number}",
            "name": data.name,
            "hashes": hashes,
            "data": [
                _present(
                    {
                        "type": "dataset",
                        "name": data.name,
                        "contents": {"url": data.url} if is_uri else None,
                        "description": data.purpose,
                    }
                )
            ],
            "properties": [
                *_properties("purpose", data.purpose),
                *_properties("digest", "" if hashes else data.digest),
                *_properties("url", "" if is_uri else data.url),
            ],
        }
    )


def _card(card: Card, manifest: Manifest) -> Json:
    schema = manifest.schema
    return _present(
        {
            "modelParameters": _present(
                {
                    "task": card.task,
                    "architectureFamily": card.family,
                    "modelArchitecture": card.architecture,
                    "datasets": [{"ref": f"data-{at}"} for at in range(len(card.datasets))],
                    "inputs": [{"format": _port_text(each)} for each in schema.inputs]
                    if schema
                    else [],
                    "outputs": [{"format": _port_text(each)} for each in schema.outputs]
                    if schema
                    else [],
                }
            ),
            "quantitativeAnalysis": _present(
                {"performanceMetrics": [_metric(each) for each in card.metrics]}
            ),
            "considerations": _present(
                {
                    "users": list(card.users),
                    "useCases": list(card.use_cases),
                    "technicalLimitations": list(card.limitations),
                    "performanceTradeoffs": list(card.tradeoffs),
                    "ethicalConsiderations": [{"name": each} for each in card.ethics],
                }
            ),
        }
    )


def _metric(metric: Metric) -> Json:
    return _present({"type": metric.kind, "value": repr(metric.value), "slice": metric.slice})


def _port_text(port: Port) -> str:
    """Such as `input: FP32[-1,64]`."""
    return f"{port.name}: {port.dtype}[{','.join(map(str, port.shape))}]"


def _licences(text: str) -> list[Json]:
    """As an SPDX expression where it reads as one; a name otherwise."""
    if not text:
        return []
    return [{"expression": text}] if _is_expression(text) else [{"license": {"name": text}}]


def _is_expression(text: str) -> bool:
    """Whether licences and AND, OR, WITH take turns; what parentheses enclose is not looked at."""
    words = text.replace("(", " ").replace(")", " ").split()
    operators = ("AND", "OR", "WITH")
    return (
        len(words) % 2 == 1
        and text.count("(") == text.count(")")
        and all(_SPDX_WORD.fullmatch(word) and word not in operators for word in words[::2])
        and all(word in operators for word in words[1::2])
    )


def _hashes(digest: str) -> list[Json]:
    """A digest such as `sha256:…`, if CycloneDX knows its like."""
    algorithm, _, value = digest.partition(":")
    name, chars = _HASHES.get(algorithm.lower().replace("-", ""), ("", 0))
    if not name or re.fullmatch(r"[0-9a-fA-F]+", value) is None or len(value) != chars:
        return []
    return [{"alg": name, "content": value.lower()}]


def _policy_text(manifest: Manifest) -> str:
    return "" if manifest.policy == ANYTHING else to_json(as_plain(manifest.policy)).decode()


def _properties(name: str, value: str) -> list[Json]:
    return [{"name": f"modelkeep:{name}", "value": value}] if value else []


def _present(fields: Json) -> Json:
    """Without what is empty, but for names, which the format demands."""
    return {
        name: value
        for name, value in fields.items()
        if name == "name" or value not in (None, "", [], {})
    }


def _serial(digest: Digest) -> str:
    """A UUID of the manifest's digest (RFC 9562, version 8: its bits are ours to choose)."""
    bits = int(digest.partition(":")[2][:32], 16)
    bits = bits & ~(0xF << 76) | 8 << 76  # version
    bits = bits & ~(0x3 << 62) | 2 << 62  # variant
    text = f"{bits:032x}"
    parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
    return f"urn:uuid:{'-'.join(parts)}"
