"""What was written and did not become whole goes, whatever its permission bits."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from modelkeep.adapters.appearing import appearing
from modelkeep.adapters.disk import RealDisk

SECRET = memoryview(b"SECRET! ")


def interrupted(path):
    """A folder whose last step fails, after its folders have their bits."""
    with appearing(RealDisk(), path, is_folder=True, force=False) as target:
        for name in ("shut/w.bin", "locked/deeper/w.bin"):
            target.begin(name, len(SECRET))
            target.write(name, 0, SECRET)
            target.end(name, mode=0o400, mtime_ns=-1)
        folders = ((".", 0o500), ("shut", 0), ("locked", 0o500), ("locked/deeper", 0))
        target.frame(folders, (("locked/out", str(path.parent / "beside")),))
        raise KeyboardInterrupt


def test_folders_that_let_nobody_in_go_too(tmp_path):
    (tmp_path / "beside").mkdir(mode=0o755)
    (tmp_path / "beside" / "stays").write_text("not ours")
    (tmp_path / "beside").chmod(0o750)
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["beside"]
    assert (tmp_path / "beside").stat().st_mode & 0o777 == 0o750  # no link was followed
    assert (tmp_path / "beside" / "stays").exists()


AS_NOBODY = """
import os, pathlib, sys, test_appearing
os.setgid(65534)
os.setuid(65534)
test_appearing.interrupted(pathlib.Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="whoever is not root proves it in the test above")
def test_they_go_for_an_ordinary_user():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, f"{folder}/out"],
            cwd=Path(__file__).parent,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert b"KeyboardInterrupt" in done.stderr, done.stderr
        assert not list(Path(folder).iterdir())
