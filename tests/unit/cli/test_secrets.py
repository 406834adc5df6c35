"""A passphrase comes from a file, a descriptor or a prompt; never from argv or the environment."""

import argparse
import os

import pytest

from modelkeep.cli.parser import parser
from modelkeep.cli.secrets import passphrase_of
from modelkeep.core.errors import UsageError
from modelkeep.core.limits import PASSPHRASE_BYTES_MAX


def options(file=None, fd=None):
    return argparse.Namespace(passphrase_file=file, passphrase_fd=fd)


def descriptor(raw):
    reading, writing = os.pipe()
    os.write(writing, raw)
    os.close(writing)
    return reading


def refused(*, confirm=False, **where):
    with pytest.raises(UsageError) as found:
        passphrase_of(options(**where), confirm=confirm)
    return found.value.code


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
def test_a_file_or_a_descriptor_gives_it_without_its_line_end(tmp_path, ending):
    (tmp_path / "secret").write_bytes(b" spaces stay " + ending)
    for where in ({"file": tmp_path / "secret"}, {"fd": descriptor(b" spaces stay " + ending)}):
        assert passphrase_of(options(**where)).reveal() == b" spaces stay "


def test_bytes_that_are_no_text_are_a_passphrase_too(tmp_path):
    (tmp_path / "secret").write_bytes(b"\xff\xfe\x00binary")
    assert passphrase_of(options(file=tmp_path / "secret")).reveal() == b"\xff\xfe\x00binary"


def test_a_file_that_is_missing_or_a_folder_is_a_usage_error(tmp_path):
    assert refused(file=tmp_path / "no") == "passphrase.file"
    assert refused(file=tmp_path) == "passphrase.file"


def test_a_descriptor_that_is_not_open_is_a_usage_error():
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    assert refused(fd=reading) == "passphrase.fd"


def test_without_anybody_to_ask_it_is_a_usage_error_that_says_what_to_give(monkeypatch, tmp_path):
    (tmp_path / "nobody").write_bytes(b"")
    with (tmp_path / "nobody").open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        assert refused() == "passphrase.none"


def test_the_environment_is_not_asked(monkeypatch, tmp_path):
    (tmp_path / "nobody").write_bytes(b"")
    for name in ("MODELKEEP_PASSPHRASE", "PASSPHRASE", "MODELKEEP_PASSPHRASE_FILE"):
        monkeypatch.setenv(name, "a passphrase")
    with (tmp_path / "nobody").open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        assert refused() == "passphrase.none"


@pytest.mark.parametrize("option", ["--passphrase", "--passphrase-env"])
def test_there_is_no_option_for_the_passphrase_itself(option, capsys):
    """`--passphrase secret` must not be taken for a prefix of `--passphrase-file` either."""
    with pytest.raises(SystemExit):
        parser().parse_args(["models", option, "a passphrase"])
    capsys.readouterr()


def test_length_is_bounded_at_both_ends(tmp_path):
    for length, confirm, fine in (
        (1, False, True),
        (0, False, False),
        (8, True, True),
        (7, True, False),
        (PASSPHRASE_BYTES_MAX, True, True),
        (PASSPHRASE_BYTES_MAX + 1, False, False),
    ):
        (tmp_path / "secret").write_bytes(b"x" * length + b"\r\n")
        for where in ({"file": tmp_path / "secret"}, {"fd": descriptor(b"x" * length + b"\r\n")}):
            if fine:
                assert len(passphrase_of(options(**where), confirm=confirm)) == length
            else:
                assert refused(**where, confirm=confirm) == "passphrase.length"


def test_a_file_without_end_is_not_read_to_its_end():
    """`--passphrase-file /dev/zero` must not eat the machine."""
    with open("/dev/zero", "rb") as zeros:  # noqa: PTH123 - its descriptor is what matters
        assert refused(fd=os.dup(zeros.fileno())) == "passphrase.length"
