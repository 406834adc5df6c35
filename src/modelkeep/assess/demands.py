"""What is demanded of a machine against what it has: one finding for each demand that is not met.

Pure: facts in, findings out. What could not be found out does not meet a demand, and is said to be
unknown. The same judgement stands behind `[preflight]` and the SDK's `require`.
"""

from __future__ import annotations

from collections.abc import Iterator

from modelkeep.assess.settings import Demands, accelerator, named_versions, shown_place
from modelkeep.core.sizes import parsed_size, size_text
from modelkeep.core.verdict import Finding, Severity
from modelkeep.kernels.versions import satisfies
from modelkeep.ports.host import Asked, Host

_EXHAUSTED = "CWE-400"
_CONFIGURED = "CWE-1188"


def asked_of(demands: Demands, *, folder: str, reach_timeout_s: float = 2.0) -> Asked:
    """What has to be found out for these demands, and nothing more."""
    return Asked(
        folders=(folder,) if demands.min_disk else (),
        packages=tuple(named_versions(each)[0] for each in demands.packages),
        accelerators=tuple(dict.fromkeys(accelerator(each)[0] for each in demands.accelerators)),
        reachable=demands.reachable,
        reach_timeout_s=reach_timeout_s,
        ports=tuple(("", port) for port in demands.ports_free),
    )


def unmet(demands: Demands, host: Host, *, severity: Severity) -> tuple[Finding, ...]:
    """Judge every demand; none of them hides another."""
    findings = (
        *_memory(demands, host),
        *_disk(demands, host),
        *_processor(demands, host),
        *_accelerators(demands, host),
        *_system(demands, host),
        *_packages(demands, host),
        *_reached(demands, host),
        *_ports(demands, host),
    )
    return tuple(
        Finding(
            rule=f"preflight.{rule}",
            severity=severity,
            subject=subject,
            evidence=evidence,
            reference=reference,
        )
        for rule, subject, evidence, reference in findings
    )


_Unmet = Iterator[tuple[str, str, str, str]]


def _memory(demands: Demands, host: Host) -> _Unmet:
    if not demands.min_ram:
        return
    free, wanted = host.memory.available_bytes, parsed_size(demands.min_ram)
    if free < wanted:
        here = "nobody can tell how much is free"
        if free >= 0:
            here = f"{size_text(free)} are free (bound by {host.memory.bound_by})"
        yield "memory", "memory", f"{size_text(wanted)} are demanded, {here}", _EXHAUSTED


def _disk(demands: Demands, host: Host) -> _Unmet:
    if not demands.min_disk:
        return
    wanted = parsed_size(demands.min_disk)
    for space in host.spaces:
        if space.free_bytes < wanted:
            here = "nobody can tell how much is free"
            if space.free_bytes >= 0:
                here = f"{size_text(space.free_bytes)} are free"
            yield "disk", space.folder, f"{size_text(wanted)} are demanded, {here}", _EXHAUSTED
    if not host.spaces:
        yield "disk", "disk", f"{size_text(wanted)} are demanded, nobody looked", _EXHAUSTED


def _processor(demands: Demands, host: Host) -> _Unmet:
    flags = {each.lower() for each in host.cpu_flags or ()}
    missing = [each for each in demands.cpu_flags if each.lower() not in flags]
    if missing:
        why = "" if host.cpu_flags is not None else " (the system does not say what it can do)"
        text = f"the processor ({host.processor}) lacks {', '.join(missing)}{why}"
        yield "cpu", "processor", text, ""


def _accelerators(demands: Demands, host: Host) -> _Unmet:
    found = {each.kind: each for each in host.accelerators}
    for text in demands.accelerators:
        kind, many = accelerator(text)
        here = found.get(kind)
        count = len(here.devices) if here is not None else 0
        if count < many:
            why = f" ({here.why_none})" if here is not None and here.why_none else ""
            yield "accelerator", kind, f"{many} demanded, {count} here{why}", ""


def _system(demands: Demands, host: Host) -> _Unmet:
    name, number = host.distribution
    known = {host.system, name, f"{name} {number}"} - {""}
    if demands.os and not known & {each.lower() for each in demands.os}:
        here = f"{host.system or 'an unknown system'} ({name} {number})".replace(" ( )", "")
        yield "os", "system", f"{' or '.join(demands.os)} is demanded, this is {here}", ""
    if demands.kernel and not satisfies(host.kernel, demands.kernel):
        text = f"{demands.kernel} is demanded, this is {host.kernel or 'unknown'}"
        yield "kernel", "kernel", text, ""
    if demands.libc:
        wanted, versions = named_versions(demands.libc)
        here, _, version = host.libc.partition(" ")
        if here != wanted or not satisfies(version, versions):
            text = f"{demands.libc} is demanded, this is {host.libc or 'unknown'}"
            yield "libc", "C library", text, ""
    if demands.python and not satisfies(host.python, demands.python):
        text = f"{demands.python} is demanded, this is {host.python or 'unknown'}"
        yield "python", "Python", text, ""


def _packages(demands: Demands, host: Host) -> _Unmet:
    for text in demands.packages:
        name, wanted = named_versions(text)
        here = host.packages.get(name, "")
        if not here:
            yield "package", name, f"{text} is demanded and not installed", ""
        elif not satisfies(here, wanted):
            yield "package", name, f"{text} is demanded, {here} is installed", ""


def _reached(demands: Demands, host: Host) -> _Unmet:
    found = {each.place: each.why_not for each in host.reached}
    for text in demands.reachable:
        why = found.get(text, "nobody tried")
        if why:
            shown = shown_place(text)
            yield "reachable", shown, f"{shown} is not reached: {why}", ""


def _ports(demands: Demands, host: Host) -> _Unmet:
    found = {each.port: each.why_not for each in host.ports if not each.address}
    for port in demands.ports_free:
        why = found.get(port, "nobody tried")
        if why:
            yield "port", str(port), f"TCP port {port} is not free: {why}", _CONFIGURED
