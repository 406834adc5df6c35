"""What may be done with a model: a record that is signed with its manifest."""

from __future__ import annotations

from enum import StrEnum

from modelkeep.core.record import Record


class Use(StrEnum):
    """What a model can be used for."""

    SERVE = "serve"  # a replica answers calls with it
    LOAD = "load"  # a program gets its tensors in memory
    RESTORE = "restore"  # its plaintext is written to a path
    EXPORT = "export"  # it is sealed to somebody else
    TRAIN = "train"  # another version is made from it


class Output(StrEnum):
    """How much of an answer leaves the gateway."""

    FULL = "full"
    ROUNDED = "rounded"  # floating-point outputs, to `decimals` digits
    LABELS = "labels"  # floating-point outputs become 1 at the largest of a row, 0 elsewhere


class Policy(Record, frozen=True):
    """What may be done with one version of a model; the default permits everything.

    Attributes:
        loaders: actors that may load, restore or export it (`cli:alice`, `supervisor`); empty for
            whoever can open the keep.
        not_after_ns: from this instant (ns since the Unix epoch) on it is not used; 0 for never.
        hosts: identifiers (UEID) of the hosts that may load it, each proven by an attestation;
            empty for any host, unproven.
        replicas_max: processes that may serve it at once; 0 for any number.
        uses: what it may be used for; empty for everything.
        output: how much of an answer leaves.
        decimals: digits after the point where outputs are rounded.
    """

    loaders: tuple[str, ...] = ()
    not_after_ns: int = 0
    hosts: tuple[str, ...] = ()
    replicas_max: int = 0
    uses: tuple[Use, ...] = ()
    output: Output = Output.FULL
    decimals: int = 2


ANYTHING = Policy()
