"""The weight mark: in all bits of what was marked, by chance in half of those of anything else."""

import io
import zipfile
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked_models import arrays, bf16, in_8_bits, marked, npz, pruned, read, safetensors, tensors

from modelkeep.core.errors import UsageError
from modelkeep.core.record import replaced
from modelkeep.kernels.tails import binomial_tail
from modelkeep.kernels.weight_mark import (
    MarkedTensor,
    WeightParameters,
    chosen_parameters,
    hits_in,
)

SEED = bytes(range(32))
MODEL = arrays()
RAW = safetensors(MODEL)
PARAMETERS = chosen_parameters(tensors(RAW))
MARKED, MADE = marked(RAW, SEED, PARAMETERS)


def hits(*raws, seed=SEED, parameters=PARAMETERS):
    return hits_in(tensors(*raws), seed, parameters)


def test_a_small_model_has_64_bits_in_its_matrices():
    assert (PARAMETERS.bits, PARAMETERS.positions) == (64, 74)
    assert [each.name for each in PARAMETERS.tensors] == ["w0", "w1"]


def test_every_bit_of_a_marked_model_is_hit_and_the_change_is_small():
    assert 15 < hits(RAW) < 49
    assert hits(MARKED) == 64
    assert MADE.relative_change < 0.2
    before, after = read(RAW), read(MARKED)
    assert np.array_equal(before["b0"], after["b0"])
    moved = np.concatenate([(after[each] - before[each]).ravel() for each in ("w0", "w1")])
    whole = np.concatenate([before[each].ravel() for each in ("w0", "w1")])
    assert np.linalg.norm(moved) / np.linalg.norm(whole) == pytest.approx(MADE.relative_change)
    assert MADE.changed == np.count_nonzero(moved)


def test_what_a_seed_reads_never_changes():
    """A suspect of a formula: what is drawn, grouped, scaled and counted is fixed for ever."""
    waves = {"w0": np.sin(np.arange(4096)), "w1": np.cos(3 * np.arange(640))}
    flat = {name: each.reshape(-1, 64).astype(np.float32) for name, each in waves.items()}
    found = [hits(safetensors(flat), seed=bytes([number] * 32)) for number in range(8)]
    assert found == [28, 31, 32, 32, 24, 31, 34, 34]


def test_other_seeds_read_nothing_in_it():
    found = [hits(MARKED, seed=bytes([number] * 32)) for number in range(100)]
    assert min(binomial_tail(each, 64, 0.5) for each in found) > 1e-4


def test_a_marked_model_is_not_marked_again():
    again, made = marked(MARKED, SEED, PARAMETERS)
    assert again == MARKED
    assert made.changes == ()


def test_it_outlasts_pruning_quantising_noise_and_all_of_them():
    model = read(MARKED)
    random = np.random.default_rng(5)
    noisy = {
        name: (each + 0.3 * each.std() * random.standard_normal(each.shape)).astype(np.float32)
        for name, each in model.items()
    }
    for treated in (pruned(model), in_8_bits(model), noisy, in_8_bits(pruned(noisy))):
        assert binomial_tail(hits(safetensors(treated)), 64, 0.5) < 1e-10


def test_it_is_found_under_other_names_in_other_formats_and_scaled():
    model = {f"layer.{at}.weight": each for at, each in enumerate(read(MARKED).values())}
    scaled = {name: 7.0 * each for name, each in model.items()}
    for raw in (
        safetensors(model),
        npz(model),
        safetensors(scaled),
        safetensors(model, dtype="F16"),
    ):
        assert hits(raw) == 64
    shards = [safetensors({name: each}) for name, each in model.items()]
    assert hits(*shards) == 64


def test_unsigned_8_bits_are_read_around_their_middle():
    shifted = {
        name: (each.astype(np.int16) + 128).astype(np.uint8)
        for name, each in in_8_bits(read(MARKED)).items()
    }
    assert hits(safetensors(shifted)) == 64


def test_a_tensor_that_is_gone_costs_its_share_only():
    model = read(MARKED)
    assert binomial_tail(hits(safetensors({"w0": model["w0"]})), 64, 0.5) < 1e-6


def test_reordered_units_lose_it():
    model = read(MARKED)
    order = np.random.default_rng(3).permutation(64)
    moved = {**model, "w0": model["w0"][:, order], "w1": model["w1"][order]}
    assert 0.001 < binomial_tail(hits(safetensors(moved)), 64, 0.5) < 0.999


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_bits_hold_after_rounding_to_a_narrow_type(dtype):
    raw = safetensors(arrays(1, side=1024), dtype=dtype)
    parameters = chosen_parameters(tensors(raw))
    assert parameters.bits == 256
    copy, made = marked(raw, SEED, parameters)
    assert hits(copy, parameters=parameters) == 256
    assert len(copy) == len(raw)
    assert made.relative_change < 0.15


