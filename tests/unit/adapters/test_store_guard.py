"""A store that refuses us is one that does not answer: the next one is asked, nothing stops."""

import pytest

from modelkeep.adapters.disk import RealDisk
from modelkeep.adapters.store_cached import CachedStore
from modelkeep.adapters.store_guard import GuardedStore
from modelkeep.core.errors import RefusedError, UnavailableError
from modelkeep.ports.range_store import uncached
from modelkeep.testing.memory import MemoryStore
from modelkeep.vault.commit import stored
from modelkeep.vault.index import ChunkIndex
from tests.unit.vault.parts import DOMAIN, reader_of, source, writer_to

RAW = bytes(range(256)) * 64
KEEP_ID = "k" * 16


class Refusing(MemoryStore):
    """Its credentials have expired."""

    def get(self, name, *, start=0, length=None):
        del start, length
        raise RefusedError("store.denied", name, hint="look at the credentials")

    def list(self, prefix):
        raise RefusedError("store.denied", prefix)

    def stat(self, name):
        raise RefusedError("store.denied", name)

    def delete(self, name):
        raise RefusedError("store.locked", name)

    def put(self, name, raw):
        del raw
        raise RefusedError("store.denied", name)


def guarded(store):
    return GuardedStore(store, place="somewhere", keep_id=KEEP_ID)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get("pack/00"),
        lambda store: store.get_into("pack/00", 0, memoryview(bytearray(1))),
        lambda store: list(store.list("")),
        lambda store: store.stat("pack/00"),
        lambda store: store.delete("pack/00"),
        lambda store: store.put("format/00", b""),
        lambda store: store.put("pack/00", b""),
    ],
)
def test_every_refusal_is_an_answer_that_did_not_come(call):
    with pytest.raises(UnavailableError) as failure:
        call(guarded(Refusing("offsite")))
    assert failure.value.code == "store.refused"
    assert failure.value.context["cause"] in ("store.denied", "store.locked")


def test_a_read_falls_over_to_the_next_store_and_leaves_the_one_that_refuses():
    good = MemoryStore("main")
    wrote = stored([source(RAW)], writer=writer_to(good), known=ChunkIndex())
    reader = reader_of(guarded(Refusing("offsite")), good)
    target = memoryview(bytearray(len(RAW)))
    reader.file_into(target, wrote.files[0].recipe, key_id=DOMAIN.key_id)
    assert target == RAW
    assert not any(each.healed for each in reader.damages)


def test_whoever_checks_a_store_does_not_ask_what_is_remembered_of_it(tmp_path):
    behind = MemoryStore("offsite")
    wrote = stored([source(RAW)], writer=writer_to(behind), known=ChunkIndex())
    cached = CachedStore(behind, folder=tmp_path / "c", bytes_max=1 << 20, disk=RealDisk())
    store, name = guarded(cached), wrote.indexes[0]
    whole = store.get(name)
    behind.objects[name] = b"rotten"
    assert store.get(name) == whole
    assert uncached(store).get(name) == b"rotten"
    assert uncached(behind) is behind
