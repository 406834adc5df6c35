"""The knobs of the look at a model's numbers."""

from __future__ import annotations

from modelkeep.core.record import Record, replaced

WHEN = ("admit", "always", "never")
JUDGED = ("hold", "note", "off")
ADMIT, ALWAYS, _ = WHEN


class SanitySettings(Record, frozen=True):
    """Table `[scan.sanity]` of modelkeep.toml: whether a model's numbers make sense.

    Attributes:
        when: `admit` looks at what is to be let in, `always` at what is only scanned too, `never`.
        not_finite: what NaN and infinite weights come to: `hold`, `note` or `off`. Constants of
            one number, and masks (zeros and infinities alone), are none.
        oddities: whether dead, oddly scaled and equal tensors are noted.
        scale_ratio_max: how many times larger or smaller than its siblings' a tensor's numbers may
            usually be; siblings have the same name but for numbers in it.
        backdoors: whether the last layer is tried for the trace of a backdoor; see the guide for
            how often that is right.
        tensors_max: of one file that are looked at.
    """

    when: str = ADMIT
    not_finite: str = "hold"
    oddities: bool = True
    scale_ratio_max: float = 1000.0
    backdoors: bool = False
    tensors_max: int = 20_000


def for_admission(settings: SanitySettings) -> SanitySettings:
    """What holds where something is to be let in."""
    return replaced(settings, when=ALWAYS) if settings.when == ADMIT else settings


def sanity_problems(settings: SanitySettings) -> list[tuple[bool, str]]:
    """What is wrong with `[scan.sanity]`, as `config` lists it."""
    return [
        (settings.when not in WHEN, f"scan.sanity.when is one of {', '.join(WHEN)}"),
        (
            settings.not_finite not in JUDGED,
            f"scan.sanity.not_finite is one of {', '.join(JUDGED)}",
        ),
        (
            not 1 < settings.scale_ratio_max < 1e300,
            "scan.sanity.scale_ratio_max is not a number above one",
        ),
        (settings.tensors_max < 1, "scan.sanity.tensors_max is below one"),
    ]
