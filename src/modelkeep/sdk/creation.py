"""Make a keep's folder and its first objects; the order is that of `flows.create`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from modelkeep.adapters.store_settings import StoreSettings, given_store
from modelkeep.config import Config, new_config_text, parsed_config
from modelkeep.core.errors import UnavailableError, UsageError
from modelkeep.core.record import replaced
from modelkeep.crypto.certificates import new_authority
from modelkeep.flows.create import KEEP_ID_BYTES, abandoned, created
from modelkeep.ports.keyholder import Means
from modelkeep.wiring import KeepFolder, stores_of, write_file

MAIN_STORE = StoreSettings(label="main", path="stores/main")


def create_keep(
    folder: KeepFolder,
    means: Means,
    stores: Mapping[str, str | Path],
    *,
    host: str,
    port: int,
    encoding: str = "",
) -> None:
    """Make a keep: the mark first, modelkeep.toml last, then the mark goes.

    Args:
        stores: further ones by label: a folder, or an address as `store_settings` describes.
        encoding: of the first store; empty: fast.

    Raises:
        ConfigError: `config.value`, `store.*` or `reference.*`, for a store that cannot be.
        UsageError: `keep.exists`, `keep.remains`, `keep.store_taken` or `init.store`.
        UnavailableError: `init.folder`, when the folder cannot be made or written.
    """
    try:
        _create(folder, means, _settings(stores, encoding), host=host, port=port)
    except OSError as error:
        raise UnavailableError(
            "init.folder",
            f"cannot make a keep in {folder.path}: {error.strerror}",
            hint="name a folder that this user may write to",
        ) from error


def _settings(stores: Mapping[str, str | Path], encoding: str) -> tuple[StoreSettings, ...]:
    given = [given_store(label, str(at)) for label, at in stores.items()]
    return (
        replaced(MAIN_STORE, encoding=encoding),
        *(
            each if each.url else replaced(each, path=str(Path(each.path).resolve()))
            for each in given
        ),
    )


def _create(
    folder: KeepFolder,
    means: Means,
    settings: tuple[StoreSettings, ...],
    *,
    host: str,
    port: int,
) -> None:
    """Write order: see `flows.create`; the mark first, modelkeep.toml last, then the mark goes."""
    disk, entropy, clock = folder.world.disk, folder.world.entropy, folder.world.clock
    if disk.size(folder.config_path) is not None:
        raise UsageError(
            "keep.exists", f"{folder.path} is a keep already", hint="use it, or name another folder"
        )
    if disk.walk(folder.path / "ledger"):
        raise UsageError(
            "keep.remains",
            f"{folder.path} holds what is left of a keep, without its modelkeep.toml",
            hint="`modelkeep recover` into another folder, or remove this one",
        )
    disk.make_folder(folder.path)
    keep_id = entropy.random_bytes(KEEP_ID_BYTES).hex()
    text = new_config_text(
        keep_id=keep_id, stores=settings, host=host, port=port, source=means.source
    ).encode()
    config = parsed_config(text, what="the new configuration")
    places = [each.url or str(folder.store_path(each).resolve()) for each in config.stores]
    if len(set(places)) != len(places):
        raise UsageError("init.store", "two stores are one place: neither would survive alone")
    _remove_abandoned(folder, config)
    write_file(disk, folder.pending_file, keep_id.encode())
    authority = new_authority(keep_id=keep_id, now_ns=clock.now_ns())
    with closing(folder.world.keyholder(means)) as keyholder:
        created(
            stores_of(folder, config),
            keep_id=keep_id,
            keyholder=keyholder,
            authority=authority,
            config=text,
            entropy=entropy,
        )
    write_file(disk, folder.ca_pem_path, authority.certificate)
    write_file(disk, folder.config_path, text)
    disk.unlink(folder.pending_file)
    disk.sync_folder(folder.path)


def _remove_abandoned(folder: KeepFolder, config: Config) -> None:
    disk = folder.world.disk
    if disk.size(folder.pending_file) is not None:
        former = disk.read(folder.pending_file).decode("ascii", errors="replace")
        for store in stores_of(folder, config):
            abandoned(store, former)
