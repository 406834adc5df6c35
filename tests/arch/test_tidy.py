"""Tests for the code itself: what linters cannot see."""

from __future__ import annotations

import ast
import re

import pytest

from modelkeep.config import explained
from scripts import reference
from tests.arch.source import PACKAGE, ROOT, called_name, functions, imported, modules

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
# What is longer today, with its length: it may shrink (lower the number) and never grow.
LONGER_FUNCTIONS: dict[str, int] = {}
LONGER_FILES: dict[str, int] = {}

# Counted things may be units of gauges; Prometheus' own are in base units.
UNITS = frozenset(
    {"total", "seconds", "bytes", "ratio", "info", "calls", "connections", "replicas"}
)

BANNED_WORDS = frozenset({"util", "utils", "manager", "helper", "helpers", "handler", "common"})

# Where a process or a worker's loop must turn whatever comes into an answer, an exit status or a
# log line, with what it does there.
PROCESS_BOUNDARIES = {
    "adapters/call_journal.py": "fails every call of a batch that could not be written",
    "adapters/jwks_fetch.py": "one issuer's answer must not end the thread that asks all of them",
    "cli/demo_acts.py": "whatever onnxruntime raises, it did not load the file",
    "cli/demo_disaster.py": "counts every failed call, whatever failed it",
    "cli/main.py": "says that this is a bug, with the traceback; exit status 70",
    "sdk/requirement.py": "throws what is thrown at a generator to the function behind it",
    "workers/converter.py": "whatever a library raises, it did not convert the model",
    "workers/keyholder.py": "a traceback may quote secrets: its type is said, no more",
    "workers/scanner.py": "a child's end: whatever ended it denies its file",
    "workers/trial.py": "a child's end: whatever ended it fails its model",
    "workers/upstream.py": "one call that fails by our fault fails alone",
    "workers/publishing.py": "a store's thread says what failed and goes on",
    "web/grpc_methods.py": "answers INTERNAL where the gateway itself is wrong",
    "web/http1.py": "answers 500 where the gateway itself is wrong",
}

