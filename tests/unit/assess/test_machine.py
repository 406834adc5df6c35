"""What is always worth knowing of a machine before a model is served."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.assess.machine import PROCESS_BYTES, ModelNeed, standing
from modelkeep.core.record import replaced
from modelkeep.core.verdict import Severity
from modelkeep.ports.host import Bounds, Clock, Host, Memory, Mode, PortState, Space
from modelkeep.ports.sandbox import CALLS, USER, Measure

YEAR_2027_NS = 1_800_000_000 * 10**9
WELL = Host(
    system="linux",
    processor="x86_64",
    cpu_flags=("avx2", "avx512_bf16", "avx512_vnni", "f16c"),
    user=1000,
    memory=Memory(available_bytes=8 << 30, total_bytes=16 << 30, swap_bytes=0, bound_by="x"),
    spaces=(Space(folder="/keep", free_bytes=1 << 40, free_files=10**9),),
    private=(Mode(path="/keep", mode=stat.S_IFDIR | 0o755, owner=1000, is_folder=True),),
    ports=(PortState(address="127.0.0.1", port=8443),),
    listeners=(),
    clock=Clock(now_ns=YEAR_2027_NS, is_synchronised=True, error_us_max=500),
    has_entropy=True,
    bounds=Bounds(
        open_files=65536,
        locked_bytes=-1,
        processes=-1,
        core_bytes=0,
        address_bytes=-1,
        overcommit=0,
        mappings=65530,
    ),
    isolation=(Measure(name=CALLS, is_on=True, why=""),),
)
MODEL = ModelNeed(name="m:1", size_bytes=1 << 30, dtypes=("FP32",))


def found(host, models=(MODEL,), *, replicas=2):
    return [
        (each.rule.removeprefix("preflight."), each.severity)
        for each in standing(host, models, replicas=replicas)
    ]


def test_of_a_machine_that_is_well_nothing_is_said():
    assert found(WELL) == []


@given(st.integers(0, 1 << 42), st.integers(0, 1 << 40), st.integers(1, 64))
def test_memory_that_surely_does_not_suffice_is_grave_and_what_may_not_is_a_risk(
    free, size, replicas
):
    host = replaced(WELL, memory=replaced(WELL.memory, available_bytes=free))
    model = replaced(MODEL, size_bytes=size)
    grave = ("memory", Severity.HIGH) in found(host, [model], replicas=replicas)
    risk = ("memory", Severity.MEDIUM) in found(host, [model], replicas=replicas)
    assert grave == (size > free)
    assert risk == (not grave and size * (1 + replicas) + replicas * PROCESS_BYTES > free)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"memory": Memory()}, ("memory", Severity.NOTE)),
        ({"cpu_flags": None}, ("cpu", Severity.NOTE)),
        ({"cpu_flags": ("sse2",)}, ("cpu", Severity.NOTE)),
        ({"spaces": (Space(folder="/keep", free_bytes=1),)}, ("disk", Severity.MEDIUM)),
        ({"spaces": (Space(folder="/keep"),)}, ("disk", Severity.NOTE)),
        (
            {"spaces": (Space(folder="/k", free_bytes=1 << 40, free_files=3),)},
            ("disk", Severity.MEDIUM),
        ),
        ({"private": (Mode(path="k", mode=0o100644, owner=0),)}, ("permission", Severity.MEDIUM)),
        ({"private": (Mode(path="k", mode=0o100620, owner=0),)}, ("permission", Severity.MEDIUM)),
        ({"private": (Mode(path="k", mode=0o100600, owner=7),)}, ("permission", Severity.MEDIUM)),
        ({"private": (Mode(path="k"),)}, ("permission", Severity.NOTE)),
        ({"user": 0, "private": ()}, ("root", Severity.NOTE)),
        (
            {"isolation": (Measure(name=CALLS, is_on=False, why="x"),)},
            ("isolation", Severity.MEDIUM),
        ),
        (
            {"isolation": (Measure(name=USER, is_on=False, why="x"),)},
            ("isolation", Severity.NOTE),
        ),
        (
            {"ports": (PortState(address="::", port=1, why_not="taken"),)},
            ("port", Severity.HIGH),
        ),
        ({"listeners": None}, ("listening", Severity.NOTE)),
        ({"listeners": (22,)}, ("listening", Severity.NOTE)),
        ({"clock": Clock(now_ns=0, is_synchronised=True)}, ("clock", Severity.MEDIUM)),
        ({"clock": Clock(now_ns=YEAR_2027_NS)}, ("clock", Severity.NOTE)),
        (
            {"clock": Clock(now_ns=YEAR_2027_NS, is_synchronised=False)},
            ("clock", Severity.NOTE),
        ),
        (
            {"clock": Clock(now_ns=YEAR_2027_NS, is_synchronised=True, error_us_max=10**8)},
            ("clock", Severity.MEDIUM),
        ),
        ({"has_entropy": None}, ("entropy", Severity.NOTE)),
        ({"has_entropy": False}, ("entropy", Severity.HIGH)),
        ({"bounds": replaced(WELL.bounds, open_files=256)}, ("limit", Severity.MEDIUM)),
        ({"bounds": replaced(WELL.bounds, processes=10)}, ("limit", Severity.MEDIUM)),
        ({"bounds": replaced(WELL.bounds, mappings=100)}, ("limit", Severity.MEDIUM)),
        ({"bounds": replaced(WELL.bounds, core_bytes=-1)}, ("limit", Severity.NOTE)),
        ({"bounds": replaced(WELL.bounds, overcommit=2)}, ("limit", Severity.NOTE)),
        ({"bounds": replaced(WELL.bounds, address_bytes=1)}, ("limit", Severity.NOTE)),
    ],
)
def test_each_thing_that_is_wrong_is_said_as_gravely_as_it_is(changes, wanted):
    assert found(replaced(WELL, **changes)) == [wanted]


def test_swap_is_said_only_where_memory_cannot_be_locked():
    swapping = replaced(WELL, memory=replaced(WELL.memory, swap_bytes=1 << 30))
    assert found(swapping) == []
    bounded = replaced(swapping, bounds=replaced(WELL.bounds, locked_bytes=65536))
    assert found(bounded) == [("limit", Severity.NOTE)]


def test_types_without_their_instructions_are_named():
    host = replaced(WELL, cpu_flags=("avx2",))
    model = replaced(MODEL, dtypes=("BF16", "FP16", "INT8"))
    findings = standing(host, [model], replicas=1)
    assert [each.evidence.split()[0] for each in findings] == ["BF16", "FP16", "INT8"]


def test_of_a_machine_of_which_nothing_is_known_only_notes_are_said():
    assert {severity for _, severity in found(Host())} == {Severity.NOTE}
