"""`modelkeep verify` is tested with `sign`; here: that it never says good by default."""

from command import modelkeep


def test_a_verifier_must_be_named(tmp_path):
    """The signature names its own: who does not compare it has proven nothing."""
    found = modelkeep("verify", tmp_path / "x", wanted=2)
    assert "--key" in found.err
