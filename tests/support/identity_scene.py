"""One keep's callers, for attacks: keys, issuers, accounts, certificates, roles, tenants."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import token_forge as forge
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from modelkeep.adapters.jwt_joserfc import Issuer, JoseBearers, KeySet, OwnIssuer, keys_of
from modelkeep.adapters.system import SystemEntropy
from modelkeep.core.entry import Entry
from modelkeep.core.projection import changes
from modelkeep.core.rows import (
    TABLES,
    Account,
    ClientCertificate,
    IssuerMark,
    RegisteredPrincipal,
    Role,
    Token,
)
from modelkeep.crypto.certificates import new_authority, server_certificate
from modelkeep.crypto.client_certificates import issued_certificate
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.flows.accounts import password_key, verifier_of
from modelkeep.gate.authn import Keyring, new_token
from modelkeep.gate.identity_settings import IdentitySettings, IssuerSettings

KEEP_ID = "0123456789abcdef"
CHEAP = Argon2Settings(memory_kib=64, passes=1, lanes=1)
PASSWORD = "correct horse battery"  # noqa: S105 - a test's
AUDIENCE = "modelkeep-gate"
CORP = "https://login.corp.example"
STAFF = "https://staff.example/realms/ml"
GONE = "https://gone.example"
HOUR_S = 3600


@dataclass(frozen=True)
class Client:
    """A client certificate with its key."""

    der: bytes
    pem: bytes  # with the key


@dataclass
class Scene:
    """Everything that attacks need to know, secrets too."""

    folder: Path
    now_s: int = field(default_factory=lambda: int(time.time()))
    commitments: bytes = field(default_factory=lambda: os.urandom(32))
    token_seed: bytes = field(default_factory=lambda: os.urandom(32))
    entries: list[Entry] = field(default_factory=list)
    api_keys: dict[str, bytes] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)
    password_ids: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys = _keys()
        self.rsa, self.weak, self.stranger_rsa = keys["rsa"], keys["weak"], keys["stranger"]
        self.ec, self.ec_other = keys["ec"], keys["ec_other"]
        self.ed = keys["ed"]
        self.authority = new_authority(keep_id=KEEP_ID, now_ns=time.time_ns())
        self.foreign = new_authority(keep_id="f" * 16, now_ns=time.time_ns())
        self._principals()
        self._api_keys()
        self._accounts()
        self._certificates()
        self.record("issuer.disabled", issuer="gone")
        (self.folder / "corp.jwks").write_bytes(self.corp_keys())
        (self.folder / "staff.jwks").write_bytes(self.staff_keys())

    # ---- what the keep holds -------------------------------------------------------------------

    def record(self, kind: str, **facts: Any) -> None:
        """One ledger entry."""
        self.entries.append(Entry(kind=kind, at_ns=len(self.entries), actor="test", facts=facts))

    def _principals(self) -> None:
        self.record("tenant.created", tenant="acme", domain="acme")
        self.record("role.defined", role="only-other", scopes=("infer:other",))
        self.record("role.defined", role="boss", scopes=("approve", "infer:digits", "operate"))
        for name, tenant, roles in (
            ("alice", "default", ("caller",)),
            ("carol", "default", ("caller",)),
            ("oscar", "default", ("only-other",)),
            ("zoe", "acme", ("caller",)),
            ("robot", "default", ("caller",)),
            ("boss", "default", ("boss",)),
            ("nobody", "default", ()),
            ("jwt:corp:banned", "default", ("caller",)),
        ):
            self.record("principal.created", principal=name, tenant=tenant, roles=roles)
        for name in ("carol", "jwt:corp:banned"):
            self.record("principal.disabled", principal=name)

    def _api_keys(self) -> None:
        past = (self.now_s - 60) * 10**9
        for label, principal, scopes, expires_ns in (
            ("alice", "alice", ("infer:digits",), 0),
            ("revoked", "alice", ("infer:digits",), 0),
            ("expired", "alice", ("infer:digits",), past),
            ("carol", "carol", ("infer:digits",), 0),
            ("oscar", "oscar", ("infer:*",), 0),
            ("zoe", "zoe", ("infer:*",), 0),
            ("metrics", "scraper", ("metrics",), 0),
            ("free", "free", ("infer:*",), 0),
            ("nobody", "nobody", ("infer:*",), 0),
            ("star", "odd", ("*",), 0),
            ("colon-star", "odd", (":*",), 0),
            ("double", "odd", ("infer:**",), 0),
            ("prefix", "odd", ("infer:dig*",), 0),
            ("capitals", "odd", ("INFER:*",), 0),
            ("bare", "odd", ("infer",), 0),
            ("empty", "odd", (), 0),
            ("spaces", "odd", ("metrics infer:*",), 0),
            ("operator", "odd", ("operate", "audit", "approve"), 0),
        ):
            text, token = new_token(
                SystemEntropy(), principal=principal, scopes=scopes, expires_ns=expires_ns
            )
            self.api_keys[label] = text.reveal()
            self.record(
                "token.created",
                token_id=token.token_id,
                secret_sha256=token.secret_sha256,
                principal=principal,
                tenant="default",
                scopes=scopes,
                expires_ns=expires_ns,
            )
            if label == "revoked":
                self.record("token.revoked", token_id=token.token_id)

    def _accounts(self) -> None:
        key = password_key(Secret(self.commitments))
        for name in ("robot", "carol", "oscar", "boss"):
            self.password_ids[name] = os.urandom(8).hex()
            self.set_password(name, PASSWORD, password_id=self.password_ids[name], key=key)

    def set_password(self, name: str, password: str, *, password_id: str, key: Any = None) -> None:
        """The entry that gives somebody a password."""
        salt = os.urandom(32)
        key = key or password_key(Secret(self.commitments))
        found = verifier_of(Secret(password.encode()), salt=salt, cost=CHEAP, key=key)
        self.record(
            "account.password",
            principal=name,
            password_id=password_id,
            salt=salt.hex(),
            verifier=found.hex(),
            memory_kib=CHEAP.memory_kib,
            passes=CHEAP.passes,
            lanes=CHEAP.lanes,
        )

    def _certificates(self) -> None:
        now_ns = time.time_ns()
        for label, principal, authority, days_ago in (
            ("alice", "alice", self.authority, 0),
            ("robot", "robot", self.authority, 0),
            ("carol", "carol", self.authority, 0),
            ("revoked", "alice", self.authority, 0),
            ("expired", "alice", self.authority, 3),
            ("unregistered", "", self.authority, 0),
            ("foreign", "", self.foreign, 0),
            ("foreign-registered", "alice", self.foreign, 0),
            ("later", "alice", self.authority, 0),
            ("outlived", "alice", self.authority, 0),
        ):
            made = issued_certificate(
                authority, name=label, days=2, now_ns=now_ns - days_ago * 86_400 * 10**9
            )
            assert made.key is not None
            der = x509.load_pem_x509_certificate(made.pem).public_bytes(Encoding.DER)
            self.clients[label] = Client(der=der, pem=made.pem + made.key.reveal())
            begins, ends = made.begins_ns, made.expires_ns
            begins = now_ns + HOUR_S * 10**9 if label == "later" else begins
            ends = now_ns - 10**9 if label == "outlived" else ends
            if principal:
                self.record(
                    "certificate.issued",
                    fingerprint=made.fingerprint,
                    principal=principal,
                    begins_ns=begins,
                    expires_ns=ends,
                )
            if label == "revoked":
                self.record("certificate.revoked", fingerprint=made.fingerprint)
        pem = server_certificate(
            self.authority, keep_id=KEEP_ID, hosts=("localhost",), now_ns=now_ns
        ).reveal()
        der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        self.clients["server"] = Client(der=der, pem=pem)

    # ---- what is configured --------------------------------------------------------------------

    def corp_keys(self) -> bytes:
        """The keys of an issuer that also lists what must not be used."""
        return forge.jwks(
            forge.jwk(self.rsa, kid="rsa-1", use="sig"),
            forge.jwk(self.ec, kid="ec-1", alg="ES256"),
            forge.jwk(self.weak, kid="weak"),
            forge.jwk(self.stranger_rsa, kid="enc-1", use="enc"),
            forge.jwk(self.ed, kid="ed-1"),
            {"kty": "oct", "k": forge.b64(b"0" * 32), "kid": "oct-1"},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "off-curve"},
        )

    def staff_keys(self) -> bytes:
        """The keys of an issuer that names principals, roles and tenants."""
        return forge.jwks(forge.jwk(self.ec_other, kid="staff-1"))

    def identity(self) -> IdentitySettings:
        """Table `[identity]`."""
        return IdentitySettings(
            passwords=CHEAP,
            failures_free=1000,
            token_s=600.0,
            issuers=(
                IssuerSettings(
                    label="corp",
                    issuer=CORP,
                    audience=AUDIENCE,
                    scopes=("infer:digits",),
                    jwks=f"file:{self.folder}/corp.jwks",
                    algorithms=("RS256", "ES256"),
                ),
                IssuerSettings(
                    label="staff",
                    issuer=STAFF,
                    audience=AUDIENCE,
                    scopes=("infer:*", "metrics"),
                    jwks=f"file:{self.folder}/staff.jwks",
                    algorithms=("ES256",),
                    principal_claim="preferred_username",
                    roles_claim="realm_access.roles",
                    roles={"ml": ("caller",), "ops": ("scraper",)},
                    tenant_claim="org",
                    tenants=("default",),
                ),
                IssuerSettings(
                    label="gone",
                    issuer=GONE,
                    audience=AUDIENCE,
                    scopes=("infer:*",),
                    jwks=f"file:{self.folder}/corp.jwks",
                ),
            ),
        )

    def bearers(self) -> JoseBearers:
        """The verifier, with all keys at hand."""
        never = 2**63
        issuers = []
        for each in self.identity().issuers:
            raw = Path(each.jwks.removeprefix("file:")).read_bytes()
            keys = KeySet(keys_of(raw, what=each.label), digest=b"", holds_until_ns=never)
            issuers.append(Issuer(each, keys))
        return JoseBearers(issuers, self.own())

    def own(self) -> OwnIssuer:
        """What signs tokens for passwords."""
        return OwnIssuer(Secret(self.token_seed), lifetime_s=600.0)

    def keyring(self, bearers: JoseBearers | None = None) -> Keyring:
        """Who is known, as State would say it after all entries."""
        rows = projected_rows(self.entries)
        return Keyring(
            rows(Token),
            rows(RegisteredPrincipal),
            rows(Role),
            accounts=rows(Account),
            certificates=rows(ClientCertificate),
            issuers=rows(IssuerMark),
            bearers=bearers or self.bearers(),
        )

    # ---- what callers present ------------------------------------------------------------------

    def claims(self, **more: Any) -> dict[str, Any]:
        """Good claims of the first issuer, some of them changed; None takes one away."""
        usual = {"iss": CORP, "aud": AUDIENCE, "sub": "u-1", "exp": self.now_s + HOUR_S}
        return {name: each for name, each in {**usual, **more}.items() if each is not None}

    def staff(self, **more: Any) -> bytes:
        """A token of the second issuer."""
        usual = {
            "iss": STAFF,
            "preferred_username": "alice",
            "realm_access": {"roles": ["ml"]},
            "org": "default",
        }
        claims = self.claims(**{**usual, **more})
        return forge.compact({"alg": "ES256", "kid": "staff-1"}, claims, forge.es(self.ec_other))

    def corp(self, header: dict[str, Any] | None = None, **claims: Any) -> bytes:
        """A token of the first issuer, rightly signed; header and claims may be changed."""
        head = {"alg": "RS256", "kid": "rsa-1", "typ": "JWT", **(header or {})}
        head = {name: each for name, each in head.items() if each is not None}
        return forge.compact(head, self.claims(**claims), forge.rs(self.rsa))

    def own_token(self, name: str = "robot", **more: Any) -> bytes:
        """A token of ours."""
        usual = {"password_id": self.password_ids.get(name, "0" * 16), "now_ns": time.time_ns()}
        return self.own().signed(name, token_id="0" * 32, **{**usual, **more})

    def public_pem(self) -> bytes:
        """The issuer's public key as text, which attackers take for a shared secret."""
        return self.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def projected_rows(entries: list[Entry]) -> Any:
    """Reads rows of a State that took these entries."""
    tables: dict[str, dict[str, Any]] = {name: {} for name in TABLES.values()}
    for entry in entries:
        for change in changes(entry, lambda kind, key: tables[TABLES[kind]].get(key)):
            if change.row is None:
                tables[change.table].pop(change.key, None)
            else:
                tables[change.table][change.key] = change.row
    return lambda kind: tuple(tables[TABLES[kind]].values())


@functools.cache
def _keys() -> dict[str, Any]:
    """Keys that are slow to make, once."""
    return {
        "rsa": rsa.generate_private_key(65537, 2048),
        "weak": rsa.generate_private_key(65537, 1024),  # noqa: S505 - weak on purpose
        "stranger": rsa.generate_private_key(65537, 2048),
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "ec_other": ec.generate_private_key(ec.SECP256R1()),
        "ed": ed25519.Ed25519PrivateKey.generate(),
    }


def self_signed() -> Client:
    """A certificate that nobody issued."""
    made = new_authority(keep_id="e" * 16, now_ns=time.time_ns())
    certificate = x509.load_pem_x509_certificate(made.certificate)
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_der_private_key,
    )

    key = load_der_private_key(made.key.reveal(), password=None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    return Client(der=certificate.public_bytes(Encoding.DER), pem=made.certificate + key)
