"""Settings of the flows: what the service runs, where State lies, what needs approval."""

from __future__ import annotations

from modelkeep.core.record import Record


class ServeSettings(Record, frozen=True):
    """Table `[serve]` of modelkeep.toml.

    Attributes:
        host: address to listen on; 127.0.0.1 is this machine only.
        port: TCP port; 0 takes a free one and says which.
        hostnames: further names and addresses that clients may use; they go into the certificate.
        models: references to serve (`digits`, `digits:prod`, `digits:2`); none means every model,
            by its alias `prod` where it has one, else its latest version.
        replicas: processes per served model; two or more survive the loss of one.
        threads: of one replica's runtime.
        batch_rows_max: rows that one run of a model may join from several calls.
    """

    host: str = "127.0.0.1"
    port: int = 8443
    hostnames: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    replicas: int = 2
    threads: int = 1
    batch_rows_max: int = 64


class StateSettings(Record, frozen=True):
    """Table `[state]` of modelkeep.toml.

    Attributes:
        url: `postgresql://user@host:5432/database?sslmode=verify-full`, without a password; empty
            keeps State in the file `state.db` of the keep's folder.
        password: where the database's password lies: `file:/path` or `exec:/program`; empty for
            none (a certificate, or a login by the operating system's user).
    """

    url: str = ""
    password: str = ""


# What can be set to need others' approval; a verb that is not listed here cannot.
APPROVABLE_VERBS = (
    "keys.destroy",
    "keys.escrow",
    "keys.rekey",
    "keys.revoke",
    "keys.rotate",
    "keys.split",
    "ledger.erase",
    "models.approve",
    "models.policy",
    "models.promote",
    "models.remove",
    "models.rollback",
    "models.unhold",
    "principals.enable",
    "principals.new",
    "principals.set",
    "roles.define",
    "tokens.new",
    "vault.prune",
)


class ApprovalSettings(Record, frozen=True):
    """Table `[approvals]` of modelkeep.toml: what one person alone may not do.

    Attributes:
        needed: how many principals with the scope `approve`, other than who asks, must agree; 0
            switches approvals off.
        verbs: what needs approval; of `principals`, `roles` and `tokens` only what would let
            somebody approve. `models.promote` covers `alias` too.
        expires_s: how long a request, and what was agreed to, stays good.
    """

    needed: int = 0
    verbs: tuple[str, ...] = (
        "keys.destroy",
        "keys.rekey",
        "models.approve",
        "models.promote",
        "principals.enable",
        "principals.new",
        "principals.set",
        "roles.define",
        "tokens.new",
    )
    expires_s: float = 86_400.0


class RetentionSettings(Record, frozen=True):
    """Table `[retention]` of modelkeep.toml: which versions `retire` leaves in the keep.

    Without any wish only versions go whose deprecation has come to its end. The newest version of
    a name, what an alias names or is served or on hold, and what those were made from stay anyway.

    Attributes:
        keep_last: how many versions of each name, counted from the newest; 0 for no wish.
        keep_within_s: for how long after its admission every version is kept; 0 for no wish. With
            both, what either keeps stays.
        keep_rollbacks: how many versions that an alias named before stay, so that it can go back.
    """

    keep_last: int = 0
    keep_within_s: float = 0.0
    keep_rollbacks: int = 1
