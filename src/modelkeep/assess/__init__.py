"""Judging where a model runs: what a machine must have, what is wrong with it."""
