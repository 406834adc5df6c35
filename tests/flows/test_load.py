"""Goal: a model in memory is the one that was signed, or there is none, whatever lies in stores."""

import time
from dataclasses import replace

import numpy as np
import pytest
from command import CHEAP, PASSPHRASE
from vault_scenes import family, safetensors

from modelkeep.adapters.load_proofs_folder import FolderLoadProofs
from modelkeep.core.artifact import parsed_reference
from modelkeep.core.errors import IntegrityError, RefusedError
from modelkeep.core.policy import Policy, Use
from modelkeep.core.record import to_msgpack
from modelkeep.crypto.secret import Secret
from modelkeep.flows.keep import current_snapshot
from modelkeep.flows.load import PAGE_BYTES, loaded
from modelkeep.flows.registry import held_version
from modelkeep.kernels.encoding import Encoding
from modelkeep.ports.workers import SERIAL
from modelkeep.sdk.keep import Keep
from modelkeep.vault.commit import put_sealed
from modelkeep.vault.index import Index
from modelkeep.vault.pack import Encoded, PackWriter
from modelkeep.vault.settings import VaultSettings


@pytest.fixture
def keep(tmp_path):
    path = tmp_path / "keep"
    with Keep.create(path, passphrase=PASSPHRASE, port=0, argon2=CHEAP) as keep:
        yield keep


@pytest.fixture
def model(tmp_path):
    return family(tmp_path, members=1)[0]


class Asked:
    """Memory as it was asked for."""

    def __init__(self):
        self.views = []

    def __call__(self, size_bytes):
        self.views.append(memoryview(bytearray(b"\xff" * size_bytes)))
        return self.views[-1]


def test_what_is_loaded_is_the_file_and_its_tensors(keep, model):
    keep.admit(model, name="m")
    raw = model.read_bytes()
    with keep.load("m") as found:
        assert found.file() == raw
        assert found.file("member-0.safetensors") == raw
        tensors = found.tensors()
        for entry in found.manifest.files[0].tensors:
            view = tensors[entry.name]
            assert view.tobytes() == raw[entry.offset : entry.offset + entry.length]
            assert view.shape == entry.shape
            assert not view.flags.writeable


def test_who_still_looks_at_a_model_that_was_closed_sees_zeros(keep, model):
    keep.admit(model, name="m")
    found = keep.load("m")
    weights, raw = found.tensors(), found.file()
    assert all(each.any() for each in weights.values())
    found.close()
    assert not any(each.any() for each in weights.values())
    assert not any(raw)


def test_nothing_is_written_into_memory_that_was_given_back(keep, tmp_path):
    path = tmp_path / "m.safetensors"
    weights = np.random.default_rng(5).integers(0, 1 << 14, 48 << 19, dtype=np.uint16)
    path.write_bytes(safetensors({"w": weights}))
    keep.admit(path, name="m")
    asked = Asked()

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loaded(keep.opened, parsed_reference("m"), use=Use.LOAD, allocate=asked, progress=stop)
    asked.views[0][:] = bytes(len(asked.views[0]))
    time.sleep(0.1)
    assert not np.frombuffer(asked.views[0], np.uint8).any()


