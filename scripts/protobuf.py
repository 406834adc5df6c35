"""Write the Python of the gateway's protobuf messages.

    python scripts/protobuf.py [--check]

`src/modelkeep/web/open_inference_pb2.py` is made of `open_inference.proto` beside it by the
compiler of grpcio-tools. With `--check` nothing is written, and the exit status is 1 if the file
there is not what would be written.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

FOLDER = Path(__file__).resolve().parent.parent / "src" / "modelkeep" / "web"
SOURCE = "open_inference.proto"
TARGET = FOLDER / "open_inference_pb2.py"


def generated() -> str:
    """The Python that the compiler makes today."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"--proto_path={each}" for each in (FOLDER, files("grpc_tools") / "_proto")]
        arguments = ["protoc", *paths, f"--python_out={folder}", SOURCE]
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"{SOURCE} does not compile")
        return (Path(folder) / TARGET.name).read_text(encoding="utf-8")


def main() -> int:
    """Write, or compare."""
    text = generated()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.read_text(encoding="utf-8") == text:
        return 0
    print("open_inference_pb2.py is not current: run scripts/protobuf.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
