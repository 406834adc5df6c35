"""Unit tests of scan.pickles: the machine of names, its bounds, and what it says."""

import pickle
import pickletools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.core.verdict import Decision, Severity, judged
from modelkeep.scan import symbols, symbols_dangerous
from modelkeep.scan.opcodes import OPCODES
from modelkeep.scan.pickles import TORCH_LEGACY_MAGIC, pickle_findings, probe_findings
from modelkeep.scan.settings import ScanSettings
from modelkeep.scan.symbols import is_allowed, is_dangerous, rewritten
from modelkeep.scan.symbols_values import Symbol

SETTINGS = ScanSettings()


def look(raw, **bounds):
    return pickle_findings("m.pkl", memoryview(raw), ScanSettings(**bounds))


def rules(findings):
    return [finding.rule for finding in findings]


def test_the_table_knows_every_opcode_of_python():
    ours = {code: opcode.name for code, opcode in OPCODES.items()}
    assert ours == {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


def test_evidence_says_what_is_called_and_where():
    (finding,) = look(b"cposix\nsystem\n(S'id'\ntR.")
    assert finding.evidence == "calls posix.system (byte 0)"
    assert (finding.severity, finding.reference) == (Severity.HIGH, "CWE-502, AML.T0011.000")


def test_an_import_without_a_call_is_told_from_a_call():
    (finding,) = look(b"cposix\nsystem\n.")
    assert finding.evidence == "imports posix.system (byte 0)"


def test_an_unknown_name_holds():
    (finding,) = look(b"csomewhere\nThing\n)R.")
    assert (finding.rule, finding.severity) == ("scan.pickle.global", Severity.MEDIUM)


def test_the_walk_imports_nothing():
    assert "antigravity" not in sys.modules
    look(b"cantigravity\nfly\n)R.")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "raw",
    [
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"ctorch\nFloatStorage\nK\x05\x85R.",
        b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.",
        b"ccopyreg\n_reconstructor\n(ccollections\nCounter\nccollections\nCounter\nNtR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(ccollections\nCounter\n(K\x00tS'b'\ntR.",
        b"cnumpy.ma.core\n_mareconstruct\n(cnumpy\nrecord\ncnumpy\nndarray\n(I99999\ntS'b'\ntR.",
        b"clogging\ngetLogger\n(S'x'\ntR}S'disabled'\nI01\nsb.",
        b"cbuiltins\nlist\n(cbuiltins\nrange\nJ\xff\xff\xff\x7f\x85RtR.",
    ],
)
def test_an_allowed_name_in_another_shape_holds(raw):
    assert judged(look(raw)).decision is Decision.HOLD


def test_a_number_of_the_memo_that_allocates_is_denied():
    assert "scan.pickle.memo" in rules(look(b"]r\xff\xff\xff\x7f."))
    assert "scan.pickle.memo" in rules(look(b"]p2000000000\n."))


def test_all_pickles_of_a_file_are_read_and_bytes_after_them_hold():
    one = pickle.dumps([1])
    assert look(one * 3) == ()
    assert rules(look(one + b"\x00rest")) == ["scan.pickle.trailing"]
    assert rules(look(one + b"cposix\nsystem\n)R.")) == ["scan.pickle.dangerous"]


def test_the_old_format_of_torch_is_known_by_its_number():
    assert pickle.dumps(0x1950A86A20F9469CFC6C, 2) == TORCH_LEGACY_MAGIC


def test_streams_are_counted_one_past_the_bound():
    one = pickle.dumps(1)
    assert look(one * 2, pickle_streams_max=2) == ()
    assert rules(look(one * 3, pickle_streams_max=2)) == ["scan.pickle.limit"]


def test_opcodes_are_counted_one_past_the_bound():
    raw = b"N0" * 5 + b"N."
    assert look(raw, pickle_opcodes_max=12) == ()
    assert rules(look(raw, pickle_opcodes_max=11)) == ["scan.pickle.limit"]


def test_names_are_counted_one_past_the_bound():
    def names(count):
        return b"".join(b"cm\nn%d\n0" % number for number in range(count)) + b"N."

    assert rules(look(names(3), pickle_symbols_max=3)) == ["scan.pickle.global"] * 3
    assert "scan.pickle.limit" in rules(look(names(4), pickle_symbols_max=3))


