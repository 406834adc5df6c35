"""modelkeep.toml: one file, read once into one frozen Config, strict about every key."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

from modelkeep.adapters.attestation_settings import AttestationSettings, attestation_problems
from modelkeep.adapters.host_settings import HostSettings, host_problems
from modelkeep.adapters.ray_settings import RaySettings, ray_problems
from modelkeep.adapters.store_settings import StoreSettings, problems_of, store_problems
from modelkeep.adapters.upstream_settings import UpstreamSettings, upstream_problems
from modelkeep.assess.settings import PreflightSettings, preflight_problems
from modelkeep.core.errors import ConfigError, IntegrityError
from modelkeep.core.limits import CONFIG_BYTES_MAX
from modelkeep.core.record import Record, as_plain, converted, field_facts, replaced
from modelkeep.core.reference import parsed_reference, parsed_secret_reference
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.drill.settings import ObjectiveSettings
from modelkeep.flows.settings import (
    APPROVABLE_VERBS,
    ApprovalSettings,
    RetentionSettings,
    ServeSettings,
    StateSettings,
    serve_problems,
)
from modelkeep.gate.identity_settings import IdentitySettings, identity_problems
from modelkeep.gate.limit_settings import (
    LimiterSettings,
    LimitSettings,
    QueueSettings,
    limit_problems,
)
from modelkeep.gate.pool_settings import PoolSettings, pool_problems
from modelkeep.gate.rule_settings import InputRule, OutputRule, rule_problems
from modelkeep.gate.settings import GateSettings
from modelkeep.ledger.cosignature import parsed_witness
from modelkeep.ledger.settings import LedgerSettings
from modelkeep.scan.admission_settings import (
    AdmissionSettings,
    AdvisorySettings,
    admission_problems,
    advisory_problems,
)
from modelkeep.scan.sanity_settings import sanity_problems
from modelkeep.scan.settings import ScanSettings
from modelkeep.vault.settings import VaultSettings

CONFIG_NAME = "modelkeep.toml"
R = TypeVar("R", bound=Record)
APPROVAL_DAYS_MAX = 30  # whoever agreed longer ago has forgotten what to
_UNKNOWN_KEY = re.compile(r"unknown field `([^`]*)`(?: - at `\$([^`]*)`)?")
_KEEP_ID = re.compile(r"[0-9a-f]{16}")
_HOST = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._%-]{0,255})(?::[0-9]{1,5})?"
# Narrower than libpq: whatever might be a password is not of this form.
_STATE_URL = re.compile(
    rf"postgres(?:ql)?://(?:[^:@/?#\s]{{1,200}}@)?{_HOST}(?:,{_HOST}){{0,7}}"
    r"(?:/[^/?#@:\s]{0,200})?(?:\?[^?#@\s]{0,2000})?"
)
_VERIFIED = ("verify-ca", "verify-full")  # TLS modes of libpq that know whom they speak to


class KeysSettings(Record, frozen=True):
    """Table `[keys]` of modelkeep.toml.

    Attributes:
        source: what holds the key-encryption key: `passphrase`, `file:…`, `exec:…`, `kms:…` or
            `attested:…`.
    """

    source: str = "passphrase"


class Config(Record, frozen=True):
    """All of modelkeep.toml.

    Attributes:
        keep_id: 16 hex digits that name this keep; made by `init`.
        stores: where the keep's objects are, the authoritative store first.
        keys: where the key-encryption key comes from.
        argon2: cost of turning a passphrase into a key, used when the root is wrapped.
        state: where State lies.
        approvals: what one person alone may not do.
        attestation: how this host proves which one it is.
        serve: what the service runs.
        upstreams: models that other servers answer for.
        hosts: other machines on which replicas run.
        ray: the cluster in which replicas run with `[serve] engine = "ray"`.
        inputs: what inputs may hold beyond what their models say.
        outputs: how much of answers leaves, and to whom.
        identity: who may call beside the holders of API keys.
        gate: bounds of one call and one connection.
        limits: who may use up how much.
        limiter: where what callers use up is counted.
        queue: who waits when there is more to do than can be done.
        pool: how replicas are chosen, watched and given up.
        vault: sizes of what is written.
        scan: bounds of one scan.
        admission: what must come with a model.
        advisories: what is known of packages.
        ledger: pace and retention of the ledger.
        objectives: what every recovery is measured against.
        retention: which versions `retire` leaves in the keep.
        preflight: what this machine must have before models are served.
    """

    keep_id: str
    stores: tuple[StoreSettings, ...]
    keys: KeysSettings = KeysSettings()
    argon2: Argon2Settings = Argon2Settings()
    state: StateSettings = StateSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    attestation: AttestationSettings = AttestationSettings()
    serve: ServeSettings = ServeSettings()
    upstreams: tuple[UpstreamSettings, ...] = ()
    hosts: tuple[HostSettings, ...] = ()
    ray: RaySettings = RaySettings()
    inputs: tuple[InputRule, ...] = ()
    outputs: tuple[OutputRule, ...] = ()
    identity: IdentitySettings = IdentitySettings()
    gate: GateSettings = GateSettings()
    limits: tuple[LimitSettings, ...] = ()
    limiter: LimiterSettings = LimiterSettings()
    queue: QueueSettings = QueueSettings()
    pool: PoolSettings = PoolSettings()
    vault: VaultSettings = VaultSettings()
    scan: ScanSettings = ScanSettings()
    admission: AdmissionSettings = AdmissionSettings()
    advisories: AdvisorySettings = AdvisorySettings()
    ledger: LedgerSettings = LedgerSettings()
    objectives: ObjectiveSettings = ObjectiveSettings()
    retention: RetentionSettings = RetentionSettings()
    preflight: PreflightSettings = PreflightSettings()


def parsed_config(raw: bytes, *, what: str) -> Config:
    """Decode and check a configuration.

    Raises:
        ConfigError: `config.toml`, `config.key` or `config.value`.
    """
    if len(raw) > CONFIG_BYTES_MAX:
        raise ConfigError("config.size", f"{what} is larger than 1 MiB")
    config = _converted(Config, _toml(raw, what), what)
    _demand_sound(config, what)
    return config


class ExplainedKey(Record, frozen=True):
    """One key of modelkeep.toml, for people."""

    key: str
    type: str
    default: str
    meaning: str


def explained() -> tuple[ExplainedKey, ...]:
    """Every key with its type, default and sentence, read from the records themselves."""
    return tuple(_explained(Config, ""))


def new_config_text(
    *, keep_id: str, stores: tuple[StoreSettings, ...], host: str, port: int, source: str
) -> str:
    """The modelkeep.toml that `init` writes: short, with a comment per table."""
    lines = [
        "# modelkeep: everything the operator decides. `modelkeep config explain` lists every key.",
        f'keep_id = "{keep_id}"',
        "",
        "# The first store is authoritative: models are served from it. The others are backups.",
    ]
    for store in stores:
        lines += ["[[stores]]", *store_lines(store), ""]
    lines += [
        "# What holds the key-encryption key: passphrase, file:…, exec:…, kms:… or attested:…",
        "[keys]",
        f"source = {quoted(source)}",
        "",
        "[serve]",
        f"host = {quoted(host)}",
        f"port = {port}",
        "replicas = 2",
        "",
        "# What every recovery is measured against.",
        "[objectives]",
        "rto_s_max = 60.0",
        "rpo_s_max = 5.0",
        "",
    ]
    return "\n".join(lines)


def store_lines(store: StoreSettings) -> list[str]:
    """The lines of a table `[[stores]]`: what differs from the defaults."""
    usual = as_plain(StoreSettings(label=""))
    lines = []
    for key, value in as_plain(store).items():
        if value != usual[key] or key == "label":
            told = quoted(value) if isinstance(value, str) else str(value).lower()
            lines.append(f"{key} = {told}")
    return lines


def parsed_store(raw: bytes, *, what: str) -> StoreSettings:
    """One store by itself: the keys of a table `[[stores]]`; its label may be left out.

    Raises:
        ConfigError: `config.*`, `store.url` or `reference.*`.
    """
    if len(raw) > CONFIG_BYTES_MAX:
        raise ConfigError("config.size", f"{what} is larger than 1 MiB")
    store = _converted(StoreSettings, {"label": "store"} | _toml(raw, what), what)
    _demand_none(problems_of(store), what)
    return store


def with_source(text: str, source: str) -> str:
    """The text of a modelkeep.toml with another key source, everything else as it is.

    Raises:
        ConfigError: `config.source`, when it is written in a way that cannot be changed safely.
    """
    before = parsed_config(text.encode(), what="modelkeep.toml")
    if before.keys.source == source:
        return text
    line = f"source = {quoted(source)}"
    changed, count = re.subn(r"(?m)^source\s*=\s*[\"'].*$", lambda _: line, text)
    if count == 0:
        changed = f"{text.rstrip()}\n\n[keys]\n{line}\n"
    try:
        after = parsed_config(changed.encode(), what="modelkeep.toml")
    except ConfigError:
        after = before
    if replaced(before, keys=replaced(before.keys, source=source)) != after:
        raise ConfigError(
            "config.source",
            "modelkeep.toml names its key source in a way that is not changed safely",
            hint=f"write {line} under [keys] yourself",
        )
    return changed


def without_state(text: str) -> str:
    """The text of a modelkeep.toml whose State lies in the keep's own folder, else as it is.

    For a recovery: the database may be lost too, and what a store names as the source of its
    password is not run.

    Raises:
        ConfigError: `config.state`, when it is written in a way that cannot be changed safely.
    """
    changed = _without(text, "state", StateSettings())
    if changed is None:
        raise ConfigError(
            "config.state",
            "modelkeep.toml says where State lies in a way that is not changed safely",
            hint="write it as a table of its own that begins with [state]",
        )
    return changed


def without_attestation(text: str) -> str:
    """The text of a modelkeep.toml by which nothing attests, else as it is.

    For a recovery: the host is another one, and what a store names as its attester is not run.

    Raises:
        ConfigError: `config.attestation`, when it is written in a way that cannot be changed
            safely.
    """
    changed = _without(text, "attestation", AttestationSettings())
    if changed is None:
        raise ConfigError(
            "config.attestation",
            "modelkeep.toml says how this host attests in a way that is not changed safely",
            hint="write it as a table of its own that begins with [attestation]",
        )
    return changed


def _without(text: str, table: str, usual: Record) -> str | None:
    """The text without a table, nothing else changed; None where that cannot be done."""
    before = parsed_config(text.encode(), what="modelkeep.toml")
    if getattr(before, table) == usual:
        return text
    changed = re.sub(rf"(?m)^\[{table}\].*(?:\n(?!\[).*)*\n?", "", text)
    try:
        after = parsed_config(changed.encode(), what="modelkeep.toml")
    except ConfigError:
        return None
    return changed if replaced(before, **{table: usual}) == after else None


def _demand_sound(config: Config, what: str) -> None:
    parsed_reference(config.keys.source)
    witnesses = [parsed_witness(key).public for key in config.ledger.witness.keys]
    problems = [
        *store_problems(config.stores),
        (_KEEP_ID.fullmatch(config.keep_id) is None, "keep_id is not 16 hex digits in lower case"),
        *_state_problems(config.state),
        *_approval_problems(config.approvals),
        *attestation_problems(config.attestation),
        *preflight_problems(config.preflight),
        *admission_problems(config.admission),
        *advisory_problems(config.advisories),
        *sanity_problems(config.scan.sanity),
        *(
            (not 0 <= value < math.inf, f"retention.{key} is no number from zero on")
            for key, value in as_plain(config.retention).items()
        ),
        *(
            (not 0 < value < math.inf, f"ledger.{key} is not a number above zero")
            for key, value in (
                ("witness.age_s_max", config.ledger.witness.age_s_max),
                ("witness.interval_s", config.ledger.witness.interval_s),
                ("timestamp.wait_s_max", config.ledger.timestamp.wait_s_max),
            )
        ),
        (
            len(set(witnesses)) != len(witnesses),
            "ledger.witness.keys names one key twice: a witness counts once, by whatever name",
        ),
        (config.ledger.witness.quorum < 0, "ledger.witness.quorum is below zero"),
        *serve_problems(config.serve),
        *limit_problems(config.limits, config.limiter, config.queue),
        *pool_problems(config.pool),
        (
            config.pool.hung_s < config.gate.call_timeout_s,
            "pool.hung_s is shorter than gate.call_timeout_s: a run in time would be cut off",
        ),
        *upstream_problems(config.upstreams),
        *host_problems(config.hosts),
        (
            not config.serve.replicas and not config.hosts,
            "serve.replicas is 0 without any [[hosts]] where replicas would run",
        ),
        *ray_problems(config.ray),
        *identity_problems(config.identity),
        *rule_problems(config.inputs, config.outputs),
        (
            not 4096 <= config.vault.segment_bytes <= 16 * 2**20
            or not config.vault.segment_bytes <= config.vault.pack_bytes <= 128 * 2**20,
            "vault: segment_bytes is 4096 to 16 MiB, pack_bytes at least that and at most 128 MiB",
        ),
        *(
            (not 0 < value < math.inf, f"{table}.{key} is not a number above zero")
            for table in ("argon2", "objectives", "gate", "ledger", "scan")
            for key, value in as_plain(getattr(config, table)).items()
            if isinstance(value, int | float)
        ),
    ]
    _demand_none(problems, what)


def _toml(raw: bytes, what: str) -> dict[str, Any]:
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError("config.toml", f"{what} is not TOML: {error}") from error


def _converted(kind: type[R], plain: dict[str, Any], what: str) -> R:
    try:
        return converted(kind, plain, what=what)
    except IntegrityError as error:
        raise ConfigError(
            "config.key",
            error.message,
            hint=f"{_nearest(kind, error.message)}`modelkeep config explain` lists every key",
        ) from error


def _nearest(kind: type[Record], message: str) -> str:
    """Which known key of the same table an unknown one is most like, in words; may be empty."""
    found = _UNKNOWN_KEY.search(message)
    if found is None:
        return ""
    prefix = re.sub(r"\[[^]]*\]", "[]", found[2] or "").removeprefix(".")
    table = f"{prefix}." if prefix else ""
    keys = (each.key for each in _explained(kind, ""))
    inside = (key.removeprefix(table) for key in keys if key.startswith(table))
    names = {re.split(r"[.\[]", key, maxsplit=1)[0] for key in inside}
    near = get_close_matches(found[1], sorted(names), n=1)
    return f"did you mean `{near[0]}`? " if near else ""


def _demand_none(problems: list[tuple[bool, str]], what: str) -> None:
    for is_bad, problem in problems:
        if is_bad:
            raise ConfigError("config.value", f"{what}: {problem}")


def _state_problems(state: StateSettings) -> list[tuple[bool, str]]:
    """What is wrong with `[state]`; its address is never repeated, it may hold a password."""
    if state.password:
        parsed_secret_reference(state.password)
    options = parse_qsl(state.url.partition("?")[2], keep_blank_values=True)
    return [
        (
            bool(state.url) and _STATE_URL.fullmatch(state.url) is None,
            "state.url is none, or holds a secret: postgresql://user@host:port/database?sslmode=…",
        ),
        (
            any(word in name.lower() for name, _ in options for word in ("pass", "secret", "key_")),
            'state.url holds a secret: put it into a file and write password = "file:/path"',
        ),
        (
            not _is_near(state.url, options) and not _is_verified(options),
            "state.url is of another host, whose word lets people in: it needs sslmode=verify-full",
        ),
        (bool(state.password) and not state.url, "state.password is given without state.url"),
    ]


def _is_near(url: str, options: list[tuple[str, str]]) -> bool:
    """Whether every host that libpq may speak to is this machine: none, a socket, loopback."""
    place = re.split("[/?]", url.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
    given = [re.sub(r":[0-9]+$", "", unquote(each)) for each in place.split(",")]
    for name, value in options:
        if name in ("host", "hostaddr", "service"):  # a service file names any host
            given += value.split(",") if name != "service" else [f"service {value}"]
    return all(map(_is_loopback, given))


def _is_loopback(host: str) -> bool:
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_verified(options: list[tuple[str, str]]) -> bool:
    """Whether TLS checks the server's certificate; `ssl=true` means sslmode=require to libpq."""
    modes = [value for name, value in options if name in ("sslmode", "ssl")]
    return bool(modes) and all(mode in _VERIFIED for mode in modes)


def _approval_problems(approvals: ApprovalSettings) -> list[tuple[bool, str]]:
    unknown = sorted(set(approvals.verbs) - set(APPROVABLE_VERBS))
    days = approvals.expires_s / 86_400
    return [
        (approvals.needed not in (0, 1, 2), "approvals.needed is 0, 1 or 2"),
        (not 0 < days <= APPROVAL_DAYS_MAX, f"approvals.expires_s: up to {APPROVAL_DAYS_MAX} days"),
        (
            bool(unknown),
            f"approvals.verbs: {unknown} cannot be approved; known are {APPROVABLE_VERBS}",
        ),
    ]


def quoted(text: str) -> str:
    """A text as TOML writes it.

    Raises:
        ConfigError: `config.value`, when it cannot be shown.
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        raise ConfigError("config.value", "a path in modelkeep.toml must be printable")
    return f'"{escaped}"'


def _explained(kind: type[Record], prefix: str) -> Iterator[ExplainedKey]:
    for field in field_facts(kind):
        key = prefix + field.name
        if field.record is not None:
            yield from _explained(field.record, f"{key}{'[]' if field.is_tuple else ''}.")
        else:
            yield ExplainedKey(
                key=key, type=field.type, default=field.default, meaning=field.sentence
            )
