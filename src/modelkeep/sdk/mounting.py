"""The keep as a file system: opened once, then read without holding it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from modelkeep.core.artifact import Manifest
from modelkeep.core.errors import RefusedError, UnavailableError
from modelkeep.core.policy import Use
from modelkeep.core.rows import Alias
from modelkeep.flows.keep import OpenKeep, current_head, record
from modelkeep.flows.tree import KeepTree
from modelkeep.sdk.keep import Keep
from modelkeep.seal.policy import demand_permitted
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
    what is pruned from every store since cannot be read any more. What its policy does not permit
    to restore shows its name and is refused when it is opened. Must be called in the main thread,
    which SIGINT, SIGTERM and SIGHUP then bring back.

    Args:
        ready: called when it can be looked at.
        warn: told of every file that could not be read.

    Raises:
        UsageError: `mount.folder`, `mount.library`, `extra.missing`.
        UnavailableError: `mount.failed`.
    """
    from modelkeep.adapters.mount_fuse import mount as mounted  # noqa: PLC0415

    opened, tree = keep.opened, tree_of(keep, warn)
    head = current_head(opened)
    record(opened, "vault.mounted", {"head": head.number, "snapshot": head.snapshot})
    keep.close()
    mounted(tree, Path(folder), ready=ready, warn=warn)


def tree_of(keep: Keep, warn: Warn = lambda _: None) -> KeepTree:
    """What the keep holds, as a tree that can be read after the keep is closed."""
    opened = keep.opened
    new_reader = partial(
        Reader,
        stores=stores_of(keep.folder, keep.config),
        domains=opened.domains,
        public=opened.public,
        may_heal=False,
    )
    return KeepTree(
        new_reader,
        current_head(opened),
        opened.state.rows(Alias),
        demand=_demand(opened, warn),
    )


def _demand(keep: OpenKeep, warn: Warn) -> Callable[[Manifest], None]:
    """What asks the policies while the keep is closed: which host this is has to be proven now."""
    try:
        host = keep.host()
    except (RefusedError, UnavailableError) as error:
        warn(f"models that are bound to hosts are not shown: {error}")
        host = ""
    clock, actor = keep.clock, keep.actor

    def demand(manifest: Manifest) -> None:
        demand_permitted(manifest, Use.RESTORE, actor=actor, now_ns=clock.now_ns(), host=host)

    return demand