# Every file that may take the bytes out of a Secret, with its reason.
MAY_REVEAL = {
    "adapters/age_files.py": "hands age identities to the library",
    "adapters/attestor_software.py": "writes a new attestation key into its protected file",
    "adapters/evidence_eat.py": "signs evidence with the attestation key",
    "adapters/jwt_joserfc.py": "signs the tokens that passwords are given",
    "adapters/keyholder_process.py": "sends what opens the root to the keyholder",
    "adapters/keysource_aws.py": "signs in with the credentials of the reference",
    "adapters/keysource_azure.py": "signs in with the principal's secret",
    "adapters/keysource_file.py": "writes a new key into its protected file",
    "adapters/keysource_gcp.py": "signs tokens with the service account's key",
    "adapters/keysource_passphrase.py": "wraps the root under the passphrase's key",
    "adapters/keysource_pkcs11.py": "logs in to the token with its PIN",
    "adapters/keysource_vault.py": "sends the token to Vault",
    "adapters/limiter_redis.py": "logs in to Redis",
    "adapters/load_proofs_folder.py": "names what this host has proven",
    "adapters/shares_slip39.py": "splits a recovery key into words",
    "adapters/state_postgres.py": "gives libpq the database's password",
    "adapters/store_object.py": "signs in to the bucket with the credentials of the reference",
    "adapters/store_sftp.py": "logs in with the private key of the reference",
    "adapters/text_watermark.py": "makes the key of a text mark",
    "adapters/upstream_http.py": "sends the key to the server behind a model",
    "cli/access.py": "shows a new API key, once",
    "crypto/aead.py": "keys AES-GCM",
    "crypto/certificates.py": "loads the keys that certificates are signed with",
    "crypto/client_certificates.py": "loads the authority's key, hands out a new one",
    "crypto/columns.py": "keys AES-SIV",
    "crypto/ec_signatures.py": "makes the key of model signatures",
    "crypto/kdf.py": "derives keys from keys",
    "crypto/key_files.py": "reads and writes identity files",
    "crypto/keytext.py": "spells and reads secret keys",
    "crypto/link_certificates.py": "loads the authority's key, to certify services and hosts",
    "crypto/locks.py": "seals the file key under a passphrase",
    "crypto/recipients.py": "expands an identity, seals a key to a recipient",
    "crypto/rsa_keys.py": "loads RSA keys, encrypts a key to them",
    "crypto/sealed_file.py": "keys the header's MAC, writes the commitment",
    "crypto/signatures.py": "keys Ed25519",
    "crypto/wrapped_key.py": "labels a key that a source is about to wrap",
    "flows/accounts.py": "keys what is remembered of passwords",
    "flows/approvals.py": "checks an approver's API key",
    "flows/carry.py": "keys the digests of tensor layouts",
    "flows/create.py": "puts the authority's key into the keyring",
    "flows/deposit.py": "keys the digests of tensor layouts",
    "flows/keys.py": "hands a new passphrase to the keyholder",
    "flows/login.py": "salts the check of an account that does not exist",
    "flows/marking.py": "lays a mark into a model, reads it there",
    "flows/recover.py": "keys the salt of a snapshot that must come out the same twice",
    "flows/rekey.py": "keys the digests of tensor layouts",
    "flows/watermark.py": "commits to the seed of a mark; a claim shows it",
    "ledger/entry.py": "keys the commitments of entries",
    "ledger/value.py": "seals private facts under a key of their own",
    "sdk/access.py": "writes the keys of new certificates",
    "sdk/inbox.py": "writes a new client's file",
    "sdk/recovery.py": "calls the gateway with its own probe key",
    "sdk/sealing.py": "writes a new identity to its file",
    "sdk/service.py": "hands the passphrase to the supervisor through a pipe",
    "sdk/watermarks.py": "reads a mark in a suspect",
    "seal/portable.py": "a portable model's key goes to its recipients",
    "vault/check.py": "checks the chunks' ids",
    "vault/client_file.py": "reads and writes client files",
    "vault/commit.py": "keys the chunks' ids",
    "vault/load.py": "checks the chunks' ids",
    "vault/streams.py": "keys where files are cut",
    "workers/hosting.py": "hands the key that hosts are shown to its processes in a memory file",
    "workers/layout.py": "hands keys to the service's processes in memory files",
    "workers/loading.py": "hands an upstream server's key to its process in a memory file",
    "workers/ray_bridge.py": "hands a deployment's own key to its replicas",
    "workers/replica_host.py": "shows its certificate",
    "workers/server_key.py": "hands the server's key to the gateways in a memory file",
}

each_module = pytest.mark.parametrize("module", modules(), ids=str)


def inside(module) -> str:
    return module.path.relative_to(PACKAGE).as_posix()


@each_module
def test_a_module_says_its_one_responsibility_in_one_line(module):
    docstring = ast.get_docstring(module.tree)
    assert docstring, f"{module} has no docstring"
    first, _, rest = docstring.partition("\n")
    assert first.endswith((".", ":")), f"{module}: the first line is no sentence"
    assert not rest or rest.startswith("\n"), f"{module}: the first sentence takes two lines"


@each_module
def test_a_file_is_at_most_500_lines_long(module):
    length = len(module.text.splitlines())
    longer = LONGER_FILES.get(inside(module))
    assert length <= FILE_LINES_MAX if longer is None else length == longer


@each_module
def test_a_function_is_at_most_70_lines_long(module):
    lengths = {
        f"{inside(module)}:{node.name}": node.end_lineno - node.lineno + 1
        for node in functions(module)
    }
    too_long = {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES_MAX}
    known = {name: LONGER_FUNCTIONS[name] for name in lengths if name in LONGER_FUNCTIONS}
    assert too_long == known


def words(name: str) -> set[str]:
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")
    return set(parts)


