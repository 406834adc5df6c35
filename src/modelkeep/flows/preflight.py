"""Preflight: what must hold before a model is served, judged before anything is decrypted."""

from __future__ import annotations

from collections.abc import Sequence

from modelkeep.assess.demands import asked_of, unmet
from modelkeep.assess.machine import ModelNeed, standing
from modelkeep.assess.settings import Demands, PreflightSettings
from modelkeep.core.artifact import ModelReference
from modelkeep.core.errors import RefusedError
from modelkeep.core.record import replaced
from modelkeep.core.verdict import Finding, Severity, Verdict, judged
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.registry import manifest_of
from modelkeep.ports.host import Asked, Host, HostFacts


def needs_of(keep: OpenKeep, references: Sequence[ModelReference]) -> tuple[ModelNeed, ...]:
    """What these versions take, read from their manifests.

    Raises:
        MissingError: `model.unknown` or `model.alias`.
    """
    needs = []
    for reference in references:
        manifest = manifest_of(keep, reference)
        tensors = (tensor for each in manifest.files for tensor in each.tensors)
        needs.append(
            ModelNeed(
                name=f"{manifest.name}:{manifest.version}",
                size_bytes=sum(each.size_bytes for each in manifest.files),
                dtypes=tuple(sorted({tensor.dtype for tensor in tensors})),
            )
        )
    return tuple(needs)


def what_to_ask(settings: PreflightSettings, standing_facts: Asked, *, folder: str) -> Asked:
    """What has to be found out: for what is demanded, for what is advised, and in any case."""
    parts = [
        standing_facts,
        *(asked_of(each, folder=folder) for each in (settings.demand, settings.advise)),
    ]
    lists = ("folders", "private", "packages", "accelerators", "reachable", "ports")
    merged = {
        name: tuple(dict.fromkeys(value for part in parts for value in getattr(part, name)))
        for name in lists
    }
    return replaced(standing_facts, reach_timeout_s=settings.reach_timeout_s, **merged)


def preflight(
    facts: HostFacts,
    asked: Asked,
    settings: PreflightSettings,
    models: Sequence[ModelNeed],
    *,
    replicas: int,
) -> tuple[Verdict, Host]:
    """Look at the machine once and judge it, by what always holds and by what is demanded."""
    host = facts.gathered(asked)
    demanded = unmet(settings.demand, host, severity=Severity.HIGH)
    advised = unmet(_beyond(settings), host, severity=Severity.MEDIUM)
    return judged((*demanded, *standing(host, models, replicas=replicas), *advised)), host


def demand_ready(verdict: Verdict) -> None:
    """Go on only where nothing was found that surely fails.

    Raises:
        RefusedError: `preflight.refused`, with everything that was.
    """
    grave = [each for each in verdict.findings if each.severity is Severity.HIGH]
    if grave:
        raise RefusedError(
            "preflight.refused",
            "this machine does not have what serving needs: " + "; ".join(map(shown, grave)),
            hint="`modelkeep preflight` says all of it; [preflight] in modelkeep.toml demands it",
            rules=sorted({each.rule for each in grave}),
        )


def shown(finding: Finding) -> str:
    """A finding as one phrase."""
    return f"{finding.subject}: {finding.evidence} ({finding.rule})"


def _beyond(settings: PreflightSettings) -> Demands:
    """What is advised beyond what is demanded word for word, so that nothing is said twice."""
    same = {
        name: getattr(Demands(), name)
        for name in ("kernel", "libc", "python", "min_ram", "min_disk")
        if getattr(settings.advise, name) == getattr(settings.demand, name)
    }
    return replaced(settings.advise, **same)
