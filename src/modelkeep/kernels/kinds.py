"""The names of all kinds of files: what `kernels.formats.identify` may answer, and nothing else.

For who is told a kind by a process that had hostile bytes in it.
"""

from __future__ import annotations

KINDS = frozenset(
    (
        *("7z", "arrow", "bzip2", "cab", "catboost", "class", "compiled", "coreml", "dex"),
        *("dotnet-object", "elf", "empty", "executorch", "fingerprint", "ggml", "gguf", "graphdef"),
        *("gzip", "hdf5", "java-object", "keras-metadata", "library", "lz4", "lzma", "macho"),
        *("matlab", "metagraph", "npy", "ole", "onnx", "paddle", "pe", "pickle", "rar", "rdata"),
        *("safetensors", "savedmodel", "script", "sentencepiece", "shortcut", "tar", "tflite"),
        *("torch-zip", "ubjson", "unknown", "wasm", "xz", "zip", "zlib", "zstd"),
    )
)
