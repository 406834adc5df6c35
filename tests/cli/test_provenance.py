"""`modelkeep admit --signature …`: what is proven of a model is shown and recorded."""

import hashlib

from oms_tool import Signer
from onnx_models import two_models


def test_what_is_proven_is_shown_and_what_is_wanting_is_said(desk):
    model = desk.folder / "digits.onnx"
    model.write_bytes(two_models()[0].read_bytes())
    maker = Signer(desk.folder)
    bundle = maker.sign(model, desk.folder / "digits.sig")
    key = "key:" + hashlib.sha256(maker.public.read_bytes()).hexdigest()
    digest = "sha256:" + hashlib.sha256(model.read_bytes()).hexdigest()
    table = f'[admission]\nsigners = ["{key}"]\nsignature_required = ["*"]\nlicences = ["MIT"]\n'
    desk.config.write_text(desk.config.read_text() + table)
    words = ("admit", model, "--name", "digits")
    said = desk.run(*words, wanted=3).err
    assert "no signature came with it" in said
    assert "also: it has no licence (provenance.licence)" in said
    card = desk.folder / "card.toml"
    card.write_text('licence = "MIT OR GPL-3.0-only"\n')
    words += ("--signature", bundle, "--signed-by", maker.public, "--expect", digest)
    said = desk.run(*words, "--card", card).out
    assert f"signed  by {key}" in said
    assert "proven  1 digest(s) as expected" in said
    (entry,) = desk.entries("model.provenance")
    assert (entry["facts"]["signer"], entry["facts"]["expected"]) == (key, [digest])
