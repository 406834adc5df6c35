"""Parse references to keys and secrets: they say where one lies and never hold it.

    passphrase
    file:/ABSOLUTE/PATH
    exec:/ABSOLUTE/PROGRAM ARGUMENTS
    kms:pkcs11:token=LABEL;object=LABEL?module-path=/LIBRARY.so&pin-source=SECRET
    kms:vault:https://HOST:PORT/MOUNT/keys/NAME?token=SECRET[&ca=/FILE][&namespace=NAME]
    kms:aws:ARN[?credentials=SECRET][&region=REGION][&endpoint=https://HOST][&ca=/FILE]
    kms:gcp:projects/P/locations/L/keyRings/R/cryptoKeys/K[?credentials=SECRET][&endpoint=…][&ca=…]
    kms:azure:https://HOST/keys/NAME/VERSION[?tenant=ID&client=ID&secret=SECRET][&authority=…][&ca=…]
    attested:/ABSOLUTE/POLICY.toml

SECRET is itself a reference, `file:` or `exec:`: PINs and tokens do not stand in a configuration.
What follows `?` is percent-encoded (RFC 3986; a space is `%20`), as are the labels of `pkcs11:`
(RFC 7512); paths after `file:` are taken as they are, words after `exec:` are split as a shell
splits them, and no shell runs.

What makes evidence about a host is named `software:/ABSOLUTE/KEYFILE` or `exec:…`.

Every error is a ConfigError that does not repeat the text: it may be the secret itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from urllib.parse import unquote

from modelkeep.core.errors import ConfigError
from modelkeep.core.record import Record

# The longest real one is a vault reference with three paths: under 600 characters.
REFERENCE_CHARS_MAX = 4096
EXEC_WORDS_MAX = 64
_FORMS = "a reference is `passphrase` or begins with `file:/`, `exec:/`, `kms:` or `attested:/`"
_FORMS_OF_ATTESTERS = "write `software:/path/key` or `exec:/program`"
_FORMS_OF_SECRETS = "write `file:/path` (mode 0600) or `exec:/program`: a reference, not the secret"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SCHEME = re.compile(r"[a-z][a-z0-9+-]{0,15}:")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = (
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
)
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_HTTPS = re.compile(rf"https://{_HOST}/?")
_VAULT = re.compile(rf"(https://{_HOST})/({_WORD}(?:/{_WORD}){{0,7}})/keys/({_WORD})")
_ARN = re.compile(
    r"arn:aws(?:-[a-z]+)*:kms:([a-z]{2}[a-z0-9-]{1,30}):[0-9]{12}"
    r":(?:key/[A-Za-z0-9-]{1,64}|alias/[A-Za-z0-9_/-]{1,250})"
)
_REGION = re.compile(r"[a-z]{2}[a-z0-9-]{1,30}")
_GCP = re.compile(
    r"projects/[a-z][a-z0-9.:-]{0,80}/locations/[a-z0-9-]{1,63}"
    r"/keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/[A-Za-z0-9_-]{1,63}"
)
_AZURE = re.compile(rf"(https://{_HOST})/keys/([A-Za-z0-9-]{{1,127}})/([A-Za-z0-9]{{1,64}})")


class PassphraseReference(Record, frozen=True):
    """A person is asked, or a file or descriptor is given on the command line."""


class FileReference(Record, frozen=True):
    """A protected file."""

    path: str


class ExecReference(Record, frozen=True):
    """What a program prints; the first word is its absolute path."""

    words: tuple[str, ...]


SecretReference = FileReference | ExecReference


class AttestedReference(Record, frozen=True):
    """Another source, asked only after this host has attested; `path` says which and how."""

    path: str


class SoftwareReference(Record, frozen=True):
    """Evidence made by this program with the key of a protected file."""

    path: str


AttesterReference = SoftwareReference | ExecReference


class Pkcs11Reference(Record, frozen=True):
    """A key in an HSM: `library` is the PKCS#11 module that reaches it."""

    token: str
    label: str
    library: str
    pin: SecretReference


class VaultReference(Record, frozen=True):
    """A transit key of HashiCorp Vault or OpenBao."""

    address: str
    mount: str
    key: str
    token: SecretReference
    ca: str = ""
    namespace: str = ""


class AwsReference(Record, frozen=True):
    """A symmetric key of AWS KMS; without credentials the machine's own role counts."""

    arn: str
    region: str
    endpoint: str = ""
    ca: str = ""
    credentials: SecretReference | None = None


class GcpReference(Record, frozen=True):
    """A symmetric key of Google Cloud KMS; without credentials the machine's own account counts."""

    key: str
    endpoint: str = "https://cloudkms.googleapis.com"
    ca: str = ""
    credentials: SecretReference | None = None


