"""Goal: a client can hand things in, and whoever has its file, or its store, can do nothing else.

Method: a keep whose inbox lies in memory, where every object can be flipped, cut, moved, swapped
and brought back; and clients that lie in what they sign.
"""

import random
import time
from dataclasses import replace

import pytest
from inboxes import FILES, START_NS, Shelf, client_of, handed_in, outgoing, taken, with_inbox
from scenes import Scene

from modelkeep.core.errors import (
    IntegrityError,
    KeepError,
    LimitError,
    MissingError,
    RefusedError,
    UsageError,
)
from modelkeep.core.record import from_json, replaced, to_msgpack
from modelkeep.core.rows import Settled
from modelkeep.crypto.aead import opened_blob
from modelkeep.crypto.kdf import derived_key
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.sealed_file import opened_file
from modelkeep.crypto.secret import Secret
from modelkeep.flows.clients import inbox_identity, revoked_client
from modelkeep.flows.inbox import accepted, rejected, rejected_all
from modelkeep.flows.inbox_view import waiting
from modelkeep.flows.submit import submitted
from modelkeep.kernels.digest import hex_of
from modelkeep.ports.keyholder import Means
from modelkeep.sdk.keep import Keep
from modelkeep.testing.memory import MemoryStore, SeededEntropy, SteppingClock
from modelkeep.testing.power import Fuse
from modelkeep.vault.client_file import (
    ClientFile,
    client_file,
    client_id_of,
    client_signer,
    opened_certificate,
)
from modelkeep.vault.inbox import (
    SHARE_BYTES,
    Opener,
    Sealer,
    Submission,
    object_name,
    place_of,
)

