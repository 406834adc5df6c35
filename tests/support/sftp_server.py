"""A real sshd for a test session: OpenSSH's, on a free port, for the user that runs the tests."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from object_servers import free_port, wait_for

from modelkeep.adapters.store_settings import StoreSettings


@dataclass(frozen=True)
class SftpServer:
    port: int
    folder: Path
    private_key: Path
    known_hosts: Path
    fingerprint: str

    def settings(self, name: str, **changes) -> StoreSettings:
        facts = {
            "label": "remote",
            "url": f"sftp://{getpass.getuser()}@127.0.0.1:{self.port}{self.folder}/{name}",
            "credentials": f"file:{self.private_key}",
            "known_hosts": str(self.known_hosts),
            "retries": 0,
            "timeout_s": 20.0,
        }
        return StoreSettings(**facts | changes)


@contextmanager
def running_sftp(folder: Path, *options: str) -> Iterator[SftpServer]:
    """sshd with one key pair, nothing but SFTP, and no configuration of the machine."""
    sshd, keygen = shutil.which("sshd", path="/usr/sbin:/usr/bin"), shutil.which("ssh-keygen")
    if sshd is None or keygen is None:
        pytest.skip("sshd is not installed (Debian: openssh-server)")
    if os.geteuid() == 0:  # it parts from its privileges in there
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        command = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name]
        subprocess.run(command, check=True)
    port = free_port()
    public = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
    words = ["-lf", folder / "host.pub", "-E", "sha256"]
    fingerprint = subprocess.check_output([keygen, *words], text=True).split()[1]
    (folder / "config").write_text(
        "\n".join(
            [
                f"Port {port}",
                "ListenAddress 127.0.0.1",
                f"HostKey {folder}/host",
                f"AuthorizedKeysFile {folder}/user.pub",
                "PidFile none",
                "StrictModes no",
                "UsePAM no",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                *options,  # the first value of an option counts
                "Subsystem sftp internal-sftp",
                "ForceCommand internal-sftp",
                "MaxStartups 100",
                "",
            ]
        )
    )
    (folder / "data").mkdir()
    with (folder / "log").open("wb") as log:
        command = [sshd, "-D", "-e", "-f", folder / "config"]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(port)
            yield SftpServer(
                port=port,
                folder=folder / "data",
                private_key=folder / "user",
                known_hosts=folder / "known_hosts",
                fingerprint=fingerprint,
            )
        finally:
            server.terminate()
            server.wait(10)
