"""Goal: a chunk that is a delta is read, and its store mended, whatever became of its base."""

from dataclasses import replace

import pytest
from sealed_vaults import over, sealed_vault
from sealed_ways import taken

from modelkeep.flows.keep import record_damages
from modelkeep.testing.memory import MemoryStore
from modelkeep.vault.mend import mended_packs
from modelkeep.vault.settings import VaultSettings


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    with sealed_vault(tmp_path_factory.mktemp("small"), "small") as found:
        yield found


def test_a_base_that_a_prune_moved_is_found_by_a_reader_that_was_open(vault):
    keep = over(vault.keep, vault.whole)
    model = vault.model("a:2")
    delta = next(each for each in model.chunks if each.segment.base)
    base_pack = delta.needs[2][0]
    reader = keep.reader()
    target = memoryview(bytearray(delta.length))
    reader.chunk_into(target, delta.segment.chunk_id, key_id=model.found.key_id)
    writer = keep.writer_to(keep.store, keep.domains.named("default"), VaultSettings())
    assert not mended_packs(writer, keep.reader(), [base_pack]).lost
    assert base_pack not in keep.store.objects
    reader.chunk_into(target, delta.segment.chunk_id, key_id=model.found.key_id)
    assert target == model.files[delta.path][delta.start : delta.start + delta.length]
    assert not reader.damages


def test_a_damaged_base_is_healed_from_another_store_that_has_it(vault):
    model = vault.model("a:2")
    delta = next(each for each in model.chunks if each.segment.base)
    base_pack, start, _ = delta.needs[2]
    broken, whole = MemoryStore(vault.keep.store.label), MemoryStore("other")
    broken.objects, whole.objects = dict(vault.whole), dict(vault.whole)
    flip_at(broken.objects, base_pack, start)
    keep = replace(over(vault.keep, {}), stores=(broken, whole))
    reader = keep.reader()
    target = memoryview(bytearray(delta.length))
    reader.chunk_into(target, delta.segment.chunk_id, key_id=model.found.key_id)
    assert target == model.files[delta.path][delta.start : delta.start + delta.length]
    assert [each.object for each in reader.damages] == [base_pack]
    record_damages(keep, reader.damages)
    alone = taken(over(vault.keep, broken.objects), model, "restore")
    assert alone.code == "success"


def flip_at(objects, name, at):
    objects[name] = objects[name][:at] + bytes([objects[name][at] ^ 1]) + objects[name][at + 1 :]
