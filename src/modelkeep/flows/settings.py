"""What the service runs: where it listens, what it serves, and with how many replicas."""

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
