"""Verbs about what others hand in: clients, submit, inbox."""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from modelkeep.cli.opened import opened, warned
from modelkeep.cli.output import print_json, print_table, progress, said
from modelkeep.core.errors import UsageError
from modelkeep.core.instant import NS_PER_S, rfc3339
from modelkeep.core.sizes import size_text

if TYPE_CHECKING:
    from modelkeep.core.rows import InboxClient
    from modelkeep.sdk.inbox import Inbox

_SECONDS = {"d": 86_400, "h": 3_600}
_TIME = re.compile(r"([0-9]{1,5})([dh])")
GIB = 2**30


def client_add(options: argparse.Namespace) -> int:
    """Register a client and write its file."""
    expires_ns, size_bytes_max = _expires_ns(options.expires), _size(options.gib_max)
    with _inbox(options) as inbox:
        row = inbox.add_client(
            options.client,
            options.out,
            expires_ns=expires_ns,
            store=options.store,
            size_bytes_max=size_bytes_max,
        )
    text = (
        f"client {row.name} ({row.client_id}), expires {_until(row)}: {options.out}\n"
        "bring the file to the machine, keep no copy; it can hand things in and nothing else"
    )
    return said({**_facts(row), "file": str(options.out)}, text, as_json=options.json)


def client_list(options: argparse.Namespace) -> int:
    """List clients."""
    with _inbox(options) as inbox:
        rows = inbox.clients()
    if options.json:
        print_json([_facts(row) for row in rows])
        return 0
    now_ns = time.time_ns()
    print_table(
        ("client", "id", "expires", "at most", "state"),
        [
            (
                row.name,
                row.client_id,
                _until(row),
                size_text(row.size_bytes_max),
                _state(row, now_ns),
            )
            for row in rows
        ],
    )
    return 0


def client_revoke(options: argparse.Namespace) -> int:
    """Accept nothing more of a client."""
    with _inbox(options) as inbox:
        row = inbox.revoke_client(options.client)
    text = (
        f"revoked {row.name} ({row.client_id}): nothing more of it is accepted\n"
        f"`modelkeep inbox reject --client {row.client_id}` removes what it put into the inbox"
    )
    return said(_facts(row), text, as_json=options.json)


def submit(options: argparse.Namespace) -> int:
    """Hand something in; needs no keep."""
    from modelkeep.sdk.inbox import submit as handed_in  # noqa: PLC0415 - not for `--help`
    from modelkeep.sdk.inbox import total_bytes  # noqa: PLC0415

    with progress(f"submit {options.path}", total_bytes(options.path)) as advance:
        done = handed_in(
            Path(options.path),
            client=options.client,
            name=options.name,
            store=options.store,
            progress=advance,
        )
    text = (
        f"submitted {done.submission}: {done.files} files, {size_text(done.size_bytes)}, "
        f"as {done.name}\nthe owner accepts it: modelkeep inbox accept {done.submission}"
    )
    return said(done, text, as_json=options.json)


def inbox_list(options: argparse.Namespace) -> int:
    """List submissions."""
    with _inbox(options) as inbox:
        view = inbox.waiting()
    if options.json:
        print_json(view)
        return 0
    print_table(
        ("id", "client", "name", "files", "size", "submitted", "state"),
        [
            (
                row.submission,
                row.client or f"{row.client_id}?",
                row.name,
                row.files,
                size_text(row.size_bytes),
                rfc3339(row.submitted_ns)[:19] if row.submitted_ns else "",
                f"{row.state}: {row.reason}" if row.reason else row.state,
            )
            for row in view.submissions
        ],
    )
    if view.strays:
        warned(f"{view.strays} objects in the inbox are nothing that a client of ours wrote")
    if not view.is_whole:
        warned("more lies in the inbox than is listed here: revoke and reject whom you distrust")
    for label in view.away:
        warned(f"the store {label} does not answer: its inbox is not listed")
    return 0


def inbox_accept(options: argparse.Namespace) -> int:
    """Accept one submission."""
    with _inbox(options) as inbox, progress(f"accept {options.submission}") as advance:
        done = inbox.accept(options.submission, name=options.name, progress=advance)
    text = (
        f"accepted {done.submission} of {done.client} as {done.name}:{done.version}: "
        f"{done.files} files, {size_text(done.size_bytes)}"
    )
    return said(done, text, as_json=options.json)


def inbox_reject(options: argparse.Namespace) -> int:
    """Reject one submission, or all of a client."""
    if bool(options.submission) == bool(options.client):
        raise UsageError(
            "inbox.which", "name one submission, or --client NAME for all that a client put there"
        )
    with _inbox(options) as inbox:
        if options.client:
            done = inbox.reject_all(options.client)
        else:
            done = inbox.reject(options.submission)
    what = done.submission or f"all of client {done.client_id}"
    return said(done, f"rejected {what}: {done.objects} objects removed", as_json=options.json)


@contextmanager
def _inbox(options: argparse.Namespace) -> Iterator[Inbox]:
    """The inbox of the keep, opened."""
    from modelkeep.sdk.inbox import Inbox  # noqa: PLC0415 - not for `--help`

    with opened(options) as keep:
        yield Inbox(keep)


def _facts(row: InboxClient) -> dict[str, object]:
    return {
        "client": row.name,
        "client_id": row.client_id,
        "expires_ns": row.expires_ns,
        "size_bytes_max": row.size_bytes_max,
        "revoked": row.revoked,
    }


def _until(row: InboxClient) -> str:
    return rfc3339(row.expires_ns)[:19] if row.expires_ns else "never"


def _state(row: InboxClient, now_ns: int) -> str:
    if row.revoked:
        return "revoked"
    return "expired" if row.expires_ns and now_ns >= row.expires_ns else "active"


def _expires_ns(text: str) -> int:
    """When `90d` from now is; 0 for `never`.

    Raises:
        UsageError: `client.expires`.
    """
    found = _TIME.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if text == "never":
        return 0
    if not seconds:
        raise UsageError(
            "client.expires",
            f"{text[:40]!r} is no time from now",
            hint="write 90d, 12h or never",
        )
    return time.time_ns() + seconds * NS_PER_S


def _size(gib: float) -> int:
    """So many GiB in bytes; what is no size becomes 0, which is refused."""
    return int(gib * GIB) if math.isfinite(gib) else 0
