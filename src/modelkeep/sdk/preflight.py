"""What must hold before a keep's models are served on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelkeep.assess.settings import PreflightSettings
from modelkeep.config import Config
from modelkeep.core.artifact import ModelReference
from modelkeep.core.errors import UsageError
from modelkeep.core.verdict import Severity, Verdict
from modelkeep.flows.keep import OpenKeep
from modelkeep.flows.preflight import demand_ready, needs_of, preflight, shown, what_to_ask
from modelkeep.flows.publish import chosen
from modelkeep.ports.host import Asked, Host, HostFacts
from modelkeep.ports.sandbox import Measure
from modelkeep.wiring import KeepFolder, Warn, host_facts, is_served, private_paths


def preflighted(
    folder: KeepFolder,
    config: Config,
    keep: OpenKeep,
    references: Sequence[str] = (),
    *,
    facts: HostFacts | None = None,
) -> tuple[Verdict, Host]:
    """Judge this machine for the models that `serve` would serve, or for those that are named.

    Reads the manifests and nothing of the models. It costs what the facts cost: some 200
    milliseconds, and the timeout of places that are demanded and not reached.

    Raises:
        MissingError: `model.unknown`.
    """
    try:
        models = needs_of(keep, chosen(keep, references or config.serve.models))
    except UsageError as error:
        if error.code != "serve.nothing":
            raise
        models = ()
    asked = Asked(
        folders=(str(folder.path),),
        private=private_paths(folder, config),
        # A service of this keep that runs listens there itself.
        ports=() if is_served(folder) else ((config.serve.host, config.serve.port),),
        listeners=True,
        isolation=True,
    )
    asked = what_to_ask(config.preflight, asked, folder=str(folder.path))
    return preflight(
        facts or host_facts(),
        asked,
        config.preflight,
        models,
        replicas=config.serve.replicas,
    )


def machine_preflight(
    folder: Path = Path(), settings: PreflightSettings | None = None
) -> tuple[Verdict, Host]:
    """Judge this machine alone, for whatever is to run on it."""
    settings = settings or PreflightSettings()
    asked = Asked(folders=(str(folder),), listeners=True, isolation=True)
    asked = what_to_ask(settings, asked, folder=str(folder))
    return preflight(host_facts(), asked, settings, (), replicas=0)


def explained_replica() -> tuple[Measure, ...]:
    """What keeps a model that takes its replica over from doing harm here, measure by measure."""
    return host_facts().gathered(Asked(isolation=True)).isolation or ()


def ready_to_serve(
    folder: KeepFolder,
    config: Config,
    keep: OpenKeep,
    references: Sequence[ModelReference],
    *,
    warn: Warn,
) -> None:
    """Refuse to start what would surely fail, and warn of what is likely to; a few milliseconds.

    Whether the port is free is found out by who listens on it, a moment later; what a sandbox
    brings, by the replicas, which say so.

    Raises:
        RefusedError: `preflight.refused`.
    """
    asked = Asked(folders=(str(folder.path),), private=private_paths(folder, config))
    asked = what_to_ask(config.preflight, asked, folder=str(folder.path))
    verdict, _ = preflight(
        host_facts(),
        asked,
        config.preflight,
        needs_of(keep, references),
        replicas=config.serve.replicas,
    )
    for each in verdict.findings:
        if each.severity is Severity.MEDIUM:
            warn(shown(each))
    demand_ready(verdict)
