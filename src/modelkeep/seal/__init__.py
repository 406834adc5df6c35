"""Sealed models: a signed manifest in an envelope, and who may be trusted for it."""
