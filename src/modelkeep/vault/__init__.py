"""Packs, index, snapshots: their bytes, their write order and their read order."""
