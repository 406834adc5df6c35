"""What is demanded of a machine against what it has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.assess.demands import asked_of, unmet
from modelkeep.assess.settings import (
    Demands,
    PreflightSettings,
    accelerator,
    demand_sound,
    place,
    preflight_problems,
    shown_place,
)
from modelkeep.core.errors import UsageError
from modelkeep.core.record import replaced
from modelkeep.core.verdict import Severity
from modelkeep.ports.host import Accelerator, Host, Memory, PortState, Reached, Space

GIB = 1 << 30
HOST = Host(
    system="linux",
    distribution=("debian", "12"),
    kernel="6.1.0",
    libc="glibc 2.36",
    python="3.11.7",
    processor="x86_64",
    cpu_flags=("avx2", "avx512_bf16"),
    memory=Memory(available_bytes=8 * GIB, total_bytes=16 * GIB, bound_by="the machine"),
    spaces=(Space(folder="/keep", free_bytes=100 * GIB),),
    packages={"numpy": "2.4.6", "absent": ""},
    accelerators=(Accelerator(kind="cuda", devices=("one", "two")),),
    reached=(Reached(place="db:5432"), Reached(place="api:80", why_not="Connection refused")),
    ports=(PortState(address="", port=8443), PortState(address="", port=80, why_not="taken")),
)
MET = Demands(
    min_ram="8 GiB",
    min_disk="100 GiB",
    cpu_flags=("AVX2",),
    accelerators=("cuda:2",),
    os=("ubuntu", "debian 12"),
    kernel=">=5.13",
    libc="glibc>=2.31",
    python=">=3.11",
    packages=("numpy>=2", "numpy"),
    reachable=("db:5432",),
    ports_free=(8443,),
)
FAILING = [
    ("min_ram", "9 GiB", "preflight.memory"),
    ("min_disk", "101 GiB", "preflight.disk"),
    ("cpu_flags", ("amx_bf16",), "preflight.cpu"),
    ("accelerators", ("cuda:3",), "preflight.accelerator"),
    ("accelerators", ("rocm",), "preflight.accelerator"),
    ("os", ("ubuntu",), "preflight.os"),
    ("kernel", ">=7", "preflight.kernel"),
    ("libc", "glibc>=2.40", "preflight.libc"),
    ("libc", "musl", "preflight.libc"),
    ("python", "<3.11", "preflight.python"),
    ("packages", ("numpy<2",), "preflight.package"),
    ("packages", ("absent",), "preflight.package"),
    ("reachable", ("api:80",), "preflight.reachable"),
    ("reachable", ("nobody-tried:1",), "preflight.reachable"),
    ("ports_free", (80,), "preflight.port"),
]


def test_a_machine_that_has_everything_lacks_nothing():
    demand_sound(MET)
    assert unmet(MET, HOST, severity=Severity.HIGH) == ()


@pytest.mark.parametrize(("field", "value", "rule"), FAILING)
def test_each_demand_that_is_not_met_is_one_finding(field, value, rule):
    demands = replaced(Demands(), **{field: value})
    demand_sound(demands)
    (finding,) = unmet(demands, HOST, severity=Severity.MEDIUM)
    assert (finding.rule, finding.severity) == (rule, Severity.MEDIUM)


def test_none_hides_another():
    failing = {field: value for field, value, _ in FAILING}
    found = {each.rule for each in unmet(Demands(**failing), HOST, severity=Severity.HIGH)}
    assert found == {rule for _, _, rule in FAILING}


def test_what_nobody_could_find_out_does_not_meet_a_demand():
    found = {each.rule for each in unmet(MET, Host(), severity=Severity.HIGH)}
    assert found == {rule for _, _, rule in FAILING}


@given(st.integers(0, 1 << 45), st.integers(0, 1 << 45))
def test_memory_is_enough_exactly_when_it_is(free, wanted):
    host = replaced(HOST, memory=replaced(HOST.memory, available_bytes=free))
    findings = unmet(Demands(min_ram=str(wanted)), host, severity=Severity.HIGH)
    assert bool(findings) == (free < wanted)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_ram", "much"),
        ("min_disk", "-1"),
        ("accelerators", ("tpu",)),
        ("accelerators", ("cuda:0",)),
        ("python", "3.11"),
        ("packages", ("numpy=>2",)),
        ("packages", ("",)),
        ("reachable", ("nowhere",)),
        ("reachable", ("host:99999",)),
        ("ports_free", (0,)),
        ("cpu_flags", ("",)),
    ],
)
def test_a_demand_that_cannot_be_checked_is_refused(field, value):
    demands = replaced(Demands(), **{field: value})
    with pytest.raises(UsageError):
        demand_sound(demands)
    problems = preflight_problems(PreflightSettings(advise=demands))
    assert next(text for is_bad, text in problems if is_bad).startswith("preflight.advise")


def test_only_what_is_demanded_is_asked_for():
    asked = asked_of(Demands(min_ram="1"), folder="/keep")
    assert (asked.folders, asked.packages, asked.reachable, asked.ports) == ((), (), (), ())
    asked = asked_of(MET, folder="/keep")
    assert asked.folders == ("/keep",)
    assert asked.accelerators == ("cuda",)
    assert asked.ports == (("", 8443),)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("db:5432", ("tcp", "db", 5432)),
        ("[::1]:80", ("tcp", "::1", 80)),
        ("https://host/x", ("tcp", "host", 443)),
        ("postgresql://u:p@db/name?sslmode=require", ("postgres", "db", 5432)),
        ("/data/model", ("file", "/data/model", 0)),
        ("file:///data", ("file", "/data", 0)),
    ],
)
def test_a_place_is_understood(text, found):
    assert place(text) == found


def test_what_is_shown_of_a_place_has_no_secret_in_it():
    shown = shown_place("postgresql://user:hunter2@db:5433/name?password=hunter2")
    assert shown == "postgres://db:5433"
    with pytest.raises(UsageError) as refused:
        place("postgresql://user:hunter2@:x/")
    assert "hunter2" not in str(refused.value)


@given(st.text(max_size=80))
def test_no_text_breaks_the_readers_of_demands(text):
    for read in (place, accelerator, shown_place):
        try:
            read(text)
        except UsageError as error:
            assert error.code == "require.value"  # noqa: PT017 - either outcome is fine
