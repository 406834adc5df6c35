"""A reference says where a secret lies; what is no reference is refused and never repeated."""

import contextlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import ConfigError
from modelkeep.core.reference import (
    EXEC_WORDS_MAX,
    REFERENCE_CHARS_MAX,
    AwsReference,
    AzureReference,
    ExecReference,
    FileReference,
    GcpReference,
    PassphraseReference,
    Pkcs11Reference,
    VaultReference,
    executes,
    parsed_reference,
    parsed_secret_reference,
)

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
GCP = "projects/p1/locations/europe-west3/keyRings/ring/cryptoKeys/keep"
AZURE = "https://corp.vault.azure.net/keys/keep/0123456789abcdef0123456789abcdef"
VAULT = "https://vault.corp:8200/transit/keys/keep"
PIN = FileReference(path="/etc/pin")
LABEL = "HSM 1"

READ = {
    "passphrase": PassphraseReference(),
    "file:/etc/keep/key": FileReference(path="/etc/keep/key"),
    "file:/odd ?&%2f name": FileReference(path="/odd ?&%2f name"),
    "exec:/usr/bin/pass show 'my key'": ExecReference(words=("/usr/bin/pass", "show", "my key")),
    "kms:pkcs11:token=HSM%201;object=k;type=secret-key?module-path=/l&pin-source=file:/etc/pin": (
        Pkcs11Reference(label="k", library="/l", pin=PIN, token=LABEL)
    ),
    "kms:pkcs11:object=a;token=HSM%201?pin-source=exec:/bin/pin%20-q&module-path=/l.so": (
        Pkcs11Reference(
            label="a",
            library="/l.so",
            pin=ExecReference(words=("/bin/pin", "-q")),
            token=LABEL,
        )
    ),
    f"kms:vault:{VAULT}?token=file:/etc/pin": VaultReference(
        address="https://vault.corp:8200", mount="transit", key="keep", token=PIN
    ),
    "kms:vault:https://[::1]/a/b/keys/k?token=file:/etc/pin&ca=/ca.pem&namespace=n%2Fm": (
        VaultReference(
            address="https://[::1]", mount="a/b", key="k", token=PIN, ca="/ca.pem", namespace="n/m"
        )
    ),
    f"kms:aws:{ARN}": AwsReference(arn=ARN, region="eu-central-1"),
    f"kms:aws:{ARN}?region=eu-west-1&endpoint=https://kms.local:44/": AwsReference(
        arn=ARN, region="eu-west-1", endpoint="https://kms.local:44"
    ),
    f"kms:gcp:{GCP}?credentials=file:/etc/pin": GcpReference(key=GCP, credentials=PIN),
    f"kms:azure:{AZURE}": AzureReference(key=AZURE),
    f"kms:azure:{AZURE}?tenant=t&client=c&secret=file:/etc/pin": AzureReference(
        key=AZURE, tenant="t", client="c", secret=PIN
    ),
}

REFUSED = {
    "": "reference.literal",
    "correct horse battery": "reference.literal",
    "c0ffee" * 10: "reference.literal",
    "/etc/key": "reference.literal",
    "Passphrase": "reference.literal",
    "passphrase ": "reference.literal",
    "env:MODELKEEP_KEY": "reference.env",
    "https://x/key": "reference.scheme",
    "hunter2:hunter2": "reference.scheme",
    "file:": "reference.path",
    "file:key": "reference.path",
    "file:~/key": "reference.path",
    "file:///etc/key": "reference.path",
    "file:/etc/\nkey": "reference.size",
    "file:/" + "x" * REFERENCE_CHARS_MAX: "reference.size",
    "exec:": "reference.command",
    "exec:'/bin/open": "reference.command",
    "exec:" + "/bin/x " * (EXEC_WORDS_MAX + 1): "reference.command",
    "exec:pass show": "reference.path",
    "exec:./pass": "reference.path",
    "kms:": "reference.service",
    "kms:ibm:x": "reference.service",
    "kms:pkcs11:": "reference.option",
    "kms:pkcs11:token=a;object=b?module-path=/l.so": "reference.option",
    "kms:pkcs11:token=a;object=b?module-path=/l.so&pin-value=1234": "reference.option",
    "kms:pkcs11:token=a;object=b?module-path=/l.so&pin-source=1234": "reference.literal",
    "kms:pkcs11:token=a;object=b?module-path=/l.so&pin-source=env:PIN": "reference.env",
    "kms:pkcs11:token=a;object=b?module-path=l.so&pin-source=file:/p": "reference.path",
    "kms:pkcs11:token=a;token=b;object=c?module-path=/l&pin-source=file:/p": "reference.option",
    "kms:pkcs11:token=%zz;object=b?module-path=/l&pin-source=file:/p": "reference.escape",
    "kms:pkcs11:token=%00;object=b?module-path=/l&pin-source=file:/p": "reference.escape",
    "kms:pkcs11:token=%ff;object=b?module-path=/l&pin-source=file:/p": "reference.escape",
    "kms:pkcs11:type=cert;token=a;object=b?module-path=/l&pin-source=file:/p": "reference.option",
    f"kms:vault:{VAULT}": "reference.option",
    f"kms:vault:{VAULT}?token=hvs.CAESIJ": "reference.literal",
    f"kms:vault:{VAULT}?token=file:/t&token=file:/u": "reference.option",
    "kms:vault:http://vault.corp:8200/transit/keys/k?token=file:/t": "reference.form",
    "kms:vault:https://user@vault/transit/keys/k?token=file:/t": "reference.form",
    "kms:vault:https://vault/transit/../keys/k?token=file:/t": "reference.form",
    "kms:vault:https://vault/transit/keys/..?token=file:/t": "reference.form",
    f"kms:aws:{ARN}?endpoint=http://localhost": "reference.address",
    f"kms:aws:{ARN}?endpoint=https://a/b": "reference.address",
    f"kms:aws:{ARN}?region=Mars": "reference.form",
    f"kms:aws:{ARN}?credentials=AKIA:secret": "reference.literal",
    "kms:aws:alias/keep": "reference.form",
    "kms:gcp:projects/p/locations/l/keyRings/../cryptoKeys/k": "reference.form",
    "kms:azure:https://corp.vault.azure.net/keys/keep": "reference.form",
    f"kms:azure:{AZURE}?secret=file:/s": "reference.option",
    f"kms:azure:{AZURE}?unknown=1": "reference.option",
}


