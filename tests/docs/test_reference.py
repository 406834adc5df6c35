"""The reference pages say what the code says."""

from __future__ import annotations

from scripts import reference


def test_the_reference_pages_are_up_to_date():
    assert not reference.stale_pages(), "run scripts/reference.py"
