"""What is always worth knowing before a model is served, whatever the operator demands.

Pure: facts in, findings out. HIGH is what would surely fail; MEDIUM is what is likely to fail, or
lets somebody in; a NOTE is what an operator may want to change. What could not be found out is a
note, never silence.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence

from modelkeep.core.instant import NS_PER_S
from modelkeep.core.record import Record
from modelkeep.core.sizes import size_text
from modelkeep.core.verdict import Finding, Severity
from modelkeep.ports.host import Host
from modelkeep.ports.sandbox import CALLS, NETWORK

# What a replica's process takes beside the weights: the interpreter, NumPy, the runtime.
PROCESS_BYTES = 64 * 1024 * 1024
# 2026-01-01 and 2100-01-01: a clock outside of these was never set.
_YEARS_S = (1_767_225_600, 4_102_444_800)
# A minute: what tokens and time stamps allow is of this size.
_ERROR_US_MAX = 60_000_000
_OPEN_FILES_MIN = 1024
_PROCESSES_MIN = 256
_MAPPINGS_MIN = 65_530
_FREE_BYTES_MIN = 256 * 1024 * 1024
_FREE_FILES_MIN = 10_000
_STRICT_OVERCOMMIT = 2
_LISTED_MAX = 12
# Instructions that make a type of elements fast; without them the runtime computes in 32 bits.
_FAST = {
    "BF16": ("avx512_bf16", "amx_bf16", "bf16"),
    "FP16": ("avx512_fp16", "amx_fp16", "fphp", "f16c"),
    "INT8": ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"),
    "UINT8": ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"),
}


class ModelNeed(Record, frozen=True):
    """What a model that is to be served takes.

    Attributes:
        size_bytes: of its files: a copy of them lies in memory for all replicas.
        dtypes: of its tensors, by Open Inference Protocol name.
    """

    name: str
    size_bytes: int
    dtypes: tuple[str, ...] = ()


def standing(
    host: Host, models: Sequence[ModelNeed] = (), *, replicas: int = 1
) -> tuple[Finding, ...]:
    """Judge a machine that these models are to be served from."""
    return (
        *_memory(host, models, replicas),
        *_processor(host, models),
        *_disk(host),
        *_permissions(host),
        *_isolation(host),
        *_ports(host),
        *_clock(host),
        *_entropy(host),
        *_bounds(host),
    )


def _found(
    rule: str, severity: Severity, subject: str, evidence: str, reference: str = ""
) -> Finding:
    return Finding(
        rule=f"preflight.{rule}",
        severity=severity,
        subject=subject,
        evidence=evidence,
        reference=reference,
    )


def _memory(host: Host, models: Sequence[ModelNeed], replicas: int) -> Iterator[Finding]:
    free = host.memory.available_bytes
    if free < 0:
        yield _found("memory", Severity.NOTE, "memory", "nobody can tell how much is free")
        return
    once = sum(model.size_bytes for model in models)
    # Each replica keeps at most one copy of its own (adapters.runtime_onnx says which tensors).
    whole = once + replicas * sum(model.size_bytes + PROCESS_BYTES for model in models)
    here = f"{size_text(free)} are free (bound by {host.memory.bound_by})"
    subject = ", ".join(model.name for model in models)[:200]
    if once > free:
        text = f"the weights alone take {size_text(once)}, {here}"
        yield _found("memory", Severity.HIGH, subject, text, "CWE-400")
    elif models and whole > free:
        text = f"{replicas} replicas each may take {size_text(whole)} in all, {here}"
        yield _found("memory", Severity.MEDIUM, subject, text, "CWE-400")


def _processor(host: Host, models: Sequence[ModelNeed]) -> Iterator[Finding]:
    if host.cpu_flags is None:
        yield _found("cpu", Severity.NOTE, "processor", "the system does not say what it can do")
        return
    flags = {each.lower() for each in host.cpu_flags}
    if host.processor == "x86_64" and models and "avx2" not in flags:
        text = "it has no avx2: the runtime falls back to code that is several times slower"
        yield _found("cpu", Severity.NOTE, "processor", text)
    for dtype, fast in _FAST.items():
        names = [model.name for model in models if dtype in model.dtypes]
        if names and not flags & set(fast):
            text = f"{dtype} weights: it has none of {', '.join(fast)}, so they are converted"
            yield _found("cpu", Severity.NOTE, ", ".join(names)[:200], text)


def _disk(host: Host) -> Iterator[Finding]:
    for space in host.spaces:
        if space.free_bytes < 0:
            yield _found("disk", Severity.NOTE, space.folder, "nobody can tell what is free")
        elif space.free_bytes < _FREE_BYTES_MIN:
            text = (
                f"{size_text(space.free_bytes)} are free: calls cannot be recorded on a full disk"
            )
            yield _found("disk", Severity.MEDIUM, space.folder, text, "CWE-400")
        elif 0 <= space.free_files < _FREE_FILES_MIN:
            text = f"room for {space.free_files} more files"
            yield _found("disk", Severity.MEDIUM, space.folder, text, "CWE-400")


def _permissions(host: Host) -> Iterator[Finding]:
    for each in host.private:
        if each.mode < 0:
            yield _found("permission", Severity.NOTE, each.path, "cannot be looked at")
            continue
        bits = stat.S_IMODE(each.mode)
        if bits & (stat.S_IWGRP | stat.S_IWOTH):
            text = f"others than its owner may write to it (mode {bits:04o}): chmod go-w"
            yield _found("permission", Severity.MEDIUM, each.path, text, "CWE-732")
        elif not each.is_folder and bits & (stat.S_IRGRP | stat.S_IROTH):
            text = f"others than its owner may read it (mode {bits:04o}): chmod 600"
            yield _found("permission", Severity.MEDIUM, each.path, text, "CWE-732")
        if each.owner not in (-1, 0, host.user):
            text = f"belongs to user {each.owner}, who may change it at any time"
            yield _found("permission", Severity.MEDIUM, each.path, text, "CWE-282")
    if host.user == 0:
        text = "the service would run as root: give it a user of its own"
        yield _found("root", Severity.NOTE, "user", text, "CWE-250")


def _isolation(host: Host) -> Iterator[Finding]:
    for measure in host.isolation or ():
        if not measure.is_on:
            # These two hold what a hijacked model could do; others are further walls behind them.
            grave = measure.name in (CALLS, NETWORK)
            severity = Severity.MEDIUM if grave else Severity.NOTE
            yield _found("isolation", severity, measure.name, measure.why, "CWE-653")


def _ports(host: Host) -> Iterator[Finding]:
    for each in host.ports:
        if each.why_not and each.address:
            subject = f"{each.address}:{each.port}"
            yield _found("port", Severity.HIGH, subject, f"it is not free: {each.why_not}")
    if host.listeners is None:
        yield _found("listening", Severity.NOTE, "network", "nobody can tell what listens here")
    elif host.listeners:
        shown = ", ".join(map(str, host.listeners[:_LISTED_MAX]))
        more = f" and {len(host.listeners) - _LISTED_MAX} more" * (
            len(host.listeners) > _LISTED_MAX
        )
        text = f"TCP ports that are open on all addresses: {shown}{more}"
        yield _found("listening", Severity.NOTE, "network", text, "CWE-1327")


def _clock(host: Host) -> Iterator[Finding]:
    clock = host.clock
    if clock.now_ns >= 0 and not _YEARS_S[0] <= clock.now_ns // NS_PER_S < _YEARS_S[1]:
        text = "it says a year that cannot be: certificates, tokens and the ledger need the time"
        yield _found("clock", Severity.MEDIUM, "clock", text, "CWE-672")
    if clock.is_synchronised is None:
        text = "nobody can tell whether something keeps it right; its drift is unknown"
        yield _found("clock", Severity.NOTE, "clock", text)
    elif not clock.is_synchronised:
        text = "nothing in this system keeps it right (the host of a virtual machine may): its "
        yield _found("clock", Severity.NOTE, "clock", text + "drift is unknown")
    elif clock.error_us_max > _ERROR_US_MAX:
        text = f"by the kernel's estimate it may be wrong by {clock.error_us_max / 1e6:.0f} s"
        yield _found("clock", Severity.MEDIUM, "clock", text)


def _entropy(host: Host) -> Iterator[Finding]:
    if host.has_entropy is None:
        text = "nobody can tell whether the generator of random bytes is initialised"
        yield _found("entropy", Severity.NOTE, "entropy", text)
    elif not host.has_entropy:
        text = "the kernel's generator of random bytes is not initialised: keys would wait for it"
        yield _found("entropy", Severity.HIGH, "entropy", text, "CWE-331")


def _bounds(host: Host) -> Iterator[Finding]:
    bounds = host.bounds
    for name, here, least in (
        ("open files (RLIMIT_NOFILE)", bounds.open_files, _OPEN_FILES_MIN),
        ("processes (RLIMIT_NPROC)", bounds.processes, _PROCESSES_MIN),
        ("mappings (vm.max_map_count)", bounds.mappings, _MAPPINGS_MIN),
    ):
        if 0 <= here < least:
            text = f"{here} are allowed, {least} are usual: calls may fail under load"
            yield _found("limit", Severity.MEDIUM, name, text, "CWE-770")
    if bounds.core_bytes not in (0, -2):
        text = "allowed here; the service turns them off for itself"
        yield _found("limit", Severity.NOTE, "core dumps (RLIMIT_CORE)", text, "CWE-528")
    swap = host.memory.swap_bytes
    if swap > 0 and bounds.locked_bytes != -1:
        text = (
            f"{size_text(swap)} of swap, and only {size_text(max(0, bounds.locked_bytes))} may be "
            "locked: weights and keys can reach the disk; encrypt it, or raise RLIMIT_MEMLOCK"
        )
        yield _found("limit", Severity.NOTE, "locked memory (RLIMIT_MEMLOCK)", text, "CWE-591")
    if bounds.overcommit == _STRICT_OVERCOMMIT:
        text = "2: memory is refused while some is free, as soon as as much was promised"
        yield _found("limit", Severity.NOTE, "vm.overcommit_memory", text)
    if bounds.address_bytes >= 0:
        text = f"{size_text(bounds.address_bytes)} of addresses: large models cannot be mapped"
        yield _found("limit", Severity.NOTE, "addresses (RLIMIT_AS)", text)