LARGE = {"a.bin": bytes(range(256)) * (SHARE_BYTES // 256 + 300), "b": b"behind it"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = Scene(tmp_path_factory.mktemp("inbox"))
    made.create().close()
    return made, made.image()


@pytest.fixture
def keep(scene):
    made, image = scene
    made.show(image)
    with made.open() as opened:
        yield with_inbox(opened.opened, MemoryStore("main"))


@pytest.fixture
def client(keep):
    return client_of(keep)


@pytest.fixture
def shelf():
    return Shelf()


def objects(keep):
    """Names of what lies in the inbox: parts in order of name, lists."""
    names = sorted(name for name in keep.store.objects if name.startswith("inbox/"))
    return (
        [name for name in names if not place_of(name).is_list],
        [name for name in names if place_of(name).is_list],
    )


def state_of(keep, submission):
    (row,) = [each for each in waiting(keep).submissions if each.submission == submission]
    return row.state


def demand_refused(keep, reference, shelf, error, code):
    """Refused, with where it is, and without a trace: nothing is stored, nothing is settled."""
    before = dict(keep.store.objects)
    with pytest.raises(error) as caught:
        taken(keep, reference, shelf)
    assert caught.value.code in ([code] if isinstance(code, str) else code), caught.value
    assert not shelf.versions
    assert keep.store.objects == before
    return caught.value


def test_what_is_handed_in_is_what_the_owner_gets(keep, client, shelf):
    done = handed_in(keep.store, client, {**LARGE, **FILES}, name="run-7")
    assert done.objects == 3
    (row,) = waiting(keep).submissions
    assert (row.state, row.client, row.name, row.files) == ("whole", "trainer", "run-7", 5)
    assert row.size_bytes == done.size_bytes == sum(map(len, {**LARGE, **FILES}.values()))
    got = taken(keep, done.submission, shelf)
    assert (got.name, got.version, got.client) == ("run-7", 1, "trainer")
    assert shelf.versions == {"run-7": [{**LARGE, **FILES}]}
    assert not keep.store.objects
    assert waiting(keep).submissions == ()


def test_any_range_of_a_file_can_be_read_alone_and_in_any_order(keep, client):
    done = handed_in(keep.store, client, LARGE)
    found = []
    accepted(keep, done.submission, store=lambda incoming: found.append(incoming) or 1)
    assert not keep.store.objects
    handed_in(keep.store, client, LARGE, seed=1)
    seen = {}

    def store(incoming):
        first, second = incoming.files
        for start, length in ((SHARE_BYTES - 5, 10), (0, 7), (first.size_bytes - 3, 3), (4, 0)):
            buffer = bytearray(length)
            first.read_into(start, memoryview(buffer))
            assert buffer == LARGE["a.bin"][start : start + length]
        with pytest.raises(AssertionError):
            second.read_into(8, memoryview(bytearray(2)))
        seen["note"] = incoming.note
        return 1

    (row,) = waiting(keep).submissions
    accepted(keep, row.submission, store=store)
    assert client.certificate.client_id in seen["note"]


def test_the_owner_may_call_it_otherwise(keep, client, shelf):
    done = handed_in(keep.store, client, name="run")
    assert taken(keep, done.submission, shelf, name="checked").name == "checked"
    assert list(shelf.versions) == ["checked"]
    with pytest.raises(UsageError):
        taken(keep, handed_in(keep.store, client, seed=1).submission, shelf, name="../x")


def test_a_client_puts_below_its_own_prefix_and_does_nothing_else(client):
    names = []
    submitted(
        outgoing(FILES),
        client=client,
        name="run",
        put=lambda name, _: names.append(name),  # all that it is given
        clock=SteppingClock(START_NS),
        entropy=SeededEntropy(),
    )
    assert all(name.startswith(f"inbox/{client.certificate.client_id}/") for name in names)
    assert [place_of(name).is_list for name in names] == [False, True]


@pytest.mark.verify("inbox")
@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "other", "gone"])
@pytest.mark.parametrize("name_that", ["stays", "fits"])
def test_a_damaged_object_is_refused_and_named(keep, client, damage, name_that, count):
    """Also by one who gives the damaged bytes the name that fits them."""
    shelf, renamed = Shelf(), name_that == "fits"
    done = handed_in(keep.store, client, LARGE)
    parts, lists = objects(keep)
    rng = random.Random(time.time_ns())  # noqa: S311 - it chooses what to damage
    whole = dict(keep.store.objects)
    for name in (*parts, *lists):
        for _ in range(count(1, full=100)):
            keep.store.objects = dict(whole)
            raw = keep.store.objects.pop(name)
            at = rng.randrange(len(raw))
            changed = {
                "flip": raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :],
                "cut": raw[:at],
                "longer": raw + b"\0",
                "other": whole[parts[1] if name == parts[0] else parts[0]],
                "gone": None,
            }[damage]
            if changed is not None:
                place = place_of(name)
                kind = "list" if place.is_list else "part"
                fits = object_name(place.client_id, place.submission, kind, hex_of(changed))
                keep.store.objects[fits if renamed else name] = changed
            wanted = ("inbox.part", "inbox.missing_part", "inbox.list", "inbox.incomplete")
            found = demand_refused(
                keep, done.submission, shelf, (IntegrityError, MissingError), wanted
            )
            if found.code != "inbox.incomplete":
                assert "inbox/" in found.context["object"]
            assert not renamed or state_of(keep, done.submission) != "whole"
    keep.store.objects = dict(whole)
    taken(keep, done.submission, shelf)
    assert shelf.versions["run"] == [LARGE]


def moved(keep, client_id, submission):
    """Every object of the inbox under another client or another submission."""
    for name, raw in list(keep.store.objects.items()):
        kind, digest = name.split("/")[3:]
        keep.store.objects[object_name(client_id, submission, kind, digest)] = raw


def test_a_submission_that_was_moved_is_refused(keep, client, shelf):
    other = client_of(keep, "other")
    done = handed_in(keep.store, client)
    whole = dict(keep.store.objects)
    moved(keep, client.certificate.client_id, "0" * 16)
    demand_refused(keep, "0" * 16, shelf, IntegrityError, "inbox.list")
    keep.store.objects = dict(whole)
    moved(keep, other.certificate.client_id, done.submission)
    reference = f"{other.certificate.client_id}/{done.submission}"
    demand_refused(keep, reference, shelf, IntegrityError, "inbox.list")
    demand_refused(keep, done.submission, shelf, UsageError, "inbox.ambiguous")
    taken(keep, f"{client.certificate.client_id}/{done.submission}", shelf)
    assert shelf.versions == {"run": [FILES]}


