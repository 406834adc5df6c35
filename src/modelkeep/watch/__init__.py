"""Metrics: what is counted, as data."""
