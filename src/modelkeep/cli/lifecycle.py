"""Verbs that need no keep yet: init, config explain, completion."""

from __future__ import annotations

import argparse

from modelkeep.cli.output import print_json, print_table
from modelkeep.cli.secrets import means_of
from modelkeep.core.errors import UsageError


def init(options: argparse.Namespace) -> int:
    """Make a keep."""
    from modelkeep.sdk.keep import Keep  # noqa: PLC0415 - heavy, needed by this verb only

    stores = dict(_labelled(text) for text in options.store)
    if len(stores) != len(options.store):
        raise UsageError("init.store", "two stores have one label")
    means = means_of(options, source="passphrase", confirm=True)
    with Keep.create(
        options.folder,
        means=means,
        stores=stores,
        host=options.host,
        port=options.port,
        encoding=options.encoding,
    ) as keep:
        facts = {
            "keep_id": keep.keep_id,
            "folder": str(options.folder),
            "stores": [store.label for store in keep.config.stores],
            "ca": str(keep.folder.ca_pem_path),
        }
    if options.json:
        print_json(facts)
        return 0
    print(f"made keep {facts['keep_id']} in {options.folder}")
    print(f"  stores   {', '.join(keep_store.label for keep_store in keep.config.stores)}")
    print(f"  trust    {facts['ca']} (give it to clients)")
    print("  next     modelkeep --keep", options.folder, "admit FILE --name NAME")
    if means.passphrase is not None:
        print("Without the passphrase nobody can open this keep, you included: write it down.")
    return 0


def explain(options: argparse.Namespace) -> int:
    """Print every key of modelkeep.toml."""
    from modelkeep.config import explained  # noqa: PLC0415

    keys = explained()
    if options.json:
        print_json(keys)
    else:
        print_table(
            ("key", "type", "default", "meaning"),
            [(key.key, key.type, key.default, key.meaning) for key in keys],
        )
    return 0


def completion(options: argparse.Namespace) -> int:
    """Print a completion script."""
    import shtab  # noqa: PLC0415

    from modelkeep.cli.parser import parser  # noqa: PLC0415

    print(shtab.complete(parser(), options.shell))
    return 0


def _labelled(text: str) -> tuple[str, str]:
    label, equals, place = text.partition("=")
    if not equals or not label or not place:
        raise UsageError("init.store", f"{text!r} is not LABEL=PLACE", hint="offsite=/mnt/offsite")
    return label, place