def test_a_submission_counts_once_whoever_brings_it_back(keep, client, shelf):
    for settle in (lambda one: taken(keep, one, Shelf()), lambda one: rejected(keep, one)):
        done = handed_in(keep.store, client, seed=len(keep.state.rows(Settled)))
        whole = dict(keep.store.objects)
        settle(done.submission)
        keep.store.objects = dict(whole)
        assert state_of(keep, done.submission) == "settled"
        demand_refused(keep, done.submission, shelf, RefusedError, "inbox.settled")
        assert rejected(keep, done.submission).objects == len(whole)
        assert not keep.store.objects
    assert len(keep.state.rows(Settled)) == 2


def opener_of(keep, client):
    return Opener(inbox_identity(keep), client.signer.public)


def lied(keep, client, lie):
    """A submission whose client signs what is not so; returns its id."""
    done = handed_in(keep.store, client, LARGE)
    _, (name,) = objects(keep)
    listed = opener_of(keep, client).list(name, keep.store.objects.pop(name))
    sealer = Sealer(client.recipient, client.signer, SeededEntropy(7).random_bytes)
    raw = sealer.list(replaced(listed, **lie(listed)))
    own = client.certificate.client_id
    keep.store.put(object_name(own, done.submission, "list", hex_of(raw)), raw)
    return done.submission


def with_first(listed, **changes):
    first = listed.files[0]
    fields = {"path": first.path, "size_bytes": first.size_bytes, "digest": first.digest}
    return (type(first)(**{**fields, **changes}), *listed.files[1:])


@pytest.mark.parametrize(
    ("lies", "code"),
    [
        (lambda _: {"keep_id": "0" * 16}, "inbox.certificate"),
        (lambda _: {"client_id": "0" * 16}, "inbox.list"),
        (lambda _: {"submission": "0" * 16}, "inbox.list"),
        (lambda _: {"format": "modelkeep-submission-v1"}, "inbox.list"),
        (lambda it: {"parts": it.parts[:32]}, "inbox.list"),
        (lambda it: {"parts": it.parts + it.parts[:32]}, "inbox.list"),
        (lambda it: {"parts": it.parts[32:] + it.parts[:32]}, "inbox.part"),
        (lambda it: {"parts": it.parts[:32] * 2}, "inbox.part"),
        (lambda _: {"files": ()}, "inbox.list"),
        (lambda _: {"name": "x" * 101}, "inbox.list"),
        (lambda _: {"name": "\x1b[2J"}, "inbox.list"),
        (lambda it: {"files": it.files * 2}, "inbox.list"),
        (lambda it: {"files": it.files[::-1]}, "inbox.file"),
        (lambda it: {"files": with_first(it, path="/etc/passwd")}, "inbox.list"),
        (lambda it: {"files": with_first(it, path="../x")}, "inbox.list"),
        (lambda it: {"files": with_first(it, path="b/c")}, "inbox.list"),
        (lambda it: {"files": with_first(it, path="a\x1b[2J")}, "inbox.list"),
        (lambda it: {"files": with_first(it, digest=bytes(32))}, "inbox.file"),
        (lambda it: {"files": with_first(it, digest=b"")}, "inbox.list"),
        (lambda it: {"files": with_first(it, size_bytes=-1)}, "inbox.list"),
        (lambda it: {"files": with_first(it, size_bytes=2**63)}, "inbox.list"),
        (lambda it: {"files": with_first(it, size_bytes=it.files[0].size_bytes - 1)}, "inbox.part"),
    ],
)
def test_what_a_client_signs_is_not_believed(keep, client, shelf, lies, code):
    submission = lied(keep, client, lies)
    demand_refused(keep, submission, shelf, IntegrityError, code)
    assert state_of(keep, submission) == ("damaged" if code != "inbox.part" else "whole") or (
        code == "inbox.file"  # no part is opened to list what lies there
    )
    rejected(keep, submission)
    assert not keep.store.objects


