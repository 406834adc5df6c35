"""The edges of the world: one file per third-party thing, each behind a port."""
