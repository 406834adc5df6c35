"""Verbs about keys: list, new, rotate, rekey, revoke, restore, destroy, split, join, escrow."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.cli.opened import actor, keep_path, opened, warned
from modelkeep.cli.output import print_json, print_table, progress, safe_text, said
from modelkeep.cli.secrets import new_passphrase
from modelkeep.core.errors import (
    PATH_HINT,
    MissingError,
    RefusedError,
    UnavailableError,
    UsageError,
)
from modelkeep.core.record import as_plain
from modelkeep.core.sizes import size_text

if TYPE_CHECKING:
    from modelkeep.flows.keys import Doomed
    from modelkeep.ports.keyholder import Means

WORDS_BYTES_MAX = 64 * 1024
HOLDER_CHARS_SHOWN = 24


def show(options: argparse.Namespace) -> int:
    """Show who holds the root, and the domains."""
    with opened(options) as keep:
        facts = keep.keys.list()
    if options.json:
        print_json(facts)
        return 0
    print(f"keyring {facts.keyring}: the root is held by")
    for each in facts.holders:
        print(safe_text(f"  {each.kind:<8} {_short(each.holder)}  {each.note}".rstrip()))
    print_table(
        ("domain", "tenant", "status", "models"),
        [(each.name, each.tenant, each.status, ", ".join(each.models)) for each in facts.domains],
    )
    return 0


def new(options: argparse.Namespace) -> int:
    """Make domains."""
    with opened(options) as keep:
        keep.keys.new(*options.domains, tenant=options.tenant)
    return said(
        {"domains": options.domains}, f"made {', '.join(options.domains)}", as_json=options.json
    )


def rotate(options: argparse.Namespace) -> int:
    """Give a new root to a new key-encryption key."""
    with opened(options) as keep:
        source = options.new_key_source or keep.config.keys.source
        keep.keys.rotate(source=source, passphrase=new_passphrase(options, source))
        number, domains = keep.opened.ring.number, len(keep.opened.domains.names())
    facts = {"keyring": number, "domains": domains, "source": source}
    return said(
        facts,
        f"keyring {number}: a new root, {domains} domain keys wrapped anew",
        as_json=options.json,
    )


def rekey(options: argparse.Namespace) -> int:
    """Encrypt a domain anew."""
    with opened(options) as keep, progress("encrypting anew") as told:
        artifacts = keep.keys.rekey(options.domain, keep_old=options.keep_old, progress=told)
    facts = {"domain": options.domain, "artifacts": artifacts}
    return said(
        facts,
        f"{options.domain}: {artifacts} artifacts encrypted under a new key",
        as_json=options.json,
    )


def revoke(options: argparse.Namespace) -> int:
    """Refuse a domain, or make a root that shares or an escrow recipient do not open."""
    chosen = [bool(options.domain), options.shares, bool(options.escrow)]
    if sum(chosen) != 1:
        raise UsageError(
            "keys.what", "say what to revoke", hint="a DOMAIN, --shares or --escrow RECIPIENT"
        )
    with opened(options) as keep:
        if options.domain:
            keep.keys.revoke(options.domain)
        elif options.shares:
            keep.keys.drop("shares")
        else:
            keep.keys.drop("escrow", recipient=options.escrow)
    what = options.domain or ("shares" if options.shares else "escrow recipient")
    return said({"revoked": what}, f"revoked: {what}", as_json=options.json)


def restore(options: argparse.Namespace) -> int:
    """Undo a revocation."""
    with opened(options) as keep:
        keep.keys.restore(options.domain)
    return said({"restored": options.domain}, f"restored: {options.domain}", as_json=options.json)


def destroy(options: argparse.Namespace) -> int:
    """Destroy a domain's key, after saying what dies with it."""
    with opened(options) as keep:
        report = keep.keys.doomed(options.domain)
        if options.dry_run:
            _print_doomed(options, report)
            return 0
        if not options.yes:
            _print_doomed(options, report)
            _demand_word(options.domain)
        done = keep.keys.destroy(options.domain)
    facts = {**as_plain(report), "removed": done.removed, "away": list(done.away)}
    text = f"destroyed: {options.domain}; {done.removed} objects removed"
    if done.away:
        text += (
            f"\nstill holding the key, because they are away: {', '.join(done.away)}; "
            "they lose it when the keep is next opened with them"
        )
    said(facts, text, as_json=options.json)
    return UnavailableError.exit_status if done.away else 0


def split(options: argparse.Namespace) -> int:
    """Make a recovery key in shares and show them, once, before they count."""
    if options.to is not None:
        options.to.mkdir(mode=0o700, parents=True, exist_ok=True)
        _demand_empty(options.to)
    files: list[Path] = []

    def hand_out(words: tuple[str, ...]) -> None:
        if options.to is not None:
            for number, share in enumerate(words, start=1):
                files.append(options.to / f"share-{number}.txt")
                _write_private(files[-1], share)
        elif not options.json:
            for number, share in enumerate(words, start=1):
                print(f"share {number} of {len(words)}:\n{share}\n", flush=True)

    with opened(options) as keep:
        words = keep.keys.split(needed=options.needed, shares=options.shares, hand_out=hand_out)
    facts: dict[str, object] = {"needed": options.needed, "shares": options.shares}
    if options.to is not None:
        facts["files"] = [str(path) for path in files]
        text = (
            f"{options.needed} of {len(files)} shares written to {options.to}; "
            "shares that were made before open nothing any more"
        )
        return said(facts, text, as_json=options.json)
    text = (
        f"Any {options.needed} of them open this keep. They are shown once: hand them out now. "
        "Shares that were made before open nothing any more."
    )
    return said({**facts, "words": list(words)}, text, as_json=options.json)


