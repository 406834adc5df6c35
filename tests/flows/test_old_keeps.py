"""What an earlier release wrote is read, checked, added to and copied by this one.

`keep_v0.tar.xz` was made before chunks had encodings: one store, a model of 64x64 FP32 in two
versions (`numpy.random.default_rng(1)` and `(2)`), under the passphrase of the tests.
"""

import tarfile
from pathlib import Path

import numpy as np

from modelkeep.sdk.keep import Keep
from tests.support.scenes import PASSPHRASE

VECTOR = Path(__file__).parents[1] / "vectors" / "vault" / "keep_v0.tar.xz"


def weights(seed):
    return np.random.default_rng(seed).standard_normal(4096, dtype=np.float32).tobytes()


def test_a_keep_of_the_first_format_opens_and_goes_on(tmp_path):
    with tarfile.open(VECTOR) as archive:
        archive.extractall(tmp_path, filter="data")
    path = tmp_path / "k"
    toml = path / "modelkeep.toml"
    addition = '[[stores]]\nlabel = "offsite"\npath = "stores/offsite"\n\n[serve]'
    toml.write_text(toml.read_text().replace("[serve]", addition, 1))
    out = tmp_path / "out.safetensors"
    with Keep(path, passphrase=PASSPHRASE) as keep:
        assert [each.version for each in keep.models()] == [1, 2]
        for version in (1, 2):
            keep.restore(f"m:{version}", out, force=True)
            assert out.read_bytes().endswith(weights(version))
        out.write_bytes(out.read_bytes()[:-16384] + weights(3))
        assert keep.admit(out, name="m").version == 3
        (report,) = keep.backup(fresh=("offsite",))
        assert report.is_whole
    with Keep(path, passphrase=PASSPHRASE) as keep:
        assert keep.check(read_data=True).is_whole
        for version in (1, 2, 3):
            keep.restore(f"m:{version}", out, force=True)
            assert out.read_bytes().endswith(weights(version))