def test_a_file_that_reads_like_a_list_cannot_become_one(keep, client, shelf):
    """Who gives a training box its data, and owns the store, cannot have it sign a submission."""
    listed = Submission(
        format="modelkeep-submission-v0",
        keep_id=keep.keep_id,
        client_id=client.certificate.client_id,
        submission="0" * 16,
        certificate=client.signed,
        name="forged",
        submitted_ns=0,
        files=(),
        parts=b"",
    )
    handed_in(keep.store, client, {"data.bin": b"mklist0\n" + to_msgpack(listed)})
    (part,), _ = objects(keep)
    raw = keep.store.objects[part]
    keep.store.objects.clear()
    keep.store.put(object_name(listed.client_id, "0" * 16, "list", hex_of(raw)), raw)
    demand_refused(keep, "0" * 16, shelf, IntegrityError, "inbox.list")


def test_parts_of_another_submission_are_refused(keep, client, shelf):
    handed_in(keep.store, client, {"x": b"one"}, seed=3)
    (foreign,), _ = objects(keep)
    raw = keep.store.objects[foreign]
    keep.store.objects.clear()
    digest = bytes.fromhex(place_of(foreign).digest)
    done = handed_in(keep.store, client, {"x": b"one"}, seed=4)
    _, (name,) = objects(keep)
    listed = opener_of(keep, client).list(name, keep.store.objects.pop(name))
    sealer = Sealer(client.recipient, client.signer, SeededEntropy(7).random_bytes)
    sealed = sealer.list(replaced(listed, parts=digest))
    own = client.certificate.client_id
    keep.store.put(object_name(own, done.submission, "list", hex_of(sealed)), sealed)
    keep.store.put(object_name(own, done.submission, "part", digest.hex()), raw)
    demand_refused(keep, done.submission, shelf, IntegrityError, "inbox.part")


def test_nothing_of_a_revoked_client_is_accepted(keep, client, shelf):
    done = handed_in(keep.store, client)
    revoked_client(keep, "trainer")
    assert state_of(keep, done.submission) == "refused"
    demand_refused(keep, done.submission, shelf, RefusedError, "inbox.revoked")
    assert rejected_all(keep, "trainer").objects == 2
    assert not keep.store.objects


def test_nothing_of_an_expired_client_is_accepted_nor_handed_in(keep, shelf):
    soon_ns = keep.clock.now_ns() + 10**9
    client = client_of(keep, expires_ns=soon_ns)
    with pytest.raises(RefusedError) as caught:
        handed_in(keep.store, client)  # its clock is past that
    assert caught.value.code == "client.expired"
    never = replaced(client.certificate, expires_ns=0)
    done = handed_in(keep.store, replace(client, certificate=never))  # it lies to itself
    keep = replace(keep, clock=SteppingClock(soon_ns))
    demand_refused(keep, done.submission, shelf, RefusedError, "inbox.expired")


def test_who_makes_a_client_for_itself_is_nobody(keep, client, shelf):
    """A signing key of one's own, under the id that follows from it, is not a client's."""
    signer = client_signer(Secret(b"x" * 32))
    own = replaced(client.certificate, public=signer.public, client_id=client_id_of(signer.public))
    stranger = replace(client, certificate=own, signer=signer)
    done = handed_in(keep.store, stranger)
    demand_refused(keep, done.submission, shelf, MissingError, "inbox.none")
    reference = f"{own.client_id}/{done.submission}"
    demand_refused(keep, reference, shelf, MissingError, "client.unknown")
    (row,) = waiting(keep).submissions
    assert (row.state, row.client) == ("refused", "")
    assert rejected_all(keep, own.client_id).objects == 2
    with pytest.raises(IntegrityError):
        opened_certificate(replaced(client.signed, body=b"{}"), public=keep.public)


def test_a_client_of_another_name_cannot_speak_for_the_first(keep, client, shelf):
    """The second client's key under the first one's id: the signature is not that client's."""
    second = client_of(keep, "second")
    forged = replace(second, certificate=client.certificate, signed=client.signed)
    done = handed_in(keep.store, forged)
    demand_refused(keep, done.submission, shelf, IntegrityError, "inbox.list")


