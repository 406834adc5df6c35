"""Goal: whatever gives a model's plaintext to somebody asks the model's own policy first.

Method: one table of everything that does, walked with policies that permit a single use, none of
what somebody asks, or ended; and a search of the source for whatever else could read plaintext.
"""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from onnx_models import two_models
from scenes import PASSPHRASE, Scene

from modelkeep.core.artifact import parsed_reference
from modelkeep.core.errors import RefusedError, UnavailableError, UsageError
from modelkeep.core.policy import Policy, Use
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.secret import Secret
from modelkeep.flows.permission import ProvenHost, demand_base
from modelkeep.flows.publish import chosen, published
from modelkeep.ports.attestor import Attested
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.mounting import tree_of
from modelkeep.sdk.transfer import Transfer
from modelkeep.testing.memory import SteppingClock
from modelkeep.testing.power import Fuse

END_NS = 1_700_000_100_000_000_000
CHEAP = Argon2Settings(memory_kib=8, passes=1, lanes=1)
HOST = "AQhost"


def served(keep, model, _to):
    found = []

    def allocate(size_bytes):
        found.append(bytearray(size_bytes))
        return memoryview(found[0])

    published(keep.opened, parsed_reference(model), is_default=True, allocate=allocate)
    return bytes(found[0])


def mounted(keep, model, _to):
    (file,) = keep.files(model)
    name, _, version = model.partition(":")
    file = tree_of(keep).opened(f"/models/{name}/{version}/{file.path}")
    return file.read(file.piece_at(0))


def streamed(keep, model, _to):
    found = []
    keep.stream(model, "", lambda block: found.append(bytes(block)))
    return b"".join(found)


def exported(keep, model, to):
    passphrase = Secret(b"of the file")
    return Transfer(keep).export(model, to, passphrase=passphrase, argon2=CHEAP).size_bytes


def loaded(keep, model, _to):
    with keep.load(model) as done:
        return bytes(done.file())


def tensor_of(keep, model):
    return keep.files(model)[0].tensors[0].name


# Everything that gives plaintext out: what it is called, the use that it is, and how to ask for it.
GIVES = {
    "serve": (Use.SERVE, served),
    "load": (Use.LOAD, loaded),
    "tensor": (Use.LOAD, lambda keep, model, _: keep.tensor(model, "", tensor_of(keep, model))),
    "read": (Use.LOAD, lambda keep, model, _: keep.read(model, "", 0, 9)),
    "stream": (Use.RESTORE, streamed),
    "restore": (Use.RESTORE, lambda keep, model, to: keep.restore(model, to)),
    "restore --tensor": (
        Use.RESTORE,
        lambda keep, model, to: keep.restore(model, to, tensor=tensor_of(keep, model)),
    ),
    "mount": (Use.RESTORE, mounted),
    "export": (Use.EXPORT, exported),
    "base": (Use.TRAIN, lambda keep, model, _: demand_base(keep.opened, model) or True),
}
each_way = pytest.mark.parametrize("way", GIVES)

