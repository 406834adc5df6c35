"""Settings of the flows: what the service runs, where State lies, what needs approval."""

from __future__ import annotations

from modelkeep.core.record import Record
from modelkeep.core.reference import parsed_secret_reference

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)


class ServeSettings(Record, frozen=True):
    """Table `[serve]` of modelkeep.toml.

    Attributes:
        host: address to listen on; 127.0.0.1 is this machine only.
        port: TCP port; 0 takes a free one and says which.
        hostnames: further names and addresses that clients may use; they go into the certificate.
        models: references to serve (`digits`, `digits:prod`, `digits:2`); none means every model,
            by its alias `prod` where it has one, else its latest version.
        gateways: processes that clients reach, all at one port; 0 takes one for each four cores,
            eight at most.
        replicas: processes per served model on this machine; two or more survive the loss of one.
            0 where those on the machines of `[[hosts]]` are to answer alone.
        replicas_max: up to how many a model gets while its calls wait; 0 for `replicas`. What its
            policy permits is never exceeded.
        calls_per_replica: calls under way that one replica is meant to have at most; more replicas
            are started above it.
        threads: of one replica's runtime.
        batch_rows_max: rows that one run of a model may join from several calls.
        streams_max: answers that one replica of a language model generates at once.
        context_max: tokens of prompt and answer together, at most; 0 for what the model can take.
        certificate: PEM file with the server's certificate and its chain; empty for one of the
            keep's own authority. It is read again when it changes, and on SIGHUP.
        key: where its private key lies: `file:/path` or `exec:/program`.
        client_ca: PEM file with authorities whose client certificates are asked for and verified,
            beside the keep's own; empty for none but that.
        grpc_port: TCP port of gRPC on the same host; 0 for no gRPC.
        engine: where replicas run: `local`, or `ray` for a cluster (table `[ray]`), where
            `replicas` are kept up and language models stay local.
    """

    host: str = "127.0.0.1"
    port: int = 8443
    hostnames: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    gateways: int = 0
    replicas: int = 2
    replicas_max: int = 0
    calls_per_replica: int = 32
    threads: int = 1
    batch_rows_max: int = 64
    streams_max: int = 8
    context_max: int = 0
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    grpc_port: int = 0
    engine: str = LOCAL


def serve_problems(serve: ServeSettings) -> list[tuple[bool, str]]:
    """What is wrong with `[serve]`."""
    if serve.key:
        parsed_secret_reference(serve.key)
    bounds = (
        ("port", 0, 65_535),
        ("grpc_port", 0, 65_535),
        ("gateways", 0, 64),
        ("replicas", 0, 64),
        ("replicas_max", 0, 64),
        ("calls_per_replica", 1, 65_536),
        ("threads", 1, 256),
        ("batch_rows_max", 1, 4096),
        ("streams_max", 1, 1024),
        ("context_max", 0, 10_000_000),
    )
    return [
        *(
            (not low <= getattr(serve, name) <= high, f"serve.{name} is not {low} to {high}")
            for name, low, high in bounds
        ),
        (
            serve.engine not in ENGINES,
            f"serve.engine is not one of {', '.join(ENGINES)}",
        ),
        (
            serve.engine == RAY and not serve.replicas,
            "serve.replicas is 0, so that nothing runs in the cluster",
        ),
        (
            0 < serve.replicas_max < serve.replicas,
            "serve.replicas_max is below serve.replicas",
        ),
        (
            0 < serve.grpc_port == serve.port,
            "serve.grpc_port is serve.port: gRPC needs a port of its own",
        ),
        (
            bool(serve.certificate) != bool(serve.key),
            "serve.certificate and serve.key are given together or not at all",
        ),
    ]


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
