"""Prometheus' text format of several processes as one text: each sample says whose it is.

A label, not a sum: when one process starts again its counters begin at zero, and only a series of
its own shows that to whoever computes a rate. The lines of one metric stay together, as the format
demands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def labelled(text: bytes, *, label: str, value: str) -> bytes:
    """The text with one more label in front of every sample's.

    Args:
        value: needs no escapes.
    """
    pair = f'{label}="{value}"'.encode()
    lines = []
    for line in text.splitlines():
        if not line or line.startswith(b"#"):
            lines.append(line)
            continue
        space, brace = line.find(b" "), line.find(b"{")
        if 0 <= brace < space or space < 0:
            name, rest = line[:brace], line[brace + 1 :]
            lines.append(name + b"{" + pair + (b"" if rest[:1] == b"}" else b",") + rest)
        else:
            lines.append(line[:space] + b"{" + pair + b"}" + line[space:])
    return b"\n".join(lines) + b"\n"


def joined(texts: Iterable[bytes]) -> bytes:
    """Several texts as one: each metric is described once and its samples follow at once."""
    heads: dict[bytes, list[bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    for text in texts:
        metric = b""
        said: dict[bytes, list[bytes]] = {}
        for line in text.splitlines():
            if line.startswith((b"# HELP ", b"# TYPE ")):
                metric = line.split(b" ", 3)[2]
                said.setdefault(metric, []).append(line)
            elif line and not line.startswith(b"#"):
                samples.setdefault(metric, []).append(line)
        for name, lines in said.items():
            heads.setdefault(name, lines)
    return _written(heads, samples)


def _written(heads: Mapping[bytes, list[bytes]], samples: Mapping[bytes, list[bytes]]) -> bytes:
    lines = []
    for metric in (*heads, *(each for each in samples if each not in heads)):
        lines += [*heads.get(metric, ()), *samples.get(metric, ())]
    return b"\n".join(lines) + b"\n"
