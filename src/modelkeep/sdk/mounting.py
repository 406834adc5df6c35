"""The keep as a file system: opened once, then read without holding it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from modelkeep.core.rows import Alias
from modelkeep.flows.keep import current_head, record
from modelkeep.flows.tree import KeepTree
from modelkeep.sdk.keep import Keep
from modelkeep.vault.load import Reader
from modelkeep.wiring import Warn, stores_of


def mount(
    keep: Keep,
    folder: str | Path,
    *,
    ready: Callable[[], None] = lambda: None,
    warn: Warn = lambda _: None,
) -> None:
    """Show what a keep holds in an empty folder, read-only, until it is unmounted.

    The keep is closed before: others may change it meanwhile. What is shown is what it held then;
    what is pruned from every store since cannot be read any more. Must be called in the main
    thread, which SIGINT, SIGTERM and SIGHUP then bring back.

    Args:
        ready: called when it can be looked at.
        warn: told of every file that could not be read.

    Raises:
        UsageError: `mount.folder`, `mount.library`, `extra.missing`.
        UnavailableError: `mount.failed`.
    """
    from modelkeep.adapters.mount_fuse import mount as mounted  # noqa: PLC0415

    opened = keep.opened
    head = current_head(opened)
    new_reader = partial(
        Reader,
        stores=stores_of(keep.folder, keep.config),
        domains=opened.domains,
        public=opened.public,
        may_heal=False,
    )
    tree = KeepTree(new_reader, head, opened.state.rows(Alias))
    record(opened, "vault.mounted", {"head": head.number, "snapshot": head.snapshot})
    keep.close()
    mounted(tree, Path(folder), ready=ready, warn=warn)