def test_an_archive_stays_one_whose_checksums_hold():
    raw = npz(MODEL)
    copy, _ = marked(raw, SEED, PARAMETERS)
    assert hits(copy) == 64
    assert zipfile.ZipFile(io.BytesIO(bytes(copy))).testzip() is None
    assert not np.array_equal(np.load(io.BytesIO(bytes(copy)))["w0"], MODEL["w0"])


@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**32), st.sampled_from([0.3, 1.0, 3.0]))
def test_whatever_the_seed_and_the_weights_all_bits_are_hit(seed, number, margin):
    raw = safetensors(arrays(number))
    parameters = chosen_parameters(tensors(raw), margin=margin)
    copy, _ = marked(raw, seed, parameters)
    assert hits(copy, seed=seed, parameters=parameters) == 64
    assert len(copy) == len(raw)


@given(st.lists(st.integers(1, len(RAW)), max_size=8))
def test_it_can_be_laid_on_piece_by_piece_wherever_the_pieces_end(ends):
    copy = bytearray(RAW)
    cuts = sorted({0, *ends, len(RAW)})
    for start, stop in pairwise(cuts):
        MADE.apply("m", start, memoryview(copy)[start:stop])
        MADE.apply("other", start, memoryview(copy)[start:stop])
    assert copy == MARKED


def test_over_seeds_the_hits_of_a_model_are_binomial(count):
    """Exact whatever the weights are: here they are as unlike normal ones as can be."""
    random = np.random.default_rng(1)
    odd = {"w0": (random.standard_cauchy((64, 64)) + 3).astype(np.float32)}
    found = tensors(safetensors(odd))
    parameters = chosen_parameters(found)
    number = count(400, full=20_000)
    draws = [hits_in(found, at.to_bytes(32, "big"), parameters) for at in range(number)]
    assert abs(np.mean(draws) - 32) < 5 * 4 / sqrt(number)
    assert abs(np.var(draws) - 16) < 5 * 16 * sqrt(2 / number)


def test_nothing_is_hit_where_there_is_nothing():
    zeros = {name: np.zeros_like(each) for name, each in MODEL.items()}
    bad = {name: np.full_like(each, np.nan) for name, each in MODEL.items()}
    assert hits(safetensors(zeros)) == hits(safetensors(bad)) == 0
    assert hits(safetensors({"other": np.ones((3, 5), np.float32)})) == 0


def test_zeros_stay_zeros():
    copy, _ = marked(safetensors(pruned(MODEL)), SEED, PARAMETERS)
    before, after = pruned(MODEL), read(copy)
    assert np.array_equal(before["w0"] == 0, after["w0"] == 0)
    assert hits(copy) == 64


def test_a_model_without_room_is_refused():
    tiny = tensors(safetensors({"w": np.ones((8, 8), np.float32)}))
    with pytest.raises(UsageError, match=r"mark\.room"):
        chosen_parameters(tiny)
    zeros = safetensors({name: np.zeros_like(each) for name, each in MODEL.items()})
    with pytest.raises(UsageError, match=r"mark\.room"):
        marked(zeros, SEED, PARAMETERS)


def test_a_model_with_other_tensors_cannot_be_given_the_mark():
    other = safetensors({"w0": MODEL["w0"]})
    with pytest.raises(UsageError, match=r"mark\.model"):
        marked(other, SEED, PARAMETERS)
    with pytest.raises(UsageError, match=r"mark\.model"):
        marked(safetensors(in_8_bits(MODEL)), SEED, PARAMETERS)


@pytest.mark.parametrize(
    "changes",
    [{"bits": 0}, {"bits": 5000}, {"positions": 0}, {"positions": 1000}, {"margin": 0.0},
     {"margin": float("nan")}, {"tensors": ()},
     {"tensors": (MarkedTensor(name="w0", items=-1),)},
     {"tensors": (MarkedTensor(name="w0", items=1 << 40),)}],
)  # fmt: skip
def test_parameters_out_of_bounds_are_refused(changes):
    with pytest.raises(UsageError, match=r"mark\.parameters"):
        hits(RAW, parameters=replaced(PARAMETERS, **changes))


def test_a_large_model_is_marked_in_as_many_weights_as_its_bits_need():
    parameters = WeightParameters(
        bits=256,
        positions=16,
        margin=1.0,
        tensors=(MarkedTensor(name="w", items=1 << 20),),
    )
    values = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    raw = safetensors({"w": values}, dtype="BF16")
    copy, made = marked(raw, SEED, parameters)
    assert hits(copy, parameters=parameters) == 256
    assert made.changed <= 256 * 16
    assert made.relative_change < 0.04
    assert (
        np.count_nonzero(bf16(values).ravel() != np.frombuffer(copy[-values.size * 2 :], "<u2"))
        == made.changed
    )