def test_every_file_of_a_folder_begins_at_a_page(keep, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(3):
        weights = np.arange(1000 + number, dtype=np.uint16)
        (folder / f"{number}.safetensors").write_bytes(safetensors({f"w{number}": weights}))
    (folder / "config.json").write_text("{}")
    keep.admit(folder, name="m")
    asked = Asked()
    model = loaded(keep.opened, parsed_reference("m"), use=Use.LOAD, allocate=asked)
    for each in model.files:
        assert each.raw == (folder / each.entry.path).read_bytes()
    (view,) = asked.views
    start = 0
    for each in model.files:
        assert view[start : start + len(each.raw)] == each.raw
        start = -(-(start + len(each.raw)) // PAGE_BYTES) * PAGE_BYTES
    with keep.load("m") as found:
        assert found.tensors().keys() == {"w0", "w1", "w2"}


def test_the_first_load_on_a_host_is_hashed_and_later_ones_are_not(keep, model):
    keep.admit(model, name="m")
    with keep.load("m") as first, keep.load("m") as second:
        assert (first.is_hashed, second.is_hashed) == (True, False)
        assert first.file() == second.file()
    keep.admit(model, name="m", policy=Policy(decimals=3))
    with keep.load("m:2") as other:
        assert other.is_hashed


def test_only_the_files_that_are_needed_leave_the_vault_and_each_is_proven_once(keep, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(safetensors({"w": np.arange(9, dtype=np.uint16)}))
    (folder / "README.md").write_text("a card")
    (folder / "config.json").write_text("{}")
    keep.admit(folder, name="m")
    needed = ("config.json", "weights.safetensors")

    def load(*only):
        asked = Asked()
        found = loaded(
            keep.opened,
            parsed_reference("m"),
            use=Use.SERVE,
            allocate=Asked(),
            place=lambda entry: asked(entry.size_bytes),
            only=(lambda _: only) if only else None,
        )
        assert [bytes(each.raw) for each in found.files] == [bytes(each) for each in asked.views]
        for each in found.files:
            assert each.raw == (folder / each.entry.path).read_bytes()
        return [each.entry.path for each in found.files], found.is_hashed

    assert load(*needed) == ([*needed], True)
    assert load(*needed) == ([*needed], False)
    assert load("README.md") == (["README.md"], True)  # no other files were proven for it
    assert load() == (["README.md", *needed], True)
    assert load("config.json") == (["config.json"], False)


def test_proofs_of_another_host_or_under_another_key_prove_nothing(tmp_path):
    ours = FolderLoadProofs(tmp_path, Secret(bytes(32)), host=b"one")
    ours.note(b"model")
    ours.note(b"model")
    assert ours.knows(b"model")
    assert not ours.knows(b"other")
    assert not FolderLoadProofs(tmp_path, Secret(bytes(32)), host=b"two").knows(b"model")
    assert not FolderLoadProofs(tmp_path, Secret(b"k" * 32), host=b"one").knows(b"model")


def forged(keep, reference, wrong):
    """Replace a model's chunks by others under its ids, as the domain's own key could."""
    opened = keep.opened
    reader = opened.reader()
    found = held_version(opened, reader, current_snapshot(opened), parsed_reference(reference))
    domain = opened.domains.named("default")
    writer = opened.writer_to(opened.store, domain, VaultSettings())
    pack = PackWriter(domain, opened.keys.signer, bytes(32))
    for chunk_id, length in found.recipe.files[0].chunks:
        pack.add(Encoded(chunk_id, length, Encoding.RAW, wrong(length)))
    entry, raw = pack.finished()
    opened.store.put(entry.name, bytes(raw))
    for each in list(opened.store.list("index/")):
        opened.store.delete(each.name)
    put_sealed(writer, "index", to_msgpack(Index(packs=(entry,))))


def test_chunks_that_the_domain_key_forged_do_not_load_where_they_were_never_proven(keep, model):
    keep.admit(model, name="m")
    forged(keep, "m", lambda length: b"\x01" * length)
    asked = Asked()
    for _ in range(2):  # what failed is not remembered as proven
        with pytest.raises(IntegrityError) as error:
            loaded(keep.opened, parsed_reference("m"), use=Use.LOAD, allocate=asked)
        assert error.value.code == "seal.digest"
    assert all(not any(view) for view in asked.views)


def test_a_damaged_segment_is_zeroed_and_named(keep, model):
    keep.admit(model, name="m")
    store = keep.opened.store
    for each in list(store.list("pack/")):
        raw = bytearray(store.get(each.name))
        raw[len(raw) // 3] ^= 1
        store.delete(each.name)
        store.put(each.name, bytes(raw))
    asked = Asked()
    with pytest.raises(IntegrityError) as error:
        loaded(keep.opened, parsed_reference("m"), use=Use.LOAD, allocate=asked)
    assert error.value.code == "model.damaged"
    (view,) = asked.views
    raw = model.read_bytes()
    hit = error.value.context
    assert hit["tensors"]
    assert bytes(view[: len(raw)]) != raw


def test_a_damaged_segment_is_taken_from_the_next_store(tmp_path, model):
    path = tmp_path / "keep"
    stores = {"other": tmp_path / "other"}
    with Keep.create(path, passphrase=PASSPHRASE, port=0, argon2=CHEAP, stores=stores) as keep:
        keep.admit(model, name="m")
        keep.backup()
        store = keep.opened.store
        for each in list(store.list("pack/")):
            store.delete(each.name)
        with keep.load("m") as found:
            assert found.file() == model.read_bytes()


def test_what_the_policy_does_not_permit_takes_no_memory(keep, model):
    keep.admit(model, name="m", policy=Policy(uses=(Use.SERVE,)))
    asked = Asked()
    with pytest.raises(RefusedError) as error:
        loaded(keep.opened, parsed_reference("m"), use=Use.LOAD, allocate=asked)
    assert error.value.code == "policy.use"
    assert not asked.views
    with pytest.raises(RefusedError):
        keep.load("m")


def test_a_load_is_in_the_ledger(keep, model):
    keep.admit(model, name="m")
    keep.load("m").close()
    entries = [entry for _, entry in keep.opened.history(0)]
    assert entries[-1].kind == "model.loaded"
    assert entries[-1].facts["model"] == "m"


def test_after_it_was_closed_a_view_shows_zeros(keep, model):
    keep.admit(model, name="m")
    found = keep.load("m")
    view = found.file()
    assert any(view)
    found.close()
    found.close()
    assert not any(view)


def test_a_load_by_many_workers_gives_what_one_gives(keep, model):
    keep.admit(model, name="m")
    one, many = Asked(), Asked()
    serial = replace(keep.opened, workers=SERIAL)
    loaded(serial, parsed_reference("m"), use=Use.LOAD, allocate=one)
    loaded(keep.opened, parsed_reference("m"), use=Use.LOAD, allocate=many)
    assert one.views == many.views