def join(options: argparse.Namespace) -> int:
    """Open the root with what was kept for a bad day; give it to a new holder."""
    from modelkeep.sdk.keep import Keep  # noqa: PLC0415 - `--help` need not load it
    from modelkeep.wiring import KeepFolder, read_config  # noqa: PLC0415

    path = keep_path(options)
    config, _ = read_config(KeepFolder(path))
    source = options.new_key_source or config.keys.source
    means = private_means(options)
    passphrase = new_passphrase(options, source)
    with Keep(path, means=means, actor=actor(), warn=warned) as keep:
        keep.keys.rotate(source=source, passphrase=passphrase)
        number = keep.opened.ring.number
    facts = {"keyring": number, "source": source}
    return said(facts, f"keyring {number}: the root is held by {source} now", as_json=options.json)


def escrow(options: argparse.Namespace) -> int:
    """Seal the root to a public key."""
    from modelkeep.crypto.key_files import public_keys  # noqa: PLC0415 - not for `--help`
    from modelkeep.crypto.recipients import Recipient  # noqa: PLC0415

    given = options.recipient
    raw = given.encode() if given.startswith("mkr1") else _read(Path(given))
    found = [each for each in public_keys(raw).recipients if isinstance(each, Recipient)]
    if len(found) != 1:
        raise UsageError(
            "keys.recipients",
            f"{given[:200]} holds {len(found)} modelkeep recipients, not one",
            hint="`modelkeep identity new` makes one; its line begins with mkr1",
        )
    with opened(options) as keep:
        keep.keys.escrow(str(found[0]), note=options.note)
        number = keep.opened.ring.number
    facts = {"keyring": number, "recipient": str(found[0]), "note": options.note}
    return said(
        facts, f"keyring {number}: {_short(str(found[0]))} can open this keep", as_json=options.json
    )


def private_means(options: argparse.Namespace) -> Means:
    """What opens the root when its key source is lost: shares, or an escrow recipient's key.

    Raises:
        MissingError: `file.missing`.
        UsageError: `keys.words`, `keys.identity` or `key.secret`.
    """
    from modelkeep.crypto.key_files import private_keys  # noqa: PLC0415
    from modelkeep.crypto.secret import Secret  # noqa: PLC0415
    from modelkeep.ports.keyholder import Means  # noqa: PLC0415

    raw = _read(options.words or options.identity)
    if options.words is not None:
        lines = raw.decode("ascii", errors="replace").splitlines()
        words = tuple(line.strip() for line in lines if line.strip())
        if not words:
            raise UsageError("keys.words", "there are no shares", hint="one share on a line")
        return Means(words=words)
    found = private_keys(Secret(raw)).identities
    if len(found) != 1:
        raise UsageError(
            "keys.identity",
            f"{options.identity} holds {len(found)} modelkeep identities, not one",
            hint="name the file that `modelkeep identity new` made",
        )
    return Means(identity=found[0].seed)


def _read(path: Path) -> bytes:
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(WORDS_BYTES_MAX)
        with path.open("rb") as stream:
            return stream.read(WORDS_BYTES_MAX)
    except OSError as error:
        raise MissingError("file.missing", f"{path}: {error.strerror}", hint=PATH_HINT) from error


def _print_doomed(options: argparse.Namespace, report: Doomed) -> None:
    if options.json:
        print_json(report)
        return
    print(f"with the key of {report.domain} die, for good, in every store and backup:")
    print(f"  models   {', '.join(report.models) or 'none'}")
    print(f"  aliases  {', '.join(report.aliases) or 'none'}")
    print(f"  tenants  {', '.join(report.tenants) or 'none'}")
    print(f"  objects  {report.objects}, {size_text(report.size_bytes)}")
    if report.has_columns:
        print("  columns  those of every database that are encrypted under it")


def _demand_word(domain: str) -> None:
    """Have a person type the name, so that nothing is destroyed by a habit of saying yes."""
    if not sys.stdin.isatty():
        raise RefusedError(
            "keys.confirm", "nobody is there to confirm it", hint="give --yes if it is meant"
        )
    if input(f"type {domain} to destroy it: ").strip() != domain:
        raise RefusedError("keys.confirm", "that was not its name; nothing was changed")


def _demand_empty(folder: Path) -> None:
    if any(folder.iterdir()):
        raise UsageError(
            "keys.folder", f"{folder} is not empty", hint="shares are never written over others"
        )


def _write_private(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as stream:
        stream.write(text + "\n")
        stream.flush()
        with suppress(OSError):  # a pipe cannot be synced
            os.fsync(stream.fileno())


def _short(holder: str) -> str:
    return holder if len(holder) <= HOLDER_CHARS_SHOWN else holder[:HOLDER_CHARS_SHOWN] + "…"