def test_memory_is_bounded_one_past_the_bound():
    raw = b"\x80\x04N" + b"\x94" * 3 + b"."
    assert look(raw, pickle_memo_max=3) == ()
    assert rules(look(raw, pickle_memo_max=2)) == ["scan.pickle.limit"]
    raw = pickle.dumps(["ab", "cd"])
    assert look(raw, pickle_text_bytes_max=4) == ()
    assert rules(look(raw, pickle_text_bytes_max=3)) == ["scan.pickle.limit"]


def test_padding_past_a_bound_does_not_hide_a_pickle_without_magic():
    raw = b"N0" * 50 + b"cposix\nsystem\n)R."
    settings = ScanSettings(pickle_opcodes_max=20)
    (finding,) = probe_findings("x", memoryview(raw), settings)
    assert finding.rule == "scan.pickle.limit"


def test_a_cut_pickle_is_denied_at_every_byte():
    for protocol in range(6):
        raw = pickle.dumps({"a": [1, 2.5, "text"], "b": (None, b"bytes")}, protocol)
        for cut in range(len(raw)):
            assert judged(look(raw[:cut])).decision is Decision.DENY, (protocol, cut)


def test_a_cut_after_acting_says_what_was_called():
    finding = look(b"cposix\nsystem\n(S'id'\ntR")[-1]
    assert finding.evidence.endswith("a loader has by then called posix.system")


def test_text_is_no_pickle_to_the_probe():
    for text in (b"class: foo\nbar: x\n", b"import os\nos.system('x')\n", b"N.", b"I1\n."):
        assert probe_findings("x", memoryview(text), SETTINGS) == ()
    assert probe_findings("x", memoryview(b"cos\nsystem\n)R."), SETTINGS)


def test_names_are_allowed_exactly_and_never_by_their_module():
    assert is_allowed(Symbol("collections", "OrderedDict"))
    for name in ("OrderedDict.__init__", "OrderedDict.fromkeys", "abc", "_sys.modules"):
        assert not is_allowed(Symbol("collections", name))
    assert not is_allowed(Symbol("numpy", "load"))
    assert is_dangerous(Symbol("collections", "OrderedDict.__init__.__globals__"))
    assert is_dangerous(Symbol("os.path", "join"))


def test_no_name_is_both_allowed_and_dangerous():
    listed = [
        Symbol(module, name) for module, names in symbols._harmless().items() for name in names
    ]
    assert len(listed) > 2000
    # Data classes of checkpoints, below a package that is dangerous but for them.
    vetted = [f"torch.distributed.checkpoint.{part}" for part in ("metadata", "filesystem")]
    named = [each for each in listed if symbols_dangerous.is_dangerous(each)]
    assert [each for each in named if each.module not in vetted] == []
    assert [each for each in listed if rewritten(each.module, each.name) != each] == []
    for name in ("builtins.getattr", "functools.partial", "torch.storage._load_from_bytes"):
        module, _, last = name.rpartition(".")
        assert is_dangerous(Symbol(module, last))  # in every shape but one


PIECES = st.sampled_from(
    [bytes([code]) for code in OPCODES]
    + [
        b"cposix\nsystem\n",
        b"(S'id'\ntR",
        b"\x8c\x02os\x8c\x06system\x93",
        b"\x80\x04",
        b")R",
        b"N",
    ]
)


@given(st.lists(st.one_of(PIECES, st.binary(max_size=6)), max_size=30).map(b"".join))
@settings(deadline=None, max_examples=400)
def test_no_bytes_make_the_walk_raise(raw):
    pickle_findings("x", memoryview(raw), SETTINGS)
    probe_findings("x", memoryview(raw), SETTINGS)


@given(st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.text(), inner),
        st.frozensets(st.text()),
    ),
    max_leaves=12,
), st.integers(0, 5))  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_plain_data_is_always_allowed(value, protocol):
    assert judged(look(pickle.dumps(value, protocol))).decision is Decision.ALLOW
