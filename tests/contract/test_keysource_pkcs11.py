"""An HSM as a KeySource, for real: SoftHSM 2 behind PKCS#11, in a token of this test's own."""

import base64
import json
import os
import shutil
import subprocess
import threading
import warnings
from pathlib import Path

import pytest

from modelkeep.adapters.keysources import new_key, opened_source
from modelkeep.core.errors import IntegrityError, MissingError, RefusedError, UsageError
from modelkeep.core.reference import parsed_reference
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.wrapped_key import label_of
from modelkeep.testing.keysource_contract import KEY, RAW, KeySourceContract, everything_said
from modelkeep.testing.memory import SeededEntropy

LIBRARY = Path("/usr/lib/softhsm/libsofthsm2.so")
NAME = "keep"
PIN = "7391-canary-pin"
ENTROPY = SeededEntropy()

pytestmark = pytest.mark.skipif(
    not LIBRARY.exists() or shutil.which("softhsm2-util") is None,
    reason="SoftHSM 2 is not installed (Debian: apt install softhsm2)",
)


class Token:
    """A token folder of its own; SoftHSM finds it by its configuration's path."""

    def __init__(self, folder, monkeypatch):
        (folder / "tokens").mkdir()
        self.pin_file = folder / "pin"
        self.pin_file.write_text(PIN + "\n")
        self.pin_file.chmod(0o600)
        config = folder / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
        monkeypatch.setenv("SOFTHSM2_CONF", str(config))
        words = ["--init-token", "--free", "--label", "keep", "--so-pin", "0000", "--pin", PIN]
        subprocess.run(["softhsm2-util", *words], check=True, capture_output=True)  # noqa: S607

    def reference(self, label="root", *, name="keep", library=LIBRARY, pin=None):
        return (
            f"kms:pkcs11:token={name};object={label}"
            f"?module-path={library}&pin-source=file:{pin or self.pin_file}"
        )

    def source(self, label="root", **options):
        return opened_source(
            self.reference(label, **options),
            passphrase=None,
            entropy=ENTROPY,
            argon2=Argon2Settings(),
        )

    def tool(self, *words):
        """OpenSC's own tool, logged in as we do."""
        command = ["pkcs11-tool", "--module", str(LIBRARY), "--token-label", "keep"]
        return subprocess.run(
            [*command, "--login", "--pin", PIN, *words], capture_output=True, text=True, check=False
        )


@pytest.fixture
def token(tmp_path, monkeypatch):
    return Token(tmp_path, monkeypatch)


@pytest.fixture
def source(token):
    new_key(token.reference(), entropy=ENTROPY)
    return token.source()


class TestPkcs11Source(KeySourceContract):
    @pytest.fixture
    def sources(self, token):
        for label in ("root", "other"):
            new_key(token.reference(label), entropy=ENTROPY)
        return lambda *, other=False: token.source("other" if other else "root")

    @pytest.fixture
    def unavailable(self, token, tmp_path):
        return token.source(library=tmp_path / "gone.so")


def refused(work, error=RefusedError):
    with pytest.raises(error) as refusal:
        work()
    said = everything_said(refusal.value)
    assert PIN.encode() not in said
    assert RAW.hex().encode() not in said
    return refusal.value.code


def test_the_key_cannot_be_taken_out_of_the_token(source):
    """Asked through the library that we use, with the user logged in, in every way it offers."""
    import pkcs11  # noqa: PLC0415
    from pkcs11 import Attribute, Mechanism, ObjectClass  # noqa: PLC0415

    assert source.unwrap(source.wrap(KEY)) == KEY
    library = pkcs11.lib(str(LIBRARY))
    try:
        with library.get_token(token_label=NAME).open(rw=True, user_pin=PIN) as session:
            key = session.get_key(object_class=ObjectClass.SECRET_KEY, label="root")
            facts = (Attribute.SENSITIVE, Attribute.ALWAYS_SENSITIVE, Attribute.NEVER_EXTRACTABLE)
            assert [key[each] for each in (*facts, Attribute.LOCAL)] == [True] * 4
            assert [key[each] for each in (Attribute.EXTRACTABLE, Attribute.MODIFIABLE)] == [
                False
            ] * 2
            with pytest.raises(pkcs11.AttributeSensitive):
                key[Attribute.VALUE]
            for attribute, value in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False)):
                with pytest.raises(pkcs11.PKCS11Error):
                    key[attribute] = value
            stranger = session.generate_key(
                pkcs11.KeyType.AES, 256, capabilities=pkcs11.MechanismFlag.WRAP
            )
            with pytest.raises(pkcs11.PKCS11Error):
                stranger.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP)
    finally:
        library.finalize()


