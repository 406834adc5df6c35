"""The inbox's bytes: what is sealed opens in its own place only; nothing hostile gets further."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.core.record import replaced, to_msgpack
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.kernels.digest import hex_of
from modelkeep.testing.memory import SeededEntropy
from modelkeep.vault.client_file import Signed
from modelkeep.vault.inbox import (
    FILES_MAX,
    FORMAT,
    OBJECT_BYTES_MAX,
    PATH_BYTES_MAX,
    PATH_PARTS_MAX,
    PATHS_BYTES_MAX,
    SHARE_BYTES,
    FileClaim,
    Opener,
    Sealer,
    Submission,
    is_inbox_id,
    object_name,
    parts_of,
    path_problem,
    place_of,
)

OWNER = Identity(Secret(b"o" * 32))
SIGNER = Signer(Secret(b"c" * 32))
SEALER = Sealer(OWNER.recipient, SIGNER, SeededEntropy().random_bytes)
OPENER = Opener(OWNER, SIGNER.public)
CLIENT, ONE = "c" * 16, "1" * 16
SUBMISSION = Submission(
    format=FORMAT,
    keep_id="k" * 16,
    client_id=CLIENT,
    submission=ONE,
    certificate=Signed(body=b"{}", signature=b""),
    name="run",
    submitted_ns=1,
    files=(FileClaim("a/b", 3, bytes(32)),),
    parts=bytes(32),
)


def named(raw, kind="part", submission=ONE):
    return object_name(CLIENT, submission, kind, hex_of(raw))


def test_a_part_opens_as_what_it_is():
    raw = SEALER.part(ONE, 7, b"abc")
    assert OPENER.part(named(raw), raw, submission=ONE, number=7) == b"abc"


@pytest.mark.parametrize(("submission", "number"), [(ONE, 6), ("2" * 16, 7)])
def test_a_part_opens_nowhere_else(submission, number):
    raw = SEALER.part(ONE, 7, b"abc")
    with pytest.raises(IntegrityError) as caught:
        OPENER.part(named(raw), raw, submission=submission, number=number)
    assert caught.value.code == "inbox.part"
    assert caught.value.context["object"] == named(raw)


def test_a_part_is_no_list_and_a_list_no_part():
    part, listed = SEALER.part(ONE, 0, to_msgpack(SUBMISSION)), SEALER.list(SUBMISSION)
    with pytest.raises(IntegrityError):
        OPENER.list(named(part, "list"), part)
    with pytest.raises(IntegrityError):
        OPENER.part(named(listed), listed, submission=ONE, number=0)
    assert OPENER.list(named(listed, "list"), listed) == SUBMISSION


def test_the_largest_part_fits_an_object_and_the_largest_list_too():
    assert len(SEALER.part(ONE, 0, bytes(SHARE_BYTES))) < OBJECT_BYTES_MAX
    files = tuple(
        FileClaim(f"{n:0{PATHS_BYTES_MAX // FILES_MAX}d}", 2**40, bytes(32))
        for n in range(FILES_MAX)
    )
    assert not path_problem([each.path for each in files])
    assert len(to_msgpack(replaced(SUBMISSION, files=files, parts=bytes(32 * 65_536)))) < 2**24


@pytest.mark.parametrize("other", ["signer", "recipient"])
def test_what_another_sealed_or_what_is_for_another_does_not_open(other):
    stranger = Identity(Secret(b"x" * 32))
    sealer = {
        "signer": Sealer(OWNER.recipient, stranger.signer, SeededEntropy().random_bytes),
        "recipient": Sealer(stranger.recipient, SIGNER, SeededEntropy().random_bytes),
    }[other]
    raw = sealer.part(ONE, 0, b"abc")
    with pytest.raises(IntegrityError):
        OPENER.part(named(raw), raw, submission=ONE, number=0)


@given(st.data())
def test_no_changed_bit_opens(data):
    raw = SEALER.part(ONE, 0, b"some bytes of a file")
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    changed = bytearray(raw)
    changed[at // 8] ^= 1 << at % 8
    with pytest.raises(IntegrityError):  # under the name that fits it
        OPENER.part(named(bytes(changed)), bytes(changed), submission=ONE, number=0)


TEXT = st.text(max_size=8)
HOSTILE = st.fixed_dictionaries(
    {},
    optional={
        "format": st.sampled_from([FORMAT, "x"]),
        "client_id": st.sampled_from([CLIENT, "", "../x"]),
        "submission": st.sampled_from([ONE, "2" * 16]),
        "name": st.sampled_from(["run", "", "Run"]),
        "submitted_ns": st.integers(-(2**63), 2**63 - 1),
        "files": st.lists(
            st.builds(FileClaim, TEXT, st.integers(-(2**63), 2**64 - 1), st.binary(max_size=33)),
            max_size=4,
        ).map(tuple),
        "parts": st.binary(max_size=100),
    },
)


@given(HOSTILE)
def test_a_list_is_sound_or_refused(lies):
    raw = SEALER.list(replaced(SUBMISSION, **lies))
    try:
        found = OPENER.list(named(raw, "list"), raw)
    except IntegrityError as error:
        if error.code != "inbox.list":
            raise
        return
    assert (found.client_id, found.submission) == (CLIENT, ONE)
    assert len(found.part_names) == parts_of(found.size_bytes)
    for each in found.files:
        assert each.size_bytes >= 0
        assert not {"", ".", ".."} & set(each.path.split("/"))


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused_as_a_list(body):
    raw = SEALER._sealed(b"mklist0\n", body)
    with pytest.raises(KeepError) as caught:
        OPENER.list(named(raw, "list"), raw)
    assert caught.value.code == "inbox.list"


@given(st.one_of(st.text(), st.from_regex(r"inbox/[0-9a-f/]{0,120}(part|list)/[0-9a-f]{64}")))
def test_a_name_is_ours_in_one_form_only(name):
    found = place_of(name)
    if found is not None:
        kind = "list" if found.is_list else "part"
        assert object_name(found.client_id, found.submission, kind, found.digest) == name
        assert is_inbox_id(found.client_id)


@pytest.mark.parametrize(
    "paths",
    [
        [],
        [""],
        ["/a"],
        ["a/"],
        ["a//b"],
        ["."],
        ["../a"],
        ["a/../b"],
        ["a/./b"],
        ["a\0b"],
        ["a\nb"],
        ["a\x7f"],
        ["\udc80"],
        ["x" * (PATH_BYTES_MAX + 1)],
        ["/".join("a" * (PATH_PARTS_MAX + 1))],
        ["a", "a"],
        ["a/b/c", "a"],
        ["a", "a/b/c"],
        [f"{n}{'x' * 1000}" for n in range(PATHS_BYTES_MAX // 1000)],
        [str(n) for n in range(FILES_MAX + 1)],
    ],
)
def test_paths_that_lead_elsewhere_or_are_too_many_are_refused(paths):
    assert path_problem(paths)


@pytest.mark.parametrize(
    "paths", [["a"], ["a", "ab/c", "a.b"], ["x" * PATH_BYTES_MAX], ["/".join("a" * 64)], ["ø ü/…"]]
)
def test_ordinary_paths_are_taken(paths):
    assert not path_problem(paths)
