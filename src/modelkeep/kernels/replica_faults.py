"""What went wrong with a text call, told in a fault frame and read back by the gateway.

What an upstream's worker tells is a closed set. Its words are written here and not in the frame, so
nothing of what a server elsewhere said reaches a caller; of the frame's message only the seconds
count after which to try again. A language model's own replica may say in its words what is wrong
with a call: the texts it makes reach the caller as well. What else a replica tells is
`runtime.failed`, in words that are written here: what a runtime says of itself (a traceback, a
message of the model) may name files, code or values of other calls; it goes to the gateway's log.
"""

from __future__ import annotations

from modelkeep.core.errors import (
    IntegrityError,
    KeepError,
    LimitError,
    UnavailableError,
    UsageError,
)
from modelkeep.kernels.replica_frames import FaultFrame

RETRY_S_MAX = 3600
MESSAGE_CHARS_MAX = 500
# What a caller is told of a server elsewhere.
_UPSTREAM = (
    LimitError(
        "upstream.limited",
        "the server behind this model takes no more calls now",
        hint="try again later",
    ),
    UnavailableError(
        "upstream.busy",
        "the server behind this model is too busy now",
        hint="try again later",
    ),
    UnavailableError(
        "upstream.deadline",
        "the server behind this model did not answer in time",
        hint="try again later",
    ),
    UnavailableError(
        "upstream.unreachable",
        "the server behind this model cannot be reached",
        hint="try again later",
    ),
    UnavailableError(
        "upstream.failed", "the server behind this model failed", hint="try again later"
    ),
    UsageError(
        "upstream.request",
        "the server behind this model does not take this call",
        hint="it may be longer than the model's context, or ask for what the server has not",
    ),
    UsageError(
        "upstream.kind",
        "this model is not offered for this kind of call",
        hint="the operator lists the kinds in [[upstreams]]",
    ),
    IntegrityError("upstream.answer", "the server behind this model answered what is no answer"),
)
_BY_CODE = {each.code: each for each in _UPSTREAM}
# What a language model finds wrong with a call.
_REQUEST_CODES = ("text.context", "text.kind", "text.request", "text.template")
_WITH_SECONDS = ("upstream.limited", "upstream.busy")


def fault_frame(number: int, error: KeepError) -> FaultFrame:
    """The frame that tells of an error; of its words only the seconds to wait travel."""
    code = error.code if error.code in _BY_CODE else "upstream.answer"
    seconds = error.context.get("retry_after_s")
    return FaultFrame(number, code, str(seconds) if isinstance(seconds, int) else "")


def error_of_fault(frame: FaultFrame) -> KeepError:
    """The error that a frame tells of."""
    if frame.code in _BY_CODE:
        return upstream_fault(frame.code, frame.message)
    if frame.code in _REQUEST_CODES:
        return UsageError(frame.code, frame.message[:MESSAGE_CHARS_MAX])
    return runtime_failed()


def runtime_failed() -> KeepError:
    """What a caller is told when a model could not compute, whatever its runtime said."""
    return UnavailableError(
        "runtime.failed",
        "the model could not compute an answer",
        hint="the gateway's log says what its runtime said",
    )


def printable_fault(frame: FaultFrame) -> str:
    """What a replica said, as one line for a log."""
    said = f"{frame.code[:100]}: {frame.message[:MESSAGE_CHARS_MAX]}"
    return "".join(each if each.isprintable() else " " for each in said)


def upstream_fault(code: str, detail: str = "") -> KeepError:
    """The error behind one of the upstream's codes."""
    known = _BY_CODE[code]
    more = {"retry_after_s": _seconds(detail)} if code in _WITH_SECONDS else {}
    return type(known)(code, known.message, hint=known.hint, **more)


def _seconds(detail: str) -> int:
    """What is said of waiting; a second where nothing is said that can be."""
    is_number = detail.isascii() and detail.isdigit() and len(detail) <= 6
    return min(max(int(detail), 1), RETRY_S_MAX) if is_number else 1
