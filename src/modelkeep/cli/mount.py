"""The verb that shows the keep as a file system: mount."""

from __future__ import annotations

import argparse
from functools import partial

from modelkeep.cli.opened import opened, warned
from modelkeep.cli.output import print_json, safe_text


def mount(options: argparse.Namespace) -> int:
    """Show the keep in a folder until Ctrl-C."""
    from modelkeep.sdk.mounting import mount as mounted  # noqa: PLC0415 - not for `--help`

    with opened(options) as keep:
        mounted(keep, options.folder, ready=partial(_say_ready, options), warn=warned)
    return 0


def _say_ready(options: argparse.Namespace) -> None:
    if options.json:
        print_json({"event": "mounted", "folder": str(options.folder)})
    else:
        print(safe_text(f"mounted on {options.folder}; Ctrl-C unmounts"), flush=True)
