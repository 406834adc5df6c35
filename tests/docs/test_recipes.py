"""What docs/recipes-corrected.md claims can be seen: its recipes run, and then they fail.

Each section's code is executed as it stands on the page.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.arch.source import ROOT

PAGE = (ROOT / "docs" / "recipes-corrected.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
NONCE = bytes(12)


class Recipe(dict):
    """The names that a section's code defines."""

    __getattr__ = dict.__getitem__


def copied(beginning: str) -> tuple[Recipe, str]:
    """Run the code of a section; gives its names, and its text on one line."""
    (title,) = [title for title in SECTIONS if title.startswith(beginning)]
    text = SECTIONS[title]
    recipe = Recipe()
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, title, "exec"), recipe)  # noqa: S102
    return recipe, " ".join(text.split())


def bits(count: float) -> str:
    return f"{math.log2(count):.1f}"


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def test_every_section_says_what_goes_wrong_what_is_right_and_which_verb_does_it():
    assert len(SECTIONS) == 9
    for text in SECTIONS.values():
        for part in ("As copied", "```python", "**What goes wrong.**", "**Right.**"):
            assert part in text
        assert "**With modelkeep.**" in text


def test_a_passphrase_is_worth_its_guesses_and_no_hash_helps():
    recipe, text = copied("A passphrase")
    assert b"AES-256" + bytes(25) == recipe.ENCRYPTION_KEY
    AESGCM(recipe.ENCRYPTION_KEY)  # nothing complains
    sealed = AESGCM(recipe.hashed_key("7316")).encrypt(NONCE, b"weights", b"")
    opened = []
    for guess in range(10_000):
        try:
            opened.append(AESGCM(recipe.hashed_key(f"{guess:04}")).decrypt(NONCE, sealed, b""))
        except InvalidTag:
            continue
    assert opened == [b"weights"]
    assert f"{bits(10**4)} bits" in text
    assert f"lower-case letters {bits(26**8)}" in text
    assert f"{26**8 / 10**10:.0f} seconds" in text


def test_a_fixed_salt_lets_one_table_open_everybodys_files():
    recipe, text = copied("A fixed")
    words = [f"word{number}" for number in range(100)]
    files = [
        AESGCM(recipe.key_of(words[at])).encrypt(NONCE, b"of person %d" % at, b"")
        for at in (7, 42, 99)
    ]
    table = [recipe.key_of(word) for word in words]
    opened = []
    for file, key in itertools.product(files, table):
        try:
            opened.append(AESGCM(key).decrypt(NONCE, file, b""))
        except InvalidTag:
            continue
    assert opened == [b"of person 7", b"of person 42", b"of person 99"]
    assert "(100,000 iterations in all)" in text
    salted = {hashlib.pbkdf2_hmac("sha256", b"word7", os.urandom(16), 1) for _ in files}
    assert len(salted) == len(files)


def test_a_fixed_salt_and_nonce_let_who_knows_one_file_read_the_other():
    recipe, _ = copied("A fixed")
    known, secret = b"a public model card, known to all", b"the weights that nobody may see.."
    one, other = (
        AESGCM(recipe.key_of("same words")).encrypt(NONCE, each, b"") for each in (known, secret)
    )
    read = bytes(a ^ b ^ c for a, b, c in zip(one, other, known, strict=False))
    assert read == secret


@pytest.fixture(scope="module")
def private():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def oaep(mgf_hash):
    return padding.OAEP(mgf=padding.MGF1(mgf_hash), algorithm=hashes.SHA256(), label=None)


def test_oaep_refuses_pss_and_what_replaces_it_fails_later(private):
    recipe, text = copied("OAEP")
    public = private.public_key()
    with pytest.raises(TypeError):
        recipe.encrypted(public, b"x")
    other_side = public.encrypt(b"x", oaep(hashes.SHA1()))  # noqa: S303
    with pytest.raises(ValueError, match="failed"):
        private.decrypt(other_side, oaep(hashes.SHA256()))
    assert len(public.encrypt(bytes(190), oaep(hashes.SHA256()))) == 256
    with pytest.raises(ValueError, match=r"."):
        public.encrypt(bytes(191), oaep(hashes.SHA256()))
    assert "takes 190 bytes at once (256 - 2·32 - 2) and not 191" in text


def test_des_ignores_a_bit_of_each_byte_of_its_key():
    recipe, text = copied("DES")
    key, block = b"8bytekey", b"8 bytes."
    same = {
        bytes(byte ^ flip for byte, flip in zip(key, flips, strict=True))
        for flips in itertools.product((0, 1), repeat=8)
    }
    assert len(same) == 256
    assert len({recipe.des_encrypted(each, block) for each in same}) == 1
    letters = [bytes([letter]) * 8 for letter in range(ord("a"), ord("z") + 1)]
    classes = {recipe.des_encrypted(each, block) for each in letters}
    assert len(classes) == 14
    assert f"14^8 = {14**8 / 10**9:.1f}·10^9 keys, {bits(14**8)} bits" in text


def test_des_in_ecb_shows_which_weights_were_pruned(rng):
    recipe, _ = copied("DES")
    weights = np.where(rng.random(2_000) < 0.1, rng.normal(size=2_000), 0)
    sealed = recipe.des_encrypted(b"8bytekey", weights.tobytes())
    blocks = [sealed[at : at + 8] for at in range(0, len(sealed), 8)]
    commonest = max(set(blocks), key=blocks.count)
    assert [block == commonest for block in blocks] == list(weights == 0)


