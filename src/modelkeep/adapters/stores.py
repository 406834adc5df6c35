"""Picks the Store that `[[stores]]` names, and wraps it as the table says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.adapters.keysources import secret_of
from modelkeep.adapters.store_folder import FolderStore
from modelkeep.adapters.store_guard import GuardedStore
from modelkeep.adapters.store_settings import (
    AMBIENT,
    SFTP,
    StoreSettings,
    parsed_place,
)
from modelkeep.adapters.system import SystemClock
from modelkeep.core.errors import UsageError, extra_hint
from modelkeep.core.reference import parsed_secret_reference
from modelkeep.ports.store import Store

if TYPE_CHECKING:
    from modelkeep.adapters.disk import Disk

BYTES_PER_MB = 1_000_000


def opened_store(
    settings: StoreSettings,
    *,
    base: Path = Path(),
    keep_id: str = "",
    disk: Disk | None = None,
    cache: Path | None = None,
) -> Store:
    """The store of a table, with what wraps it; nothing is read or reached yet.

    From the outside in: guard, cache, retries, throttle, the store itself.

    Args:
        base: where a relative path starts.
        keep_id: write nothing where no store of this keep is; empty for a store of no keep.
        cache: the folder for `cache_mb`; None for none.

    Raises:
        ConfigError: `store.url` or `reference.*`.
        UsageError: `extra.missing`.
    """
    store: Store
    if not settings.url:
        store = FolderStore(base / settings.path, settings.label, disk, keep_id=keep_id)
        return _throttled(settings, store)
    store = _throttled(settings, _elsewhere(settings))
    if settings.retries:
        with _extra("sftp" if settings.url.startswith(SFTP) else "s3"):
            from modelkeep.adapters.store_retrying import RetryingStore  # noqa: PLC0415

        store = RetryingStore(store, retries=settings.retries, sleep=time.sleep)
    if settings.cache_mb and cache is not None:
        from modelkeep.adapters.disk import RealDisk  # noqa: PLC0415
        from modelkeep.adapters.store_cached import CachedStore  # noqa: PLC0415

        store = CachedStore(
            store,
            folder=cache / settings.label,
            bytes_max=settings.cache_mb * BYTES_PER_MB,
            disk=disk or RealDisk(),
        )
    return GuardedStore(store, place=settings.url, keep_id=keep_id) if keep_id else store


def _elsewhere(settings: StoreSettings) -> Store:
    place = parsed_place(settings.url)
    if place.kind == SFTP:
        with _extra("sftp"):
            from modelkeep.adapters.store_sftp import SftpStore  # noqa: PLC0415

        key = parsed_secret_reference(settings.credentials)
        return SftpStore(settings, place, private_key=secret_of(key))
    with _extra("s3"):
        from modelkeep.adapters.store_object import BucketStore  # noqa: PLC0415

    credentials = None
    if settings.credentials != AMBIENT:
        credentials = secret_of(parsed_secret_reference(settings.credentials))
    return BucketStore(settings, place, credentials=credentials)


def _throttled(settings: StoreSettings, store: Store) -> Store:
    if not settings.bytes_per_s:
        return store
    from modelkeep.adapters.store_throttled import ThrottledStore  # noqa: PLC0415

    return ThrottledStore(
        store, bytes_per_s=settings.bytes_per_s, clock=SystemClock(), sleep=time.sleep
    )


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say how to install what an adapter imports."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            "extra.missing",
            f"this store needs {error.name}, which is not installed",
            hint=extra_hint(name),
        ) from error
