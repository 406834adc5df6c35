"""The samples of modelaudit's own tests, out of its source distribution.

It is fetched once, by its digest, into .venv-peers; nothing of it is run or kept in this
repository. A sample's name and folder say what its authors take it for.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from _vault_environments import VENVS, last_line

VERSION = "0.2.54"
DIGEST = "87ffdef31b0a0f9f0bf65c1fbc920c3217300a8924a87d9b95715dd7ed70a5dc"
SOURCES = VENVS / "admit-sources"
# What nobody loads, and what is there for other tests than those of harm.
NO_MODELS = (".py", ".csv", ".txt", "LICENSE")
HARMLESS = (
    "/safe_",
    "/benign",
    "_benign",
    "license_scenarios",
    "sentencepiece",
    "model_config",
    "pipeline.skops",
)
# Templates that are odd, not evil, or evil under a key that nobody renders.
EDGES = ("edge_cases", "huggingface_false_positive_manifest")


def write(folder: Path) -> dict[str, tuple[Path, ...]] | None:
    """Copy the samples; the paths by what they are. None, and a line, if they cannot be had."""
    archive = fetched()
    if archive is None:
        return None
    with tarfile.open(archive) as source:
        source.extractall(folder, filter="data")
    assets = folder / f"modelaudit-{VERSION}" / "tests" / "assets"
    written: dict[str, list[Path]] = {"malicious": [], "benign": [], "damaged": []}
    for path in sorted(assets.rglob("*")):
        inner = path.relative_to(assets).as_posix()
        if not path.is_file() or inner.endswith(NO_MODELS) or inner.startswith("generators"):
            continue
        if any(each in inner for each in EDGES):
            kind = "damaged"
        else:
            kind = "benign" if any(each in inner for each in HARMLESS) else "malicious"
        written[kind].append(path)
    return {kind: tuple(paths) for kind, paths in written.items()}


def fetched() -> Path | None:
    """The source distribution; None, and a line, if it cannot be had."""
    path = SOURCES / f"modelaudit-{VERSION}.tar.gz"
    if path.exists():
        return path
    SOURCES.mkdir(parents=True, exist_ok=True)
    wanted = SOURCES / "requirements.txt"
    wanted.write_text(f"modelaudit=={VERSION} --hash=sha256:{DIGEST}\n")
    print("fetching the source distribution of modelaudit (once) ...", flush=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-binary", ":all:", "--require-hashes", "-r", str(wanted)]
    done = subprocess.run(
        [*pip, *options, "-d", str(SOURCES / "new")], check=False, capture_output=True, text=True
    )
    if done.returncode:
        print(f"the samples of modelaudit are missing: {last_line(done.stderr)}")
        return None
    shutil.move(SOURCES / "new" / path.name, path)
    return path
