"""The commands of benchmarks/vault: modelkeep, restic and BorgBackup, each as a user types them."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from _vault_measure import Command

OURS = [sys.executable, "-P", "-m", "modelkeep"]
PASSPHRASE = secrets.token_urlsafe()


@dataclass(frozen=True)
class Tool:
    """One backup program over one repository, made anew by `init`."""

    name: str
    version: str
    repository: Path
    init: Command
    save: Callable[[Path, str, int], Command]  # folder, its name, how many times before
    check: Command
    restore: Callable[[str, Path], Command]  # name, an empty folder that is there
    start: Command  # does nothing: what a start takes


def modelkeep(home: Path, encoding: str) -> Tool:
    """Ours: signed, encrypted, every version in the ledger."""
    keep, passphrase = home / "keep", home / "passphrase"
    home.mkdir()
    passphrase.write_text(PASSPHRASE)
    secret = ["--passphrase-file", str(passphrase)]
    at = ["--keep", str(keep), *secret]
    init = [*OURS, "init", str(keep), "--encoding", encoding, *secret]
    return Tool(
        name=f"modelkeep {encoding}",
        version=said([*OURS, "--version"]),
        repository=keep,
        init=Command(init, home),
        save=lambda folder, name, _: Command(
            [*OURS, "save", str(folder), "--name", name, *at], home
        ),
        check=Command([*OURS, "check", "--read-data", *at], home),
        restore=lambda name, to: Command(
            [*OURS, "restore", name, "--to", str(to / "r"), *at], home
        ),
        start=Command([*OURS, "--version"], home),
    )


def restic(home: Path) -> Tool:
    """Restic with its defaults: `--compression auto`, repository version 2."""
    home.mkdir()
    (home / "password").write_text(PASSPHRASE)
    env = {
        "RESTIC_REPOSITORY": str(home / "repository"),
        "RESTIC_PASSWORD_FILE": str(home / "password"),
        "RESTIC_CACHE_DIR": str(home / "cache"),
    }

    def restic_(*words: str, cwd: Path = home) -> Command:
        return Command(["restic", *words], cwd, env)

    return Tool(
        name="restic",
        version=said(["restic", "version"]),
        repository=home / "repository",
        init=restic_("init", "--repository-version", "2"),
        save=lambda folder, name, _: restic_(
            "backup", "--compression", "auto", "--tag", name, ".", cwd=folder
        ),
        check=restic_("check", "--read-data"),
        restore=lambda name, to: restic_("restore", "latest", "--tag", name, "--target", str(to)),
        start=restic_("version"),
    )


def borg(home: Path) -> Tool:
    """BorgBackup with zstd,3 and encryption under BLAKE2b."""
    home.mkdir()
    env = {
        "BORG_REPO": str(home / "repository"),
        "BORG_BASE_DIR": str(home / "base"),
        "BORG_PASSPHRASE": PASSPHRASE,
    }

    def borg_(*words: str, cwd: Path = home) -> Command:
        return Command(["borg", *words], cwd, env)

    return Tool(
        name="borg",
        version=said(["borg", "--version"]),
        repository=home / "repository",
        init=borg_("init", "--encryption", "repokey-blake2"),
        save=lambda folder, name, before: borg_(
            "create", "--compression", "zstd,3", f"::{name}-{before}", ".", cwd=folder
        ),
        check=borg_("check", "--verify-data"),
        restore=lambda name, to: borg_("extract", f"::{name}-0", cwd=to),
        start=borg_("--version"),
    )


def is_ours_ready() -> bool:
    """Whether this modelkeep saves folders; a line says so if it does not."""
    done = subprocess.run([*OURS, "save", "--help"], check=False, capture_output=True)
    if done.returncode:
        print("this modelkeep has no verb `save`: only the peers are measured")
    return done.returncode == 0


def present_peers() -> list[Callable[[Path], Tool]]:
    """Those that are installed; a line for each that is not."""
    for name in ("restic", "borg"):
        if not shutil.which(name):
            print(f"{name} is not installed: it is left out")
    return [make for make in (restic, borg) if shutil.which(make.__name__)]


def restored(tool: Tool, target: Path) -> Path:
    """Where a restore into a folder puts the tree."""
    return target / "r" if tool.name.startswith("modelkeep") else target


def said(words: list[str]) -> str:
    """The first line that a program says."""
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[0].strip()
