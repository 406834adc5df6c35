"""The Python of the guide to text watermarks runs, with a small model in the library's place."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from command import Desk
from marked_texts import Words, marked_text

from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "guide" / "text-watermarks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


class Tokenizer(Words):
    """Also called as the page calls it."""

    @classmethod
    def from_pretrained(cls, folder):
        assert folder == "model"
        return cls()

    def __call__(self, _, *, return_tensors):
        assert return_tensors == "pt"
        return {"input_ids": np.array([[3, 4, 5]])}

    def decode(self, ids, *, skip_special_tokens):
        assert skip_special_tokens
        return super().decode(ids)


class Model:
    """Says random words with the mark that it is given."""

    @classmethod
    def from_pretrained(cls, folder):
        assert folder == "model"
        return cls()

    def generate(self, *, input_ids, max_new_tokens, watermarking_config, do_sample, **_):
        assert do_sample
        said = marked_text(np.random.default_rng(1), watermarking_config.key, max_new_tokens)
        return np.array([[*input_ids[0], *said]])


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom(tmp_path, monkeypatch):
    Desk.made(tmp_path, second=False).passphrase_file.rename(tmp_path / "passphrase")
    monkeypatch.chdir(tmp_path)
    library = SimpleNamespace(AutoTokenizer=Tokenizer, AutoModelForCausalLM=Model)
    monkeypatch.setitem(sys.modules, "transformers", library)
    names = {}
    exec("".join(BLOCKS), names)  # noqa: S102 - our own page
    assert names["found"].is_found
    assert names["done"].judgement.is_found
    assert not names["done"].is_beyond_trial
