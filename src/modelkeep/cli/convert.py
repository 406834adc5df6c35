"""The verb convert: tensors of PyTorch or NumPy as safetensors, models of others as ONNX."""

from __future__ import annotations

import argparse

from modelkeep.cli.output import progress, safe_text, said
from modelkeep.core.record import as_plain
from modelkeep.core.sizes import size_text

_SHOWN_MAX = 5


def convert(options: argparse.Namespace) -> int:
    """Turn a pickled file of tensors into safetensors, or a model into ONNX."""
    if options.output.suffix == ".onnx":
        return _to_onnx(options)
    from modelkeep.sdk.conversion import convert as converted  # noqa: PLC0415 - not for `--help`

    size_bytes = options.file.stat().st_size if options.file.is_file() else None
    with progress(f"convert {options.file.name}", size_bytes) as advance:
        done = converted(options.file, options.output, force=options.force, progress=advance)
    lines = [
        f"wrote {options.output}: {done.tensors} tensor(s), {size_text(done.size_bytes)}",
        "  what is no tensor stayed behind",
    ]
    if done.shared:
        names = ", ".join(done.shared[:_SHOWN_MAX])
        more = f" and {len(done.shared) - _SHOWN_MAX} more" if len(done.shared) > _SHOWN_MAX else ""
        lines.append(f"  saw the same numbers, and have their own now: {names}{more}")
    facts = {**as_plain(done), "output": str(options.output)}
    return said(facts, "\n".join(map(safe_text, lines)), as_json=options.json)


def _to_onnx(options: argparse.Namespace) -> int:
    from modelkeep.sdk.conversion import to_onnx  # noqa: PLC0415 - not for `--help`

    done = to_onnx(options.file, options.output, force=options.force, tolerance=options.tolerance)
    agreed = done.agreement
    rows = ", ".join(map(str, agreed.rows))
    lines = [f"wrote {options.output}: {size_text(done.size_bytes)}, from {done.framework}"]
    lines.append(f"  both answered batches of {rows} random rows (seed {agreed.seed})")
    if agreed.numbers:
        permitted = f"{agreed.rtol:g} of each and {agreed.atol:g} are permitted"
        lines.append(
            f"  {agreed.numbers} number(s) differ by {agreed.largest:.3g} at most; {permitted}"
        )
    if agreed.labels:
        lines.append(
            f"  {agreed.labels} label(s) are equal; rows that lie on a boundary may differ"
        )
    lines += [f"  without {each!r}, which this machine does not give" for each in done.unsheltered]
    facts = {**as_plain(done), "output": str(options.output)}
    return said(facts, "\n".join(map(safe_text, lines)), as_json=options.json)
