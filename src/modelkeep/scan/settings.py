"""The scanner's knobs: how much it looks at before it says that it cannot judge."""

from __future__ import annotations

from modelkeep.core.record import Record
from modelkeep.scan.sanity_settings import SanitySettings

_MIB = 1024 * 1024


class ScanSettings(Record, frozen=True):
    """Table `[scan]` of modelkeep.toml. Past a bound a file is held, never passed unseen.

    Attributes:
        member_bytes_max: plaintext of one compressed member or file, the only thing the scanner
            copies (twice while it joins the parts): its memory stays under 200 MB.
        expanded_bytes_max: plaintext of all compressed members of one file together: seconds of
            inflating.
        bomb_ratio_max: how many times its size a compressed member beyond those bounds may claim
            before it counts as an attack; only data that is nearly all alike packs so well.
        filled_bytes_max: data of an HDF5 file that it does not store: a reader fills it in.
        filled_ratio_max: how many times what it stores that may be; deflate gets at most 1,032.
        packed_values_max: values of one MessagePack or UBJSON file, at a microsecond each;
            numbers in a row, and typed lists of them, cost less.
        packed_depth_max: lists inside lists of such a file; readers recurse, models need ten.
        members_max: entries of one archive and those nested in it; torch writes one per tensor.
        depth_max: archives inside archives; a checkpoint in a bundle in a release is three.
        pickle_opcodes_max: opcodes of all pickles of one file, at about a microsecond each.
        pickle_memo_max: values that one pickle may remember, at about 100 bytes each.
        pickle_text_bytes_max: short texts of one pickle that may turn out to be names.
        pickle_streams_max: pickles one after the other in one file; torch's old format has five.
        pickle_symbols_max: different names that one pickle may ask for; models need tens.
        line_bytes_max: one line of a text opcode.
        array_header_bytes_max: the header of a NumPy file; structured types need the most, and
            NumPy itself refuses over 10,000 bytes unless told otherwise.
        text_bytes_max: one document (JSON, YAML, XML) that is read as a whole; a tokenizer with its
            merges is larger, and is read only if a key that matters stands in it.
        document_nodes_max: values of one document, at about 100 bytes each.
        findings_max: findings of one file; a verdict shows a hundred.
        sanity: whether a model's numbers make sense.
    """

    member_bytes_max: int = 64 * _MIB
    expanded_bytes_max: int = 512 * _MIB
    bomb_ratio_max: int = 100
    filled_bytes_max: int = 64 * _MIB
    filled_ratio_max: int = 1_000
    packed_values_max: int = 2_000_000
    packed_depth_max: int = 32
    members_max: int = 50_000
    depth_max: int = 4
    pickle_opcodes_max: int = 5_000_000
    pickle_memo_max: int = 500_000
    pickle_text_bytes_max: int = 32 * _MIB
    pickle_streams_max: int = 64
    pickle_symbols_max: int = 1_000
    line_bytes_max: int = 64 * 1024
    array_header_bytes_max: int = 64 * 1024
    text_bytes_max: int = 16 * _MIB
    document_nodes_max: int = 1_000_000
    findings_max: int = 1_000
    sanity: SanitySettings = SanitySettings()