@pytest.fixture
def salaries(rng):
    return rng.integers(20_000, 120_001, 1_000).astype(float)


def test_a_mask_gives_half_at_once_and_the_rest_by_and_by(rng, salaries):
    recipe, text = copied("A 0/1 mask")
    first = recipe.masked(salaries, rng)
    assert abs((first == salaries).mean() - 0.5) < 0.05
    seen = np.max([recipe.masked(salaries, rng) for _ in range(10)], axis=0)
    assert (seen == salaries).mean() > 0.99
    assert f"{100 * (1 - 2**-10):.1f} % are out (1 - 2^-10)" in text


def test_unscaled_noise_is_rounded_away(rng, salaries):
    recipe, text = copied("A 0/1 mask")
    assert (np.round(recipe.noisy(salaries, rng)) == salaries).all()
    assert f"ε = 100,000 / 0.1 = {100_000 / 0.1:,.0f}" in text


def test_scaled_noise_is_worn_off_by_asking_again(rng):
    _, text = copied("A 0/1 mask")
    salary, sensitivity, epsilon = 54_321, 100_000, 1
    answers = 10_000_000
    heard = salary + rng.laplace(0, sensitivity / epsilon, (10, answers // 10))
    assert abs(np.abs(heard[0] - salary).mean() - 100_000) < 1_000
    # Laplace noise of scale b has standard deviation b√2; a mean of n is off by 0.8 of that/√n.
    off = 0.8 * sensitivity * math.sqrt(2 / answers)
    assert abs(heard.mean() - salary) < 5 * off
    assert f"the mean of {answers:,} by about {off:.0f}" in text
    assert f"cost ε = {answers * epsilon:,}" in text


def test_a_model_trained_with_a_dp_optimiser_opens_without_a_key(rng, tmp_path):
    recipe, _ = copied("A DP optimiser")
    rows = rng.normal(size=(500, 5))
    labels = (rows @ np.array([2, -1, 0.5, 0, 1]) > 0).astype(float)
    weights = recipe.trained_privately(rows, labels, rng)
    recipe.saved_encrypted(tmp_path / "encrypted_model.npy", weights)
    stolen = np.load(tmp_path / "encrypted_model.npy")
    assert stolen.tobytes() == weights.tobytes()
    assert ((rows @ stolen > 0) == labels).mean() > 0.9


def test_a_restore_that_cleans_up_leaves_no_copy_of_a_damaged_backup(tmp_path, rng):
    recipe, text = copied("A restore")
    target, archive = tmp_path / "models", tmp_path / "backup.tar"
    target.mkdir()
    for name in ("a", "b"):
        (target / name).write_bytes(rng.bytes(20_000))
    with tarfile.open(archive, "w") as backup:
        backup.add(target, arcname=".")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(tarfile.ReadError):
        recipe.restored(archive, target)
    whole = [path for path in target.glob("*") if path.stat().st_size == 20_000]
    assert len(whole) < 2
    assert not archive.exists()
    assert "0 whole copies are left of 2" in text


def test_a_restore_that_succeeds_leaves_no_backup_for_the_next(tmp_path):
    recipe, _ = copied("A restore")
    target, archive = tmp_path / "models", tmp_path / "backup.tar"
    target.mkdir()
    (target / "a").write_bytes(b"weights")
    with tarfile.open(archive, "w") as backup:
        backup.add(target, arcname=".")
    recipe.restored(archive, target)
    assert (target / "a").read_bytes() == b"weights"
    with pytest.raises(FileNotFoundError):
        recipe.restored(archive, target)
    assert not Path(target / "a").exists()


def test_recovery_takes_no_backup_and_loses_more_than_the_interval(rng):
    recipe, text = copied("An RTO")
    interval, duration, notice, restore, verify = 24, 4, 15 / 60, 20 / 60, 10 / 60
    disasters = rng.uniform(interval + duration, 1_000 * interval, 20_000)
    # The newest backup that had ended, and the state that it shows: that of its start.
    started = np.floor((disasters - duration) / interval) * interval
    lost = disasters - started
    up_again = disasters + notice + restore + verify
    assert np.allclose(up_again - disasters, 45 / 60)
    assert 27.9 < lost.max() < interval + duration
    assert lost.min() >= duration
    assert recipe.rpo_hours(interval) == 24 < lost.max()
    formula = round(recipe.rto_hours(duration, restore) * 60)
    assert f"| recovery | {formula // 60} h {formula % 60} min | 45 min |" in text
    assert "| data lost, at worst | 24 h | 28 h |" in text


def test_an_expected_loss_does_not_tell_ruin_from_petty_cash():
    recipe, text = copied("An expected loss")
    ruin = np.where(np.arange(200) < 200 * 0.01, 1_000_000, 0)
    petty = np.full(200, 10_000)
    assert ruin.mean() == petty.mean() == recipe.expected_loss(0.01, 1_000_000)
    levels = {
        recipe.security_level(0.01, 1_000_000, 10**6),
        recipe.security_level(1, 10_000, 10**6),
    }
    assert levels == {0.99}
    assert (max(ruin), max(petty)) == (1_000_000, 10_000)
    assert "costs 1,000,000 in the first case and 10,000 in the second" in text
    ten, thirty = (100 * (1 - 0.99**years) for years in (10, 30))
    assert f"{ten:.1f} % in 10 years and {thirty:.0f} % in 30" in text