class AzureReference(Record, frozen=True):
    """One version of an RSA key in Azure Key Vault; without a secret the managed identity counts.

    Attributes:
        key: the key's identifier, `https://HOST/keys/NAME/VERSION`.
    """

    key: str
    ca: str = ""
    tenant: str = ""
    client: str = ""
    authority: str = ""
    secret: SecretReference | None = None


KeyReference = (
    PassphraseReference
    | FileReference
    | ExecReference
    | Pkcs11Reference
    | VaultReference
    | AwsReference
    | GcpReference
    | AzureReference
    | AttestedReference
)


def parsed_reference(text: str) -> KeyReference:
    """What `[keys] source` names.

    Raises:
        ConfigError: `reference.*`; the text is not repeated.
    """
    if text == "passphrase":
        return PassphraseReference()
    if text.startswith("attested:"):
        _demand_bounded(text)
        return AttestedReference(path=_absolute(text.removeprefix("attested:")))
    if not text.startswith("kms:"):
        return _plain(text, forms=_FORMS)
    _demand_bounded(text)
    service, _, rest = text.removeprefix("kms:").partition(":")
    parse = _SERVICES.get(service)
    if parse is None:
        raise ConfigError(
            "reference.service",
            "this key management service is not known",
            hint=f"known after `kms:` are {', '.join(_SERVICES)}",
        )
    return parse(rest)


def parsed_secret_reference(text: str) -> SecretReference:
    """Where a PIN, a token or a password lies.

    Raises:
        ConfigError: `reference.*`; the text is not repeated.
    """
    return _plain(text, forms=_FORMS_OF_SECRETS)


def parsed_attester(text: str) -> AttesterReference:
    """What makes evidence about this host.

    Raises:
        ConfigError: `reference.*`; the text is not repeated.
    """
    if text.startswith("software:"):
        _demand_bounded(text)
        return SoftwareReference(path=_absolute(text.removeprefix("software:")))
    found = _plain(text, forms=_FORMS_OF_ATTESTERS)
    if isinstance(found, FileReference):
        raise ConfigError("reference.scheme", "a file makes no evidence", hint=_FORMS_OF_ATTESTERS)
    return found


def executes(reference: KeyReference) -> bool:
    """Whether opening it runs a program or loads a library that the reference names.

    A configuration that came from a store must not do that before a person has confirmed it.
    """
    match reference:
        case ExecReference() | Pkcs11Reference() | AttestedReference():
            return True
        case VaultReference():
            return isinstance(reference.token, ExecReference)
        case AwsReference() | GcpReference():
            return isinstance(reference.credentials, ExecReference)
        case AzureReference():
            return isinstance(reference.secret, ExecReference)
        case _:
            return False


def _plain(text: str, *, forms: str) -> SecretReference:
    _demand_bounded(text)
    if text.startswith("file:"):
        return FileReference(path=_absolute(text.removeprefix("file:")))
    if text.startswith("exec:"):
        return ExecReference(words=_words(text.removeprefix("exec:")))
    if text.startswith("env:"):
        raise ConfigError(
            "reference.env",
            "a key or token never comes from the environment",
            hint=f"children and /proc show it; {forms}",
        )
    if _SCHEME.match(text):
        raise ConfigError("reference.scheme", "this kind of reference is not known", hint=forms)
    raise ConfigError("reference.literal", "this is no reference to a key or secret", hint=forms)


