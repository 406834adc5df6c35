"""The tamper-evident log: entries, tree, tiles, checkpoints, proofs, verification."""