@pytest.mark.parametrize("text", READ)
def test_a_reference_is_read(text):
    assert parsed_reference(text) == READ[text]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:60])
def test_what_is_no_reference_is_refused_with_its_reason(text):
    with pytest.raises(ConfigError) as refused:
        parsed_reference(text)
    assert refused.value.code == REFUSED[text]
    said = str(refused.value.as_facts())
    for secret in ("hunter2", "horse", "c0ffee", "1234", "hvs.", "AKIA"):
        assert secret not in said


def test_the_advice_names_what_may_be_written():
    for text in ("letmein", "env:KEY", "vault:x"):
        with pytest.raises(ConfigError) as refused:
            parsed_reference(text)
        assert "`file:/" in refused.value.hint


def test_the_bound_is_the_bound():
    longest = "file:/" + "x" * (REFERENCE_CHARS_MAX - 6)
    assert parsed_reference(longest)
    with pytest.raises(ConfigError):
        parsed_reference(longest + "x")
    most = "exec:" + " ".join(["/bin/x"] * EXEC_WORDS_MAX)
    assert len(parsed_secret_reference(most).words) == EXEC_WORDS_MAX


def test_a_secret_is_a_file_or_a_program_and_nothing_else():
    assert parsed_secret_reference("file:/a") == FileReference(path="/a")
    for text in ("passphrase", f"kms:aws:{ARN}", "env:X", "abc"):
        with pytest.raises(ConfigError):
            parsed_secret_reference(text)


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("passphrase", False),
        ("file:/a", False),
        ("exec:/a", True),
        ("kms:pkcs11:token=a;object=b?module-path=/l.so&pin-source=file:/p", True),
        (f"kms:vault:{VAULT}?token=file:/t", False),
        (f"kms:vault:{VAULT}?token=exec:/t", True),
        (f"kms:aws:{ARN}", False),
        (f"kms:aws:{ARN}?credentials=exec:/t", True),
        (f"kms:gcp:{GCP}?credentials=exec:/t", True),
        (f"kms:azure:{AZURE}?tenant=t&client=c&secret=exec:/t", True),
        (f"kms:azure:{AZURE}", False),
    ],
)
def test_it_says_which_references_run_something(text, runs):
    """A library is loaded and run too: `module-path` is as dangerous as `exec:`."""
    assert executes(parsed_reference(text)) is runs


pieces = st.sampled_from(
    ["passphrase", "file:", "exec:", "kms:", "pkcs11:", "vault:", "aws:", "gcp:", "azure:", "env:",
     "https://", "/transit/keys/k", "/", "?", "&", ";", "=", "%", "%41", "%00", "token", "object",
     "module-path", "pin-source", "ca", "'", "\\", " ", "\n", "\0", "é", "\ud800", "[::1]", ARN,
     GCP, AZURE, "a", ".."]
)  # fmt: skip


@pytest.mark.verify("keys")
@given(st.one_of(st.text(max_size=200), st.lists(pieces, max_size=14).map("".join)))
def test_any_text_is_a_reference_or_a_config_error(text):
    with contextlib.suppress(ConfigError):
        executes(parsed_reference(text))
        assert len(text) <= REFERENCE_CHARS_MAX


plain = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=40
)


@given(plain, plain, plain, plain)
def test_whatever_is_percent_encoded_comes_back(token, label, library, pin):
    text = (
        f"kms:pkcs11:token={quote(token, safe='')};object={quote(label, safe='')}"
        f"?module-path=/{quote('x' + library, safe='/')}&pin-source=file:/x{quote(pin, safe='')}"
    )
    assert parsed_reference(text) == Pkcs11Reference(
        token=token, label=label, library="/x" + library, pin=FileReference(path="/x" + pin)
    )
