"""A protected file as a KeySource: the contract of its port, and who else must not read it."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.adapters.keysource_file import (
    SECRET_FILE_BYTES_MAX,
    FileSource,
    acl_admits_only,
    new_key_file,
    protected_bytes,
    secret_from_file,
)
from modelkeep.core.errors import (
    IntegrityError,
    KeepError,
    MissingError,
    RefusedError,
    UsageError,
)
from modelkeep.crypto.secret import Secret
from modelkeep.testing.keysource_contract import KEY, KeySourceContract, everything_said
from modelkeep.testing.memory import SeededEntropy

ENTROPY = SeededEntropy()


class TestFileSource(KeySourceContract):
    @pytest.fixture
    def sources(self, tmp_path):
        for name in ("key", "other"):
            new_key_file(str(tmp_path / name), entropy=ENTROPY)

        def source(*, other=False):
            return FileSource(str(tmp_path / ("other" if other else "key")), entropy=ENTROPY)

        return source


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "key"
    new_key_file(str(path), entropy=ENTROPY)
    return path


def refusal(path, error=RefusedError):
    content = path.read_bytes().strip() if path.is_file() else b""
    with pytest.raises(error) as refused:
        FileSource(str(path), entropy=ENTROPY).wrap(KEY)
    assert len(content) < 8 or content[:32] not in everything_said(refused.value)
    return refused.value.code


def test_a_new_key_is_for_us_only_and_never_over_another(path):
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes()) == 65
    before = path.read_bytes()
    with pytest.raises(UsageError) as refused:
        new_key_file(str(path), entropy=ENTROPY)
    assert refused.value.code == "keysource.exists"
    assert path.read_bytes() == before


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_no_umask_makes_a_new_key_readable(tmp_path, umask):
    before = os.umask(umask)
    try:
        new_key_file(str(tmp_path / "key"), entropy=ENTROPY)
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o620, 0o602, 0o601, 0o610, 0o666])
def test_a_file_that_others_could_read_or_change_is_refused(path, mode):
    path.chmod(mode)
    assert refusal(path) == "keysource.exposed"


def test_a_file_that_only_we_may_read_is_enough(path):
    path.chmod(0o400)
    assert FileSource(str(path), entropy=ENTROPY).wrap(KEY)


def test_a_symbolic_link_is_refused_even_to_a_good_file(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    assert refusal(tmp_path / "link") == "keysource.exposed"


def test_a_link_in_the_way_is_followed(path, tmp_path):
    """As orchestrators mount secrets: `..data/key` below a folder that is a link."""
    (tmp_path / "..data").symlink_to(path.parent)
    assert protected_bytes(str(tmp_path / "..data" / "key")) == path.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_refused(path):
    os.chown(path, 12345, -1)
    assert refusal(path) == "keysource.exposed"


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("pipe", "folder"):
        assert refusal(tmp_path / name) == "keysource.exposed"


def test_a_missing_file_is_missing(tmp_path, path):
    assert refusal(tmp_path / "none", MissingError) == "keysource.missing"
    assert refusal(path / "below-a-file", MissingError) == "keysource.missing"


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"ab" * 31, b"ab" * 33, b"ab" * 31 + b"zz", b"ab" * 32 + b"\n\n", b"\0" * 32],
)
def test_what_is_not_64_hex_digits_is_no_key(path, content):
    path.write_bytes(content)
    assert refusal(path, IntegrityError) == "keysource.key"


def test_a_file_that_is_too_long_is_not_read_whole(path):
    path.write_bytes(b"x" * SECRET_FILE_BYTES_MAX)
    assert len(protected_bytes(str(path))) == SECRET_FILE_BYTES_MAX
    path.write_bytes(b"x" * (SECRET_FILE_BYTES_MAX + 1))
    assert refusal(path) == "keysource.exposed"


def test_a_file_swapped_after_it_was_opened_changes_nothing(path, monkeypatch):
    """No time between check and use: what is checked is what is read."""
    good = path.read_bytes()
    real = os.fstat

    def swapping(fd):
        facts = real(fd)
        path.unlink(missing_ok=True)
        path.write_bytes(b"evil")
        return facts

    monkeypatch.setattr(os, "fstat", swapping)
    assert protected_bytes(str(path)) == good


def test_no_descriptor_is_left_open(path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    protected_bytes(str(path))
    path.chmod(0o644)
    with pytest.raises(RefusedError):
        protected_bytes(str(path))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"1234\n", b"1234"), (b"1234", b"1234"), (b"a b\r\n", b"a b"), (b'{\n "a": 1\n}\n', None)],
)
def test_a_secret_is_its_text_without_the_line_end(path, content, text):
    path.write_bytes(content)
    assert secret_from_file(str(path)) == Secret(text or content.removesuffix(b"\n"))


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"a\0b", b"\x1b[0m"])
def test_what_is_no_text_is_no_secret(path, content):
    path.write_bytes(content)
    with pytest.raises(IntegrityError) as refused:
        secret_from_file(str(path))
    assert refused.value.code == "keysource.secret"


# ---- access lists, as systemd gives credentials to services ----------------------------------

OWNER, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
UNNAMED = 0xFFFFFFFF


def acl(*entries):
    packed = [struct.pack("<HHI", *each) for each in entries]
    return struct.pack("<I", 2) + b"".join(packed)


def granted(user):
    """Owner and one named user may read, nobody else: mode 0440 in `ls`."""
    return acl(
        (OWNER, 4, UNNAMED), (USER, 4, user), (GROUP_OBJ, 0, UNNAMED), (MASK, 4, UNNAMED),
        (OTHER, 0, UNNAMED),
    )  # fmt: skip


def test_an_access_list_may_name_us_and_root_only():
    assert acl_admits_only(granted(1000), frozenset({0, 1000}))
    assert not acl_admits_only(granted(1001), frozenset({0, 1000}))
    for tag, number in ((GROUP_OBJ, UNNAMED), (GROUP, 5), (OTHER, UNNAMED)):
        assert not acl_admits_only(acl((OWNER, 6, UNNAMED), (tag, 4, number)), frozenset({0}))
    for cut in range(len(granted(0))):
        assert not acl_admits_only(granted(0)[:cut], frozenset({0})) or (cut - 4) % 8 == 0


@given(st.binary(max_size=80))
def test_any_bytes_for_an_access_list_are_judged(raw):
    assert acl_admits_only(raw, frozenset({0})) in (True, False)


def test_a_credential_that_a_list_opens_to_us_is_read(path):
    try:
        os.setxattr(path, "system.posix_acl_access", granted(os.geteuid()))
    except OSError as error:
        pytest.skip(f"this file system has no access lists: {error}")
    assert path.stat().st_mode & 0o777 == 0o440
    assert FileSource(str(path), entropy=ENTROPY).wrap(KEY)
    os.setxattr(path, "system.posix_acl_access", granted(4242))
    assert refusal(path) == "keysource.exposed"


def test_a_file_and_a_program_with_one_key_do_not_open_each_others_bytes(path):
    from modelkeep.adapters.keysource_exec import ExecSource  # noqa: PLC0415

    file, program = (
        FileSource(str(path), entropy=ENTROPY),
        ExecSource(("/bin/cat", str(path)), entropy=ENTROPY),
    )
    for maker, taker in ((file, program), (program, file)):
        wrapped = maker.wrap(KEY)
        with pytest.raises(IntegrityError) as refused:
            taker.unwrap(wrapped)
        assert refused.value.code == "keysource.kind"
        relabelled = wrapped.replace(f'"{maker.kind}"'.encode(), f'"{taker.kind}"'.encode())
        with pytest.raises(KeepError) as refused:
            taker.unwrap(relabelled)
        assert refused.value.code == "keys.source"
