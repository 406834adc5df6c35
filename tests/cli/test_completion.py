"""`modelkeep completion`: a script that the shell itself accepts."""

import shutil
import subprocess

import pytest
from command import modelkeep

from modelkeep.cli.parser import VERBS


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_every_shell_gets_every_verb(shell):
    script = modelkeep("completion", shell).out
    assert not [verb.name for verb in VERBS if verb.name.split()[0] not in script]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_accepts_its_script():
    script = modelkeep("completion", "bash").out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)  # noqa: S607


def test_another_shell_is_a_usage_error():
    modelkeep("completion", "fish", wanted=2)