def _words(command: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError:
        words = ()
    if not words or len(words) > EXEC_WORDS_MAX:
        raise ConfigError(
            "reference.command",
            f"`exec:` takes a program with at most {EXEC_WORDS_MAX - 1} arguments, quotes closed",
        )
    return (_absolute(words[0]), *words[1:])


def _pkcs11(text: str) -> Pkcs11Reference:
    path, _, query = text.partition("?")
    names = _fields(path, ";", ("token", "object", "type"))
    options = _fields(query, "&", ("module-path", "pin-source"))
    if names.get("type", "secret-key") != "secret-key":
        raise ConfigError("reference.option", "a key in an HSM is of type=secret-key")
    return Pkcs11Reference(
        token=_given(names, "token"),
        label=_given(names, "object"),
        library=_absolute(_given(options, "module-path")),
        pin=parsed_secret_reference(_given(options, "pin-source")),
    )


def _vault(text: str) -> VaultReference:
    address, query = _split(text)
    found = _VAULT.fullmatch(address)
    if found is None:
        raise ConfigError(
            "reference.form",
            "this does not name a key of Vault",
            hint="kms:vault:https://HOST:8200/transit/keys/NAME?token=file:/path",
        )
    options = _fields(query, "&", ("token", "ca", "namespace"))
    return VaultReference(
        address=found[1],
        mount=found[2],
        key=found[3],
        token=parsed_secret_reference(_given(options, "token")),
        ca=_ca(options),
        namespace=options.get("namespace", ""),
    )


def _aws(text: str) -> AwsReference:
    arn, query = _split(text)
    found = _ARN.fullmatch(arn)
    options = _fields(query, "&", ("credentials", "region", "endpoint", "ca"))
    region = options.get("region", found[1] if found else "")
    if found is None or _REGION.fullmatch(region) is None:
        raise ConfigError(
            "reference.form",
            "this does not name a key of AWS KMS",
            hint="kms:aws:arn:aws:kms:REGION:ACCOUNT:key/ID",
        )
    return AwsReference(
        arn=arn,
        region=region,
        endpoint=_https(options.get("endpoint", "")),
        ca=_ca(options),
        credentials=_secret_in(options, "credentials"),
    )


def _gcp(text: str) -> GcpReference:
    key, query = _split(text)
    if _GCP.fullmatch(key) is None:
        raise ConfigError(
            "reference.form",
            "this does not name a key of Google Cloud KMS",
            hint="kms:gcp:projects/P/locations/L/keyRings/R/cryptoKeys/K",
        )
    options = _fields(query, "&", ("credentials", "endpoint", "ca"))
    return GcpReference(
        key=key,
        endpoint=_https(options.get("endpoint", GcpReference(key=key).endpoint)),
        ca=_ca(options),
        credentials=_secret_in(options, "credentials"),
    )


def _azure(text: str) -> AzureReference:
    key, query = _split(text)
    if _AZURE.fullmatch(key) is None:
        raise ConfigError(
            "reference.form",
            "this does not name one version of a key in Azure Key Vault",
            hint="kms:azure:https://NAME.vault.azure.net/keys/KEY/VERSION",
        )
    options = _fields(query, "&", ("tenant", "client", "secret", "authority", "ca"))
    secret = _secret_in(options, "secret")
    if secret is not None and not (options.get("tenant") and options.get("client")):
        raise ConfigError("reference.option", "`secret` needs `tenant` and `client` beside it")
    return AzureReference(
        key=key,
        ca=_ca(options),
        tenant=options.get("tenant", ""),
        client=options.get("client", ""),
        authority=_https(options.get("authority", "")),
        secret=secret,
    )


_SERVICES: dict[str, Callable[[str], KeyReference]] = {
    "pkcs11": _pkcs11,
    "vault": _vault,
    "aws": _aws,
    "gcp": _gcp,
    "azure": _azure,
}


def _demand_bounded(text: str) -> None:
    if len(text) > REFERENCE_CHARS_MAX or _CONTROL.search(text):
        raise ConfigError(
            "reference.size",
            f"a reference is one line of at most {REFERENCE_CHARS_MAX} printable characters",
        )


def _split(text: str) -> tuple[str, str]:
    head, _, query = text.partition("?")
    return head, query


def _fields(text: str, separator: str, known: tuple[str, ...]) -> dict[str, str]:
    """`a=1;b=2` as a map: known names only, each once, values decoded and not empty."""
    found: dict[str, str] = {}
    for part in text.split(separator) if text else ():
        name, _, value = part.partition("=")
        if name not in known or name in found or not value:
            raise ConfigError(
                "reference.option",
                "a reference has an option that is unknown, repeated or empty",
                hint=f"known here are {', '.join(known)}",
            )
        found[name] = _decoded(value)
    return found


def _decoded(value: str) -> str:
    try:
        decoded = unquote(value, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if _BAD_ESCAPE.search(value) or _CONTROL.search(decoded):
        raise ConfigError(
            "reference.escape", "a reference is percent-encoded UTF-8 without control characters"
        )
    return decoded


def _given(options: dict[str, str], name: str) -> str:
    value = options.get(name)
    if value is None:
        raise ConfigError("reference.option", f"this reference needs `{name}=`")
    return value


def _secret_in(options: dict[str, str], name: str) -> SecretReference | None:
    return parsed_secret_reference(options[name]) if name in options else None


def _ca(options: dict[str, str]) -> str:
    return _absolute(options["ca"]) if "ca" in options else ""


def _absolute(path: str) -> str:
    if not path.startswith("/") or path.startswith("//"):
        raise ConfigError(
            "reference.path",
            "a path in a reference is absolute",
            hint="write it out from the root: file:/etc/modelkeep/key",
        )
    return path


def _https(address: str) -> str:
    if address and _HTTPS.fullmatch(address) is None:
        raise ConfigError("reference.address", "an address is https://HOST or https://HOST:PORT")
    return address.rstrip("/")
