"""An owner's program, as a user would write it; it is type-checked and never run.

A `type: ignore` states that a misuse is an error: mypy complains about one that is not needed.
"""

from pathlib import Path
from typing import assert_type

import modelkeep
from modelkeep import IntegrityError, Keep, KeepError, RefusedError


def made(folder: Path, passphrase: str) -> str:
    stores = {"offsite": folder / "offsite"}
    with Keep.create(folder / "keep", passphrase=passphrase, stores=stores, port=0) as keep:
        return assert_type(keep.keep_id, str)


def admitted(folder: str, passphrase: str) -> int:
    with Keep(folder, passphrase=passphrase) as keep:
        done = keep.admit("digits.onnx", name="digits", canary=Path("canary.json"))
        assert_type(done.version, int)
        assert_type(done.is_new, bool)
        keep.set_alias("digits:prod", done.version)
        for model in keep.models():
            assert_type(model.aliases, tuple[str, ...])
        token_id, secret = keep.access.new_token("alice", scopes=["infer:digits"])
        keep.access.revoke_token(token_id)
        assert_type(secret.reveal(), bytes)
        assert_type(keep.restore("digits:prod", "out.onnx"), int)
        return done.version


def kept(keep: Keep) -> bool:
    reports = keep.backup()
    whole = all(assert_type(report.is_whole, bool) for report in reports)
    whole = whole and keep.check(read_data=True, repair=True).is_whole
    for label, report in keep.ledger.verify(expected=Path("checkpoint.txt").read_bytes()):
        whole = whole and assert_type(report.is_whole, bool) and bool(label)
    for index, entry in keep.ledger.entries():
        assert_type(index, int)
        assert_type(entry.kind, str)
    return whole


def served(keep: Keep) -> str:
    with keep.serve() as service:
        assert_type(service.pid, int)
        return assert_type(service.url, str)


def refused(keep: Keep, file: Path) -> str:
    try:
        keep.admit(file, name="digits")
    except RefusedError as error:
        return f"{error.code}: {error.message}; {error.hint}"
    except IntegrityError as error:
        return str(error.exit_status)
    except KeepError as error:
        return str(error.http_status)
    return modelkeep.__version__


def misused(keep: Keep) -> None:
    Keep("folder", passphrase=7)  # type: ignore[arg-type]
    Keep("folder", "passphrase")  # type: ignore[call-arg]
    keep.admit("file")  # type: ignore[call-arg]
    keep.admit("file", "digits")  # type: ignore[call-arg]
    keep.access.new_token("alice", scopes=1)  # type: ignore[arg-type]
    keep.restore("digits")  # type: ignore[call-arg]
    keep.models()[0].version = 2  # type: ignore[misc]
    keep.nothing()  # type: ignore[attr-defined]
