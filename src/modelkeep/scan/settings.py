"""The scanner's knobs: how much it looks at before it says that it cannot judge."""

from __future__ import annotations

from modelkeep.core.record import Record

_MIB = 1024 * 1024


class ScanSettings(Record, frozen=True):
    """Table `[scan]` of modelkeep.toml. Past a bound a file is held, never passed unseen.

    Attributes:
        member_bytes_max: plaintext of one compressed member or file, the only thing the scanner
            copies; three of them keep its memory under 200 MB.
        expanded_bytes_max: plaintext of all compressed members of one file together; at 200 MB/s
            inflating it takes three seconds.
        bomb_ratio_max: how many times its size a compressed member beyond those bounds may claim
            before it counts as an attack; deflate of real weights stays under 10.
        members_max: entries of one archive; a sharded torch file has about 5,000.
        depth_max: archives inside archives; a checkpoint in a bundle in a release is three.
        pickle_opcodes_max: opcodes of one pickle file; the largest benign one seen, a forest of
            tree objects, has 2 million; 5 million take about five seconds.
        pickle_streams_max: pickles one after the other in one file; torch's old format has five.
        pickle_symbols_max: different names that one pickle may ask for; benign ones have under 60.
        line_bytes_max: one line of a text opcode; names are under 200 bytes.
        array_header_bytes_max: the header of a NumPy file; NumPy itself refuses over 10,000.
        findings_max: findings of one file; a verdict shows a hundred.
    """

    member_bytes_max: int = 64 * _MIB
    expanded_bytes_max: int = 512 * _MIB
    bomb_ratio_max: int = 100
    members_max: int = 50_000
    depth_max: int = 4
    pickle_opcodes_max: int = 5_000_000
    pickle_streams_max: int = 64
    pickle_symbols_max: int = 1_000
    line_bytes_max: int = 64 * 1024
    array_header_bytes_max: int = 64 * 1024
    findings_max: int = 1_000
