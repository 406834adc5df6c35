"""The verb convert: a file of PyTorch or NumPy as safetensors."""

from __future__ import annotations

import argparse

from modelkeep.cli.output import progress, safe_text, said
from modelkeep.core.record import as_plain
from modelkeep.core.sizes import size_text

_SHOWN_MAX = 5


def convert(options: argparse.Namespace) -> int:
    """Turn a pickled file of tensors into safetensors."""
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
