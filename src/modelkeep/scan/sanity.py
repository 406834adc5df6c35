"""Whether a model's numbers make sense: what is none, dead, oddly scaled, or there twice.

This finds accidents (a training run that diverged, a broken conversion, a file that was cut and
padded), not attacks: who makes a model can make its numbers look sound. Tensors are those that the
format's layout knows (`kernels.tensors`): safetensors, ONNX with its data inside, PyTorch archives,
GGUF, npy and npz without compression. Quantised blocks and 8-bit floats have no numbers of their
own here and are left out. Where no number, or not every one, could be looked at, a note says so.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from modelkeep.core.errors import IntegrityError
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.tensor_facts import TensorFacts, are_equal, facts_of, is_counted
from modelkeep.kernels.tensors import TensorPlace, tensor_places
from modelkeep.scan.backdoors import backdoor_findings
from modelkeep.scan.evidence import found
from modelkeep.scan.sanity_settings import ALWAYS, SanitySettings

_SHOWN = 5
# Files of these kinds are there for their tensors; any other archive may well hold none.
_OF_TENSORS = frozenset({"safetensors", "onnx", "torch-zip", "gguf", "npy"})
# Fewer numbers than this may well be alike: biases, scales, flags.
_ITEMS_MIN = 256
_SIBLINGS_MIN = 4
_NUMBER = re.compile(r"[0-9]+")
# Tensors that are compared byte by byte; those that differ differ in their first facts already.
_COMPARED_BYTES_MAX = 4 * 1024 * 1024 * 1024


def sanity_findings(
    name: str, view: memoryview, kind: str, settings: SanitySettings
) -> tuple[Finding, ...]:
    """Look at every number of a file's tensors once; gigabytes a second, whatever their size.

    A layout that does not hold has no tensors here: the scanner judges it.
    """
    if settings.when != ALWAYS:
        return ()
    try:
        every = tensor_places(name, view, kind)
    except IntegrityError as error:
        text = f"no tensor was looked at: {error.message}"
        unseen = found("sanity.unseen", Severity.NOTE, name, text)
        return (unseen,) if kind in _OF_TENSORS else ()
    places = every[: settings.tensors_max]
    forget = _forgetting(view)
    facts = [facts_of(view, each, forget=forget) for each in places if is_counted(each)]
    findings = list(_not_finite(name, facts, settings))
    if len(every) > len(places):
        text = f"{len(places)} tensors of {len(every)} were looked at (scan.sanity.tensors_max)"
        findings.append(found("sanity.unseen", Severity.NOTE, name, text))
    if settings.oddities:
        findings += _dead(name, facts)
        findings += _scaled(name, facts, settings.scale_ratio_max)
        findings += _equal(name, view, facts)
    if settings.backdoors:
        findings += backdoor_findings(name, view, kind, places)
    return tuple(findings)


def _not_finite(
    name: str, facts: Sequence[TensorFacts], settings: SanitySettings
) -> Iterable[Finding]:
    if settings.not_finite == "off":
        return
    severity = Severity.MEDIUM if settings.not_finite == "hold" else Severity.NOTE
    bad = [each for each in facts if (each.nans or each.infinities) and not _is_on_purpose(each)]
    if bad:
        told = [
            f"{_name(each.place)} {each.nans} NaN, {each.infinities} infinite of {each.items}"
            for each in bad[:_SHOWN]
        ]
        rule = "sanity.nan" if any(each.nans for each in bad) else "sanity.infinite"
        yield found(rule, severity, name, _listed(told, len(bad)))


def _is_on_purpose(each: TensorFacts) -> bool:
    """A constant that a graph computes with, or a mask: infinities of one sign, and zeros."""
    if each.items == 1:
        return True
    one_sign = each.negative in (0, each.infinities)
    has_zeros = each.largest == 0.0 and each.infinities < each.items
    return not each.nans and has_zeros and one_sign


def _dead(name: str, facts: Sequence[TensorFacts]) -> Iterable[Finding]:
    large = [each for each in facts if each.items >= _ITEMS_MIN and each.place.dtype != "BOOL"]
    zero = [_name(each.place) for each in large if each.is_zero]
    # Scales of a layer are alike when training begins, and have one dimension.
    alike = [
        _name(each.place)
        for each in large
        if each.is_constant
        and not (each.is_zero or each.nans or each.infinities)
        and len(each.place.shape) > 1
    ]
    if zero:
        text = f"all zero: {_listed(zero[:_SHOWN], len(zero))}"
        yield found("sanity.dead", Severity.NOTE, name, text)
    if alike:
        text = f"all numbers are one and the same: {_listed(alike[:_SHOWN], len(alike))}"
        yield found("sanity.constant", Severity.NOTE, name, text)


def _scaled(name: str, facts: Sequence[TensorFacts], ratio_max: float) -> Iterable[Finding]:
    """Against the median of the tensors that have the same name but for its numbers."""
    groups: dict[tuple[str, str, int], list[TensorFacts]] = {}
    for each in facts:
        if each.usual > 0 and each.items >= _ITEMS_MIN:
            stem = _NUMBER.sub("#", each.place.name)
            groups.setdefault((stem, each.place.dtype, len(each.place.shape)), []).append(each)
    told = []
    for siblings in groups.values():
        middle = median(each.usual for each in siblings)
        for each in siblings if len(siblings) >= _SIBLINGS_MIN else ():
            if not middle / ratio_max <= each.usual <= middle * ratio_max:
                usual = f"{each.usual:.2g}, of its {len(siblings)} siblings {middle:.2g}"
                told.append(f"{_name(each.place)} has numbers of about {usual}")
    if told:
        yield found("sanity.scale", Severity.NOTE, name, _listed(told[:_SHOWN], len(told)))


def _equal(name: str, view: memoryview, facts: Sequence[TensorFacts]) -> Iterable[Finding]:
    groups: dict[object, list[TensorPlace]] = {}
    for each in facts:
        if each.items >= _ITEMS_MIN and not each.is_constant and each.usual > 0:
            place = each.place
            key = (place.dtype, place.length, each.largest, each.usual, each.nans)
            groups.setdefault(key, []).append(place)
    told, left = [], _COMPARED_BYTES_MAX
    for alike in groups.values():
        first = alike[0]
        for other in alike[1:]:
            left -= first.length
            if left >= 0 and are_equal(view, first, other):
                told.append(f"{_name(other)} is {_name(first)}")
    if told:
        text = f"there twice: {_listed(told[:_SHOWN], len(told))}"
        yield found("sanity.duplicate", Severity.NOTE, name, text)


def _name(place: TensorPlace) -> str:
    return repr(place.name[:60])


def _listed(told: Sequence[str], many: int) -> str:
    more = f", and {many - len(told)} more" * (many > len(told))
    return ", ".join(told) + more


def _forgetting(view: memoryview) -> Callable[[int, int], None]:
    """Gives pages of a mapped file back; of other memory nothing, it would be lost."""
    whole = view.obj
    if not isinstance(whole, mmap.mmap) or len(whole) != len(view):
        return lambda _start, _stop: None
    with memoryview(whole) as own:
        if not own.readonly:  # only what cannot be written is sure to lie in a file
            return lambda _start, _stop: None

    def forget(start: int, stop: int) -> None:
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = stop // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            whole.madvise(mmap.MADV_DONTNEED, first, last - first)

    return forget