def test_more_than_a_client_may_is_refused_on_both_sides(keep, shelf):
    client = client_of(keep, size_bytes_max=1_000)
    handed_in(keep.store, client, {"x": bytes(1_000)})
    with pytest.raises(LimitError) as caught:
        handed_in(MemoryStore(), client, {"x": bytes(1_001)})
    assert caught.value.code == "inbox.size"
    keep.store.objects.clear()
    wider = replaced(client.certificate, size_bytes_max=2_000)
    done = handed_in(keep.store, replace(client, certificate=wider), {"x": bytes(1_001)})
    assert state_of(keep, done.submission) == "refused"
    demand_refused(keep, done.submission, shelf, LimitError, "inbox.size")


def test_others_who_write_beside_it_do_no_harm_and_have_a_bound(keep, client, shelf):
    done = handed_in(keep.store, client)
    own = client.certificate.client_id

    def garbage(number):
        raw = b"garbage %d" % number
        keep.store.put(object_name(own, done.submission, "list", hex_of(raw)), raw)
        keep.store.put(object_name(own, done.submission, "part", hex_of(raw)), raw)

    garbage(0)
    keep.store.put("inbox/readme", b"stray")
    assert waiting(keep).strays == 1
    assert state_of(keep, done.submission) == "whole"
    for number in range(10, 20):
        garbage(number)
    demand_refused(keep, done.submission, shelf, LimitError, "inbox.crowded")
    assert state_of(keep, done.submission) == "refused"
    for name in [name for name, raw in keep.store.objects.items() if b"garbage 1" in raw]:
        keep.store.delete(name)
    taken(keep, done.submission, shelf)
    assert list(keep.store.objects) == ["inbox/readme"]


@pytest.mark.parametrize("reference", ["", "x", "0" * 16, "../" + "0" * 16, "0" * 16 + "/x", "/"])
def test_what_is_not_there_cannot_be_settled(keep, client, reference, shelf):
    del client
    demand_refused(keep, reference, shelf, MissingError, "inbox.none")
    with pytest.raises(MissingError):
        rejected(keep, reference)


def secrets_of(client, seed):
    """Every secret in a client file, and what one would try to derive from it."""
    secrets = [seed, derived_key(seed, "client/sign"), Secret(client.recipient.raw[:32])]
    return [*secrets, *(derived_key(each, "keep/inbox") for each in secrets)]


def reading(raw):
    left = [raw]

    def read(size_bytes):
        got, left[0] = left[0][:size_bytes], left[0][size_bytes:]
        return got

    return read


def test_a_client_file_opens_nothing_that_a_store_holds(scene, keep, client):
    """Every secret in it, and what would follow from it, against every object, its own too."""
    made, _ = scene
    handed_in(keep.store, client)
    seed = Secret(b"s" * 32)
    text = client_file(
        client.signed,
        keep_id=keep.keep_id,
        keep=keep.public,
        store="/store",
        recipient=client.recipient,
        seed=seed,
    )
    assert set(from_json(ClientFile, text.reveal(), what="it").__struct_fields__) == {
        *("format", "keep_id", "keep", "store", "recipient", "certificate"),
        "seed",  # the only secret among them
    }
    secrets = secrets_of(client, seed)
    identities = [Identity(each) for each in secrets]
    for raw in keep.store.objects.values():
        for signers in (None, [client.signer.public]):
            with pytest.raises(RefusedError) as caught:
                opened_file(reading(raw), keys=identities, signers=signers)
            assert caught.value.code == "sealed.key"
    count = 0
    for path, _ in made.disk.walk(made.main):
        raw = made.disk.read(path)
        for secret in secrets:
            for purpose in ("snapshot:", "index:default", "recipe:default", "config", "keyring"):
                for start in (0, 8):
                    with pytest.raises(KeepError):
                        opened_blob(secret, raw[start:], purpose=purpose)
                    count += 1
    assert count > 50


def test_a_client_file_opens_no_keep(scene):
    made, image = scene
    made.show(image)
    with made.open() as opened:
        client = client_of(opened.opened)
    for secret in secrets_of(client, Secret(b"s" * 32)):
        with pytest.raises(RefusedError) as caught:
            Keep(made.keep_path, means=Means(identity=secret), world=made.world(Fuse()))
        assert caught.value.code == "keys.no_holder"
