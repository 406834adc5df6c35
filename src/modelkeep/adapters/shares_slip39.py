"""A 32-byte key as SLIP-39 words, M of N of which bring it back (SatoshiLabs, SLIP-0039)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelkeep.core.errors import RefusedError, UsageError, extra_hint
from modelkeep.crypto.kdf import KEY_BYTES
from modelkeep.crypto.secret import Secret

SHARES_MAX = 16  # of one group, by the standard
_WORDS_CHARS_MAX = 1000  # a share of a 32-byte key has 33 words


def split_words(key: Secret, *, threshold: int, total: int) -> tuple[str, ...]:
    """Split a key: any `threshold` of the `total` mnemonics give it back, fewer give nothing.

    Raises:
        UsageError: `keys.split` or `extra.missing`.
    """
    if not 2 <= threshold <= total <= SHARES_MAX:
        raise UsageError(
            "keys.split",
            f"{threshold} of {total} shares cannot be made",
            hint=f"2 <= needed <= shares <= {SHARES_MAX}, such as --needed 3 --shares 5",
        )
    slip39 = _library()
    groups = slip39.generate_mnemonics(1, [(threshold, total)], key.reveal())
    return tuple(groups[0])


def joined_words(shares: Sequence[str]) -> Secret:
    """Bring a key back from enough of its shares.

    Raises:
        UsageError: `keys.words`, when a share is mistyped or there are too many.
        RefusedError: `keys.shares`, when they are too few or do not belong together.
    """
    slip39 = _library()
    if not 1 <= len(shares) <= SHARES_MAX or max(map(len, shares)) > _WORDS_CHARS_MAX:
        raise UsageError("keys.words", f"give 1 to {SHARES_MAX} shares, one on a line")
    cleaned = dict.fromkeys(" ".join(share.lower().split()) for share in shares)
    needed = 0
    for number, share in enumerate(cleaned, start=1):
        try:
            needed = slip39.share.Share.from_mnemonic(share).member_threshold
        except slip39.MnemonicError:  # its text would repeat words of the share
            raise UsageError(
                "keys.words",
                f"share {number} is mistyped: its checksum is wrong",
                hint="a share is 33 words of the SLIP-39 list",
            ) from None
    try:
        # More than are needed are no error, but the library takes no more.
        key = Secret(slip39.combine_mnemonics(list(cleaned)[:needed]))
    except slip39.MnemonicError:
        raise RefusedError(
            "keys.shares",
            "these shares are too few, or of different splits",
            hint="`modelkeep keys list` says how many are needed",
        ) from None
    if len(key) != KEY_BYTES:
        raise RefusedError("keys.shares", "these shares are not of a modelkeep key")
    return key


def _library() -> Any:
    try:
        import shamir_mnemonic  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "extra.missing",
            "splitting keys needs shamir-mnemonic",
            hint=extra_hint("shares"),
        ) from error
    return shamir_mnemonic
