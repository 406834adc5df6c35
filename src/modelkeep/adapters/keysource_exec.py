"""A KeySource from a program: it prints the key, 64 hex digits, and modelkeep wraps with it.

For whatever holds secrets and has a command line: a password manager, a smart card, a cloud's
secret store. The key itself passes through our memory, unlike with an HSM or a KMS.

The program is started without a shell, in a session of its own, in `/`, with nothing on its
standard input and an environment of three variables: ours may hold what is not its business. It
has a bounded time and may print a bounded number of bytes; past either, it and its group are
killed. What it prints on standard output never reaches an error, and of standard error only one
bounded printable line without anything that could be a key.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence

from modelkeep.core.errors import MissingError, UnavailableError
from modelkeep.crypto.kdf import SALT_BYTES
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.wrapped_key import key_of_hex, opened_key, sealed_key, secret_of_text
from modelkeep.ports.entropy import Entropy

# A person may have to touch a token; a password manager may ask the network.
TIMEOUT_S = 30.0
OUTPUT_BYTES_MAX = 16 * 1024
_EXCERPT_CHARS_MAX = 160
_LONG_WORD = re.compile(r"[0-9A-Za-z+/=_.-]{20,}")


class ExecSource:
    """Runs its program each time it wraps or unwraps."""

    kind = "exec"

    def __init__(
        self, words: Sequence[str], *, entropy: Entropy, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._words = tuple(words)
        self._entropy = entropy
        self._timeout_s = timeout_s

    def wrap(self, key: Secret) -> bytes:
        salt = self._entropy.random_bytes(SALT_BYTES)
        return sealed_key(self._key(), key, kind=self.kind, salt=salt)

    def unwrap(self, wrapped: bytes) -> Secret:
        return opened_key(self._key(), wrapped, kind=self.kind)

    def _key(self) -> Secret:
        return key_of_hex(
            program_output(self._words, timeout_s=self._timeout_s),
            what=f"the output of {self._words[0]}",
        )


def secret_from_program(words: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> Secret:
    """A PIN, a token or a password that a program prints.

    Raises:
        KeepError: as `program_output`; IntegrityError `keysource.secret`.
    """
    printed = program_output(words, timeout_s=timeout_s)
    return secret_of_text(printed, what=f"the output of {words[0]}")


def program_output(words: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> bytes:
    """What a program prints on standard output.

    Raises:
        MissingError: `keysource.missing`, when there is no such program.
        UnavailableError: `keysource.unavailable`: it failed, took too long or printed too much.
    """
    deadline_s = time.monotonic() + timeout_s
    try:
        program = subprocess.Popen(  # noqa: S603 - the operator's own command, and no shell
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise MissingError("keysource.missing", f"there is no program {words[0]}") from error
    except OSError as error:
        raise UnavailableError(
            "keysource.unavailable", f"{words[0]} cannot be started: {error.strerror}"
        ) from error
    with program:
        try:
            printed, complaint = _both_outputs(program, deadline_s)
            if max(len(printed), len(complaint)) > OUTPUT_BYTES_MAX:
                raise UnavailableError("keysource.unavailable", f"{words[0]} printed too much")
            _wait(program, deadline_s)
        except TimeoutError as error:
            raise UnavailableError(
                "keysource.unavailable", f"{words[0]} took longer than {timeout_s:g} s"
            ) from error
        finally:
            _end(program)
    if program.returncode != 0:
        raise UnavailableError(
            "keysource.unavailable",
            f"{words[0]} ended with status {program.returncode}{_excerpt(complaint)}",
            hint="run it by hand as the user of the service; it must print 64 hex digits",
        )
    return printed


def _environment() -> dict[str, str]:
    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        home = "/"
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": home}


def _both_outputs(program: subprocess.Popen[bytes], deadline_s: float) -> tuple[bytes, bytes]:
    """Read both pipes to their ends, or until one holds a byte too many."""
    assert program.stdout is not None
    assert program.stderr is not None
    held = {program.stdout: b"", program.stderr: b""}
    with selectors.DefaultSelector() as selector:
        for pipe in held:
            selector.register(pipe, selectors.EVENT_READ, pipe)
        while selector.get_map():
            left_s = deadline_s - time.monotonic()
            ready = selector.select(left_s) if left_s > 0 else []
            if not ready:
                raise TimeoutError
            for each, _ in ready:
                chunk = os.read(each.fd, OUTPUT_BYTES_MAX + 1)
                held[each.data] += chunk
                if not chunk:
                    selector.unregister(each.fileobj)
                if len(held[each.data]) > OUTPUT_BYTES_MAX:
                    return held[program.stdout], held[program.stderr]
    return held[program.stdout], held[program.stderr]


def _wait(program: subprocess.Popen[bytes], deadline_s: float) -> None:
    """Wait for its end, and leave it unreaped: until then nothing else can get its number."""
    how = os.WEXITED | os.WNOWAIT | os.WNOHANG
    while os.waitid(os.P_PID, program.pid, how) is None:
        if time.monotonic() > deadline_s:
            raise TimeoutError
        time.sleep(0.002)


def _end(program: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left of the program and of what it started in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)


def _excerpt(complaint: bytes) -> str:
    text = " ".join(complaint[:4096].decode(errors="replace").split())
    shown = "".join(each for each in _LONG_WORD.sub("…", text) if each.isprintable())
    return f": {shown[:_EXCERPT_CHARS_MAX]}" if shown else ""
