"""A reference opens its source; a missing extra says what to install; no library loads early."""

import subprocess
import sys

import pytest

from modelkeep.adapters.keysources import new_key, opened_source
from modelkeep.core.errors import ConfigError, UsageError
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.testing.memory import SeededEntropy

REFERENCES = {
    "passphrase": "passphrase",
    "file": "file:/etc/key",
    "exec": "exec:/bin/key",
    "pkcs11": "kms:pkcs11:token=a;object=b?module-path=/l.so&pin-source=file:/p",
    "vault": "kms:vault:https://v:8200/transit/keys/k?token=file:/t",
    "aws": "kms:aws:arn:aws:kms:eu-central-1:111122223333:key/k",
    "gcp": "kms:gcp:projects/p/locations/l1/keyRings/r/cryptoKeys/k",
    "azure": "kms:azure:https://n.vault.azure.net/keys/k/v1",
}
EXTRAS = {
    "pkcs11": ("hsm", "pkcs11"),
    "vault": ("vault", "hvac"),
    "aws": ("aws", "boto3"),
    "gcp": ("gcp", "google.auth"),
    "azure": ("azure", "azure.core"),
}


def opened(kind, passphrase=None):
    return opened_source(
        REFERENCES[kind],
        passphrase=passphrase,
        entropy=SeededEntropy(),
        argon2=Argon2Settings(),
    )


@pytest.mark.parametrize("kind", REFERENCES)
def test_each_reference_opens_its_own_source_and_touches_nothing_yet(kind):
    assert opened(kind, passphrase=Secret(b"words")).kind == kind


@pytest.mark.parametrize("kind", EXTRAS)
def test_a_missing_library_says_what_to_install(kind, monkeypatch):
    extra, library = EXTRAS[kind]
    monkeypatch.delitem(sys.modules, f"modelkeep.adapters.keysource_{kind}", raising=False)
    for name in [each for each in sys.modules if each.startswith(library)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError) as refused:
        opened(kind)
    assert refused.value.code == "extra.missing"
    assert f"pip install -e '.[{extra}]'" in refused.value.hint


def test_without_a_passphrase_there_is_nobody_to_ask():
    with pytest.raises(UsageError) as refused:
        opened("passphrase")
    assert refused.value.code == "passphrase.none"


def test_no_reference_is_a_config_error():
    for text in ("", "letmein", "env:KEY"):
        with pytest.raises(ConfigError):
            opened_source(text, passphrase=None, entropy=SeededEntropy(), argon2=Argon2Settings())


def test_a_key_is_made_for_a_file(tmp_path):
    new_key(f"file:{tmp_path}/key", entropy=SeededEntropy())
    assert len((tmp_path / "key").read_text()) == 65


@pytest.mark.parametrize("kind", ["passphrase", "exec", "vault", "aws", "gcp", "azure"])
def test_what_others_make_is_not_made_here(kind):
    with pytest.raises(UsageError) as refused:
        new_key(REFERENCES[kind], entropy=SeededEntropy())
    assert refused.value.code == "keysource.make"


def test_no_library_is_loaded_before_its_source_is_named():
    text = (
        "import sys, modelkeep.adapters.keysources; "
        "print([n for n in ('pkcs11', 'hvac', 'boto3', 'google.auth', 'azure.core', 'requests')"
        " if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True, text=True)
    assert ran.stdout.strip() == "[]"