POLICIES = {
    **{f"only-{use}": Policy(uses=(use,)) for use in Use},
    "ended": Policy(not_after_ns=END_NS),
    "others": Policy(loaders=("cli:nobody",)),
    "bound": Policy(hosts=(HOST,)),
    "anything": Policy(),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = Scene(tmp_path_factory.mktemp("policy"))
    with made.create() as keep:
        for name, policy in POLICIES.items():
            keep.admit(two_models()[0], name=name, policy=policy)
    return made, made.image()


def opened(prepared, *, start_ns=END_NS - 10**10):
    scene, image = prepared
    scene.show(image)
    world = replace(scene.world(Fuse()), clock=SteppingClock(start_ns))
    return Keep(scene.keep_path, passphrase=PASSPHRASE, world=world)


@pytest.fixture
def keep(scene):
    with opened(scene) as found:
        yield found


def refusal(keep, way, model, to):
    with pytest.raises(RefusedError) as refused:
        GIVES[way][1](keep, model, to)
    assert not to.exists()
    return refused.value.code


def with_host(keep, prove):
    host = ProvenHost(prove)
    host.keep = keep.opened
    keep.adopt(replace(keep.opened, host=host))


def attested():
    return Attested(ueid=HOST, anchor="k", measurements="a=b", debug="disabled", issued_s=1)


@each_way
def test_a_model_that_permits_one_use_is_refused_in_all_others(keep, tmp_path, way):
    use, ask = GIVES[way]
    for only in Use:
        model = f"only-{only}:1"
        if only is use:
            assert ask(keep, model, tmp_path / "given")
        else:
            assert refusal(keep, way, model, tmp_path / "refused") == "policy.use"


@each_way
def test_a_model_whose_time_is_over_is_refused_everywhere(scene, tmp_path, way):
    with opened(scene) as keep:
        assert GIVES[way][1](keep, "ended:1", tmp_path / "given")
    with opened(scene, start_ns=END_NS) as keep:
        assert refusal(keep, way, "ended:1", tmp_path / "refused") == "policy.expired"
        assert GIVES[way][1](keep, "anything:1", tmp_path / "another")


@each_way
def test_who_is_not_listed_gets_nothing(keep, tmp_path, way):
    assert refusal(keep, way, "others:1", tmp_path / "refused") == "policy.loader"


@each_way
def test_a_model_that_is_bound_to_a_host_needs_its_proof(keep, tmp_path, way):
    assert refusal(keep, way, "bound:1", tmp_path / "refused") == "policy.host"
    with_host(keep, attested)
    assert GIVES[way][1](keep, "bound:1", tmp_path / "given")


@each_way
def test_a_host_that_cannot_prove_itself_never_counts_as_one_that_need_not(keep, tmp_path, way):
    def fails():
        raise UsageError("attest.anchor", "no anchor")

    with_host(keep, fails)
    with pytest.raises((UnavailableError, RefusedError)) as refused:
        GIVES[way][1](keep, "bound:1", tmp_path / "refused")
    assert refused.value.code in ("attest.unavailable", "policy.host")
    assert GIVES[way][1](keep, "anything:1", tmp_path / "given"), "others are not asked for proof"


def test_a_keep_that_stays_open_notices_the_end(scene):
    with opened(scene, start_ns=END_NS - 10**9) as keep:
        tree = tree_of(keep)
        file = tree.opened(f"/models/ended/1/{keep.files('ended:1')[0].path}")
        assert keep.read("ended:1", "", 0, 9)
        assert file.read(file.piece_at(0))
        keep.folder.world.clock._at_ns = END_NS
        for ask in (lambda: keep.read("ended:1", "", 0, 9), lambda: file.read(file.piece_at(0))):
            with pytest.raises(RefusedError) as refused:
                ask()
            assert refused.value.code == "policy.expired"


def test_the_host_is_proven_once_and_recorded_once(keep):
    asked = []
    with_host(keep, lambda: asked.append(1) or attested())
    keep.read("anything:1", "", 0, 9)
    assert not asked
    for _ in range(3):
        keep.read("bound:1", "", 0, 9)
    assert asked == [1]
    entries = [entry for _, entry in keep.opened.history(0) if entry.kind == "host.attested"]
    assert [entry.facts["host"] for entry in entries] == [HOST]


def test_what_nobody_named_and_may_not_be_served_is_left_out_with_a_word(keep):
    said = []
    names = {each.name for each in chosen(keep.opened, [], warn=said.append)}
    assert names == {"only-serve", "anything", "ended"}
    assert len(said) == len(POLICIES) - len(names)
    assert any("only-load:1 is not served" in each and "[policy.use]" in each for each in said)


def test_a_base_that_the_keep_does_not_hold_forbids_nothing(keep):
    for base in ("", "elsewhere:3", "anything:9"):
        demand_base(keep.opened, base)


# Every file that reads chunks in plaintext, and why what comes of it is asked for.
READS_PLAINTEXT = {
    "flows/convert.py": "of a file outside, which no keep has",
    "flows/export.py": "asks: export",
    "flows/incoming.py": "what a client handed in, before it is a model",
    "flows/load.py": "asks: what its caller says",
    "flows/oms.py": "gives digests of it only",
    "flows/plain_export.py": "asks: restore",
    "flows/portable.py": "of a file that somebody sent; `sdk.portable` asks",
    "flows/rekey.py": "encrypts it again under another key",
    "flows/provenance.py": "of what asks to be admitted, before it is a model",
    "flows/restore.py": "asks: restore; `tensor_into` is asked for in `sdk.contents`",
    "flows/tree.py": "asks what `sdk.mounting` hands it: restore",
    "sdk/contents.py": "asks: load",
    "sdk/portable.py": "asks, of a file that somebody sent",
}
READERS = frozenset(
    {"blocks", "blocks_of", "file_into", "filled", "pieces_of", "range_blocks", "range_into"}
)


def test_nothing_else_reads_plaintext():
    package = Path(__file__).resolve().parents[2] / "src" / "modelkeep"
    found = set()
    for path in (*package.glob("flows/*.py"), *package.glob("sdk/*.py"), *package.glob("cli/*.py")):
        called = {
            getattr(node.func, "attr", getattr(node.func, "id", ""))
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        if called & READERS:
            name = path.relative_to(package).as_posix()
            found.add(name)
            if READS_PLAINTEXT.get(name, "").startswith("asks"):
                assert called & {"demand", "demand_permitted", "demand_use"}, name
    assert found == set(READS_PLAINTEXT)


def test_there_is_no_use_that_nothing_asks_for():
    assert {use for use, _ in GIVES.values()} == set(Use)
