"""Text marks through transformers where it is there; reading them needs none of it."""

import json
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from marked_texts import Words, marked_text, plain_text

from modelkeep.adapters.text_watermark import TextMark, chosen_parameters, tokenizer_digest
from modelkeep.core.errors import UsageError
from modelkeep.crypto.secret import Secret
from modelkeep.kernels.text_mark import NGRAM, TextParameters, text_key

SEED = bytes(range(32))
MARK = TextMark(Secret(SEED), Words())
KEY = text_key(SEED, TextParameters())
IS_THERE = find_spec("torch") is not None and find_spec("transformers") is not None

with_transformers = pytest.mark.skipif(
    not IS_THERE, reason="needs torch and transformers: docs/guide/text-watermarks.md"
)


def code_of(call) -> str:
    with pytest.raises(UsageError) as caught:
        call()
    return caught.value.code


def test_a_text_is_read_as_words_or_as_ids():
    ids = marked_text(np.random.default_rng(1), KEY, 150)
    reading = MARK.verify([ids])
    assert reading.p_value < 1e-9
    assert reading == MARK.verify(Words().decode(ids))
    assert MARK.verify(Words().decode(plain_text(np.random.default_rng(2), 150))).p_value > 1e-3


def test_a_mark_is_read_with_the_tokenizer_that_it_was_registered_for():
    registered = chosen_parameters(Words())
    assert TextMark(Secret(SEED), Words(), registered).parameters == registered
    assert code_of(lambda: TextMark(Secret(SEED), Words(7), registered)) == "mark.tokenizer"
    assert code_of(lambda: TextMark(Secret(SEED), Words(), TextParameters())) == "mark.tokenizer"
    assert len(tokenizer_digest(Words())) == 64


def fast(*merges: str, end: int = 2, padding: object = None) -> Words:
    """A tokenizer that states how it cuts words."""
    stated = {"truncation": None, "padding": padding, "model": {"merges": merges}}
    made = Words()
    made.eos_token_id = end
    made.backend_tokenizer = SimpleNamespace(to_str=lambda: json.dumps(stated))
    return made


def test_what_decides_the_ids_of_a_text_is_registered():
    digests = {tokenizer_digest(each) for each in (Words(), fast("a b", "b c"), fast("b c", "a b"))}
    assert len(digests | {tokenizer_digest(fast("a b", "b c", end=3))}) == 4
    padded = fast("a b", "b c", padding={"direction": "Left"})  # as the last call has left it
    assert tokenizer_digest(padded) in digests


def test_too_little_text_is_no_evidence_and_no_success():
    assert code_of(lambda: MARK.verify("1 2 3 4")) == "mark.text"
    assert code_of(lambda: MARK.verify([])) == "mark.text"


def test_a_mark_does_not_print_its_key():
    assert repr(MARK) == f"TextMark({MARK.parameters})"
    assert "coins" not in repr(MARK.config())


@pytest.mark.skipif(IS_THERE, reason="transformers is there")
def test_without_the_library_it_is_said_what_to_install():
    assert code_of(MARK.logits_processor) == "extra.missing"
    assert code_of(lambda: MARK.config().construct_processor(5_000, "cpu")) == "extra.missing"


# ---- with transformers -----------------------------------------------------------------------


def answers(count: int, *, mark: TextMark | None, **settings) -> list[list[int]]:
    """What a small untrained model says."""
    import torch  # noqa: PLC0415
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32}
    config = LlamaConfig(
        vocab_size=5_000, num_hidden_layers=1, num_attention_heads=2, eos_token_id=None, **sizes
    )
    model = LlamaForCausalLM(config).eval()
    said = model.generate(
        torch.ones(count, 3, dtype=torch.long),
        do_sample=True,
        max_new_tokens=60,
        pad_token_id=0,
        watermarking_config=mark and mark.config(),
        **settings,
    )
    return said[:, 3:].tolist()


@with_transformers
@pytest.mark.verify("text-watermark")
@pytest.mark.parametrize("settings", [{"top_k": 50}, {"top_k": 0}, {"top_k": 0, "top_p": 0.9}])
def test_what_generate_says_with_the_mark_is_found(settings):
    assert MARK.verify(answers(2, mark=MARK, **settings)).p_value < 1e-9
    assert MARK.verify(answers(2, mark=None, **settings)).p_value > 1e-3


@with_transformers
@pytest.mark.verify("text-watermark")
def test_fewer_look_ups_change_no_probability():
    """The same scores as from transformers' own class, which looks at all tokens."""
    import torch  # noqa: PLC0415
    from transformers import SynthIDTextWatermarkLogitsProcessor  # noqa: PLC0415

    own = MARK.logits_processor()
    theirs = SynthIDTextWatermarkLogitsProcessor(
        ngram_len=NGRAM, keys=KEY.layers.tolist(), sampling_table_size=1, sampling_table_seed=0,
        context_history_size=1024, device="cpu", skip_first_ngram_calls=True,
    )  # fmt: skip
    theirs.sampling_table = torch.tensor(KEY.coins.astype(np.int64))
    torch.manual_seed(1)
    ids = torch.randint(0, 500, (3, 2))
    for number in range(12):
        scores = torch.randn(3, 500)
        kept = scores.topk(20 + 40 * number, dim=1).values[:, -1:]
        scores = scores.masked_fill(scores < kept, -float("inf"))
        ours = own(ids, scores).softmax(dim=1)
        assert torch.allclose(ours, theirs(ids, scores).softmax(dim=1), atol=1e-6)
        assert (ours[scores.isneginf()] == 0).all()
        ids = torch.cat([ids, torch.randint(0, 500, (3, 1))], dim=1)


@with_transformers
@pytest.mark.verify("text-watermark")
def test_cells_are_those_of_the_transformers_that_is_installed():
    import torch  # noqa: PLC0415

    processor = MARK.logits_processor()
    text = marked_text(np.random.default_rng(3), KEY, 60)
    seen = processor.compute_g_values(torch.tensor([text]))
    assert int(seen.sum()) == MARK.verify([text]).hits  # no cell comes twice in this text


@with_transformers
@pytest.mark.verify("text-watermark")
def test_a_saved_generation_config_does_not_hold_the_key():
    from transformers import GenerationConfig  # noqa: PLC0415

    saved = GenerationConfig(watermarking_config=MARK.config()).to_json_string()
    assert "the key of which is not written" in saved
    assert str(int(KEY.layers[0])) not in saved