@pytest.mark.skipif(shutil.which("pkcs11-tool") is None, reason="OpenSC is not installed")
def test_another_tool_cannot_take_it_out_either(token, source, tmp_path):
    assert source.wrap(KEY)
    listed = token.tool("--list-objects", "--type", "secrkey")
    assert "root" in listed.stdout
    assert "never extractable" in listed.stdout
    read = token.tool(
        "--read-object",
        "--type",
        "secrkey",
        "--label",
        "root",
        "--output-file",
        str(tmp_path / "x"),
    )
    assert read.returncode != 0 or not (tmp_path / "x").exists()
    assert not (tmp_path / "x").exists() or (tmp_path / "x").read_bytes() == b""


def test_a_key_that_can_be_taken_out_is_refused(token):
    import pkcs11  # noqa: PLC0415
    from pkcs11 import Attribute, KeyType  # noqa: PLC0415

    library = pkcs11.lib(str(LIBRARY))
    weak = {
        "open": (256, {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}),
        "leaky": (256, {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: True}),
        "short": (128, {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}),
    }
    try:
        with library.get_token(token_label=NAME).open(rw=True, user_pin=PIN) as session:
            for label, (bits, template) in weak.items():
                session.generate_key(KeyType.AES, bits, label=label, store=True, template=template)
    finally:
        library.finalize()
    codes = [refused(lambda label=label: token.source(label).wrap(KEY)) for label in weak]
    assert codes == ["keysource.extractable", "keysource.extractable", "keysource.weak"]


def test_a_key_is_never_made_over_another(token, source):
    wrapped = source.wrap(KEY)
    code = refused(lambda: new_key(token.reference(), entropy=ENTROPY), UsageError)
    assert code == "keysource.exists"
    assert source.unwrap(wrapped) == KEY


@pytest.mark.parametrize("wrong", [{"label": "none"}, {"name": "none"}, {"pin": "/none"}], ids=str)
@pytest.mark.usefixtures("source")
def test_a_missing_key_token_or_pin_file_is_missing(token, wrong):
    assert refused(lambda: token.source(**wrong).wrap(KEY), MissingError) == "keysource.missing"


def test_a_wrong_pin_is_refused_and_tried_once(token, source, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("1111-wrong")
    wrong.chmod(0o600)
    for _ in range(3):
        assert refused(lambda: token.source(pin=wrong).wrap(KEY)) == "keysource.forbidden"
    assert source.unwrap(source.wrap(KEY)) == KEY


def test_what_the_hsm_encrypted_for_another_purpose_does_not_open(source):
    """The same key, used by another program: with other associated data, or other words inside."""
    import pkcs11  # noqa: PLC0415

    cases = {
        "keys.source": (b"backup of another program", label_of("pkcs11") + RAW),
        "keysource.purpose": (label_of("pkcs11"), b"x" * (len(label_of("pkcs11")) + 32)),
    }
    boxes = {}
    library = pkcs11.lib(str(LIBRARY))
    try:
        with library.get_token(token_label=NAME).open(user_pin=PIN) as session:
            key = session.get_key(label="root")
            for code, (bound, plain) in cases.items():
                iv = os.urandom(12)
                boxes[code] = iv + key.encrypt(
                    plain,
                    mechanism=pkcs11.Mechanism.AES_GCM,
                    mechanism_param=pkcs11.GCMParams(iv, bound, 128),
                )
    finally:
        library.finalize()
    for code, box in boxes.items():
        wrapped = f'{{"kind":"pkcs11","box":"{base64.b64encode(box).decode()}"}}'.encode()
        assert (
            refused(lambda raw=wrapped: source.unwrap(raw), (RefusedError, IntegrityError)) == code
        )


def test_a_fresh_iv_stands_in_every_wrapped_key(source):
    boxes = [base64.b64decode(json.loads(source.wrap(KEY))["box"]) for _ in range(20)]
    assert len({box[:12] for box in boxes}) == 20


def test_threads_share_the_library_one_after_the_other(source):
    wrapped = source.wrap(KEY)
    opened = []
    threads = [
        threading.Thread(target=lambda: opened.append(source.unwrap(wrapped) == KEY))
        for _ in range(4)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert opened == [True] * 4


def test_a_process_forked_after_a_use_can_use_it_too(source):
    wrapped = source.wrap(KEY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests' threads may be around
        child = os.fork()
    if child == 0:
        os._exit(0 if source.unwrap(wrapped) == KEY else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert source.unwrap(wrapped) == KEY


def test_the_pin_stands_in_no_repr(source):
    source.wrap(KEY)
    assert PIN not in repr(source) + repr(vars(source))


def test_the_reference_is_the_one_that_the_guide_shows(token):
    reference = parsed_reference(token.reference())
    assert (reference.token, reference.label) == ("keep", "root")