@each_module
def test_no_name_is_a_word_that_says_nothing(module):
    names = [module.path.stem] + [
        node.name
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert not [name for name in names if words(name) & BANNED_WORDS]


def test_every_key_of_the_configuration_has_a_sentence():
    silent = [key.key for key in explained() if not key.meaning]
    assert not silent, f"these settings do not say what they mean: {silent}"


def test_every_error_has_a_code_that_can_be_read_here():
    unread = [f"{each.file}:{each.line}" for each in reference.raised_errors() if not each.code]
    assert not unread, f"no literal, dotted, lower-case code: {unread}"


def test_a_code_belongs_to_one_class():
    classes: dict[str, set[str]] = {}
    for each in reference.raised_errors():
        classes.setdefault(each.code, set()).add(each.error)
    assert not {code: sorted(found) for code, found in classes.items() if len(found) > 1}


def test_every_code_is_documented():
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    codes = {each.code for each in reference.raised_errors() if each.code}
    undocumented = {code for code in codes if f"`{code}`" not in page}
    assert not undocumented, "run scripts/reference.py"


def test_proof_types_are_built_only_where_they_are_proven():
    homes = {
        node.name: inside(module)
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and node.name.startswith("Verified")
    }
    strangers = [
        f"{module}:{node.lineno} builds {called_name(node)}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and called_name(node) in homes
        and inside(module) != homes[called_name(node)]
    ]
    assert homes, "no proof type is left: this test guards nothing"
    assert not strangers


def catches_everything(handler: ast.ExceptHandler) -> bool:
    if isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None:
        return False  # cleans up and raises again
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = {"Exception", "BaseException"}
    return any(each is None or (isinstance(each, ast.Name) and each.id in broad) for each in caught)


def translates(module, handler: ast.ExceptHandler) -> bool:
    """Whether an adapter turns a library's exception into ours."""
    last = handler.body[-1]
    return (
        module.name.startswith("modelkeep.adapters.")
        and isinstance(last, ast.Raise)
        and isinstance(last.exc, ast.Call)
        and last.cause is not None
        and called_name(last.exc) in reference.error_classes()
    )


def test_nobody_swallows_what_was_not_expected():
    """Only process boundaries catch everything; adapters may, to raise an error of ours."""
    found = {
        inside(module)
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler)
        and catches_everything(node)
        and not translates(module, node)
    }
    assert found == set(PROCESS_BOUNDARIES)


def test_secrets_are_revealed_only_where_it_is_listed():
    found = {
        inside(module)
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and called_name(node) == "reveal"
    }
    assert found == set(MAY_REVEAL)


def test_no_file_is_unreferenced():
    """A module is imported by another one, or named in a string.

    Processes are started by `"modelkeep.workers.gateway"`, verbs name `"lifecycle:init"`.
    """
    named: set[str] = {"modelkeep", "modelkeep.__main__"}
    scripts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    texts = [scripts, *(module.text for module in modules())]
    for module in modules():
        named |= {name for name, _ in imported(module) if name != module.name}
    for path in (ROOT / "tests").rglob("*.py"):
        named |= set(re.findall(r"modelkeep\.testing\.\w+", path.read_text(encoding="utf-8")))
    packages = {module.name for module in modules() if module.path.name == "__init__.py"}
    unreferenced = {
        module.name
        for module in modules()
        if module.name not in named | packages
        and not any(f'"{module.name}' in text for text in texts)
        and not (
            module.name.startswith("modelkeep.cli.")
            and any(f'"{module.path.stem}:' in text for text in texts)
        )
    }
    assert not unreferenced


def test_a_metric_says_its_unit():
    definitions = reference.metric_definitions()
    names = [each.name for each in definitions]
    assert len(set(names)) == len(names)
    for each in definitions:
        assert each.name.startswith("modelkeep_")
        assert each.name.rpartition("_")[2] in UNITS, f"{each.name} ends in no unit"
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert each.meaning.endswith(".")
