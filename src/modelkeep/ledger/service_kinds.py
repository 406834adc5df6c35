"""Kinds of entries about a running service: what it serves, and who answers."""

from __future__ import annotations

from modelkeep.ledger.kind import Act, kind

SERVICE_KINDS = (
    kind(
        "host.certified",
        "host fingerprint expires_ns",
        "A machine has a certificate by which it may run replicas for this keep's service.",
        Act.CREATE,
        entity="certificate",
    ),
    kind(
        "service.certificate",
        "source",
        "The service read another certificate for its clients.",
        Act.UPDATE,
        entity="service",
    ),
    kind(
        "service.changed",
        "models added",
        "The service answers for other versions than before.",
        Act.UPDATE,
        entity="service",
    ),
    kind(
        "service.started",
        "models url",
        "The service began to answer.",
        Act.CREATE,
        entity="service",
    ),
    kind(
        "service.unchanged",
        "model version code message",
        "Something that is wanted cannot be served; what was there goes on.",
        Act.DETECT,
    ),
    kind(
        "traffic.ended",
        "model reason",
        "A model has no canary and no shadow any more.",
        Act.DELETE,
        entity="traffic",
    ),
    kind(
        "traffic.set",
        "model canary canary_lots shadow shadow_lots sticky",
        "A version answers some of a model's calls, or is asked too.",
        Act.UPDATE,
        entity="traffic",
    ),
)
