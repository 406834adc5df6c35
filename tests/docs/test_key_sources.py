"""The guide shows references that are read, one for every source."""

import re
import tomllib

from modelkeep.core.reference import KeyReference, parsed_reference
from tests.arch.source import ROOT


def test_every_reference_in_the_guide_is_one_and_no_source_is_left_out():
    page = (ROOT / "docs" / "guide" / "key-sources.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    shown = {type(parsed_reference(tomllib.loads(block)["keys"]["source"])) for block in blocks}
    assert shown == set(KeyReference.__args__)
