"""The keep that a verb works on: found, unlocked, closed again."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.cli.output import safe_text
from modelkeep.cli.secrets import means_of

if TYPE_CHECKING:
    from modelkeep.sdk.keep import Keep
    from modelkeep.wiring import KeepFolder

KEEP_VARIABLE = "MODELKEEP_KEEP"
ACTOR_CHARS_MAX = 100


def keep_path(options: argparse.Namespace) -> Path:
    """The keep's folder: `--keep`, else the environment variable MODELKEEP_KEEP, else here."""
    if options.keep is not None:
        return Path(options.keep)
    return Path(os.environ.get(KEEP_VARIABLE, "."))


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Keep]:
    """Open the keep for one verb; warnings go to stderr."""
    from modelkeep.wiring import KeepFolder, keyholder_of, read_config  # noqa: PLC0415

    folder = KeepFolder(keep_path(options))
    config, _ = read_config(folder)  # that there is no keep is said before asking
    _warn_if_degraded(folder)
    means = means_of(options, source=config.keys.source)
    with closing(keyholder_of(folder, means, config)) as keyholder:
        from modelkeep.sdk.keep import Keep  # noqa: PLC0415 - the keyholder loads meanwhile

        with Keep(
            folder.path, means=means, actor=actor(), warn=warned, keyholder=keyholder
        ) as keep:
            yield keep


def _warn_if_degraded(folder: KeepFolder) -> None:
    """A service without a keyholder answers on, but what a verb decides does not reach it."""
    if not folder.service_file.exists():
        return
    from modelkeep.sdk.service import degraded, told_of  # noqa: PLC0415 - only beside a service

    found = degraded(told_of(folder) or {"processes": {}})
    if found:
        warned(
            f"the running service is degraded: {found}; until then it loads no other version, "
            "reads no change of modelkeep.toml and signs no checkpoint, so proofs of new calls wait"
        )


def actor() -> str:
    """Who acts, for the ledger: the user that this process runs as, whatever $USER says."""
    try:
        return safe_text(f"cli:{pwd.getpwuid(os.getuid()).pw_name}"[:ACTOR_CHARS_MAX])
    except KeyError:
        return f"cli:{os.getuid()}"


def warned(text: str) -> None:
    """Tell the person what went wrong without stopping anything."""
    print(f"modelkeep: warning: {safe_text(text)}", file=sys.stderr)
