"""Bytes that stand in text as base64: what a loader takes out of it is judged as what it is.

Stable-Baselines3 keeps pickles in the JSON of its archives, others keep models in configuration. A
text counts as base64 when all of it is; what it decodes to counts when it begins as something that
a loader would take, or acts as a pickle. Digests and words decode to numbers, which say nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from modelkeep.core.verdict import Finding
from modelkeep.kernels.formats import identify
from modelkeep.scan.cases import Case
from modelkeep.scan.evidence import printable
from modelkeep.scan.walks import Entry

_ALPHABET = re.compile(r"[A-Za-z0-9+/\s_-]{16,}(?:=\s*){0,2}")
_SHAPES = (b"+/", b"-_")
_LOADED = frozenset({"pickle", "zip", "torch-zip", "npy", "hdf5", "gzip", "zlib", "bzip2", "xz"})
# Of one object: loaders keep tens of such texts.
_TEXTS_MAX = 200
_TEXT_CHARS_MAX = 64 << 20
# What is judged only as the pickle that it may be: of more, a loader would say its magic.
_PROBED_BYTES_MAX = 1 << 16


def embedded_findings(case: Case, entry: Entry) -> list[Finding]:
    """Judge the texts of one object of a document, and those of its lists."""
    findings: list[Finding] = []
    for path, text in _texts(entry):
        findings.extend(base64_findings(case, path, text))
    return findings


def base64_findings(case: Case, path: str, text: str) -> tuple[Finding, ...]:
    """Judge what a text stands for, if it is base64 of something that a loader takes."""
    if len(text) > _TEXT_CHARS_MAX or not _ALPHABET.fullmatch(text):
        return ()
    raw = _decoded(text)
    if raw is None or len(raw) > case.place.allowance.plain_bytes:
        return ()
    kind = identify(memoryview(raw))
    if kind not in _LOADED and len(raw) > _PROBED_BYTES_MAX:
        return ()
    case.place.allowance.plain_bytes -= len(raw)
    found = case.inner(printable(path or "(text)", 80), raw)
    if kind in ("pickle", "zip", "torch-zip", "npy", "hdf5"):
        return found
    # Digests look like the beginning of compressed data, and of much else.
    return tuple(each for each in found if each.rule.startswith("scan.pickle."))


def _decoded(text: str) -> bytes | None:
    plain = "".join(text.split())
    for shape in _SHAPES:
        if shape == b"-_" or not ("-" in plain or "_" in plain):
            try:
                padded = plain.rstrip("=") + "=" * (-len(plain.rstrip("=")) % 4)
                return base64.b64decode(padded, altchars=shape, validate=True)
            except (binascii.Error, ValueError):
                continue
    return None


def _texts(entry: Entry) -> Iterator[tuple[str, str]]:
    count = 0
    for key, value in entry.pairs.items():
        values: list[Any] = value if isinstance(value, list) else [value]
        for each in values[:_TEXTS_MAX]:
            if isinstance(each, str) and len(each) >= 16 and " " not in each[:32]:
                count += 1
                if count > _TEXTS_MAX:
                    return
                yield f"{entry.path}.{key}" if entry.path else str(key), each
