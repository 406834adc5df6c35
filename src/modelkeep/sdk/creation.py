"""Make a keep's folder and its first objects; the order is that of `flows.create`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelkeep.config import Config, StoreSettings, new_config_text, parsed_config
from modelkeep.core.errors import UnavailableError, UsageError
from modelkeep.crypto.certificates import new_authority
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.flows.create import KEEP_ID_BYTES, abandoned, created
from modelkeep.wiring import KeepFolder, passphrase_source, stores_of, write_file

MAIN_STORE = StoreSettings(label="main", path="stores/main")


def create_keep(
    folder: KeepFolder,
    passphrase: Secret,
    stores: Mapping[str, str | Path],
    *,
    host: str,
    port: int,
    argon2: Argon2Settings | None,
) -> None:
    """Make a keep: the mark first, modelkeep.toml last, then the mark goes.

    Raises:
        UsageError: `keep.exists`, `keep.remains`, `keep.store_taken` or `init.store`.
        UnavailableError: `init.folder`, when the folder cannot be made or written.
    """
    try:
        _create(folder, passphrase, stores, host=host, port=port, argon2=argon2)
    except OSError as error:
        raise UnavailableError(
            "init.folder",
            f"cannot make a keep in {folder.path}: {error.strerror}",
            hint="name a folder that this user may write to",
        ) from error


def _create(
    folder: KeepFolder,
    passphrase: Secret,
    stores: Mapping[str, str | Path],
    *,
    host: str,
    port: int,
    argon2: Argon2Settings | None,
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
    settings = (
        MAIN_STORE,
        *(StoreSettings(label=label, path=str(Path(at).resolve())) for label, at in stores.items()),
    )
    text = new_config_text(keep_id=keep_id, stores=settings, host=host, port=port).encode()
    config = parsed_config(text, what="the new configuration")
    places = [folder.store_path(store).resolve() for store in config.stores]
    if len(set(places)) != len(places):
        raise UsageError("init.store", "two stores are one folder: neither would survive alone")
    _remove_abandoned(folder, config)
    write_file(disk, folder.pending_file, keep_id.encode())
    authority = new_authority(keep_id=keep_id, now_ns=clock.now_ns())
    created(
        stores_of(folder, config),
        keep_id=keep_id,
        source=passphrase_source(passphrase, argon2 or config.argon2),
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
