"""`sdk.keep.scan`: one file, and nothing else."""

import pytest

from modelkeep.core.errors import UsageError
from modelkeep.core.verdict import Decision
from modelkeep.sdk.keep import scan


def test_one_file_is_judged_and_a_folder_is_refused_with_a_hint(tmp_path):
    (tmp_path / "m.pkl").write_bytes(b"cos\nsystem\n(S'x'\ntR.")
    assert scan(tmp_path / "m.pkl").decision is Decision.DENY
    with pytest.raises(UsageError, match="is a folder") as refused:
        scan(tmp_path)
    assert refused.value.code == "file.read"
    assert "name one file" in refused.value.hint
