"""The order of one call: one table that every call walks, whatever the protocol.

    ARRIVED -> KNOWN -> JUDGED -> ANSWERED -> CLEARED -> RECORDED -> SENT
                              -> OPENED (parts leave) -> CLEARED -> RECORDED -> SENT

A stream is OPENED when its intent is durable: from then on parts leave, and the last of it only
once the whole is recorded.

Two rules. All order lives in `TRANSITIONS`: a step that is not in it is a bug and stops the call
(AssertionError), it is never skipped. And this file does not know what a step does, only which
may follow which. A test walks the table and proves that no path reaches SENT without RECORDED,
that nobody unknown reaches JUDGED, and that COUNTED, the way out before authentication, leads to
TURNED_AWAY alone.
"""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """Where a call is."""

    ARRIVED = "arrived"  # its head is parsed
    KNOWN = "known"  # the principal is authenticated
    JUDGED = "judged"  # permitted, within limits, valid against the schema
    ANSWERED = "answered"  # a replica computed
    OPENED = "opened"  # a stream's intent is durable: parts of it may leave
    CLEARED = "cleared"  # the answer was checked
    REFUSED = "refused"  # an error takes the answer's place
    RECORDED = "recorded"  # its record is durable
    SENT = "sent"  # answer or error handed to the connection
    COUNTED = "counted"  # refused before authentication; counted in a bounded summary
    TURNED_AWAY = "turned_away"  # an error without content was handed to the connection
    LOST = "lost"  # the record could not be written or the caller is gone: nothing leaves


class Step(StrEnum):
    """What happens to a call."""

    KNOW = "know"
    JUDGE = "judge"
    ANSWER = "answer"
    OPEN = "open"
    PART = "part"
    CLEAR = "clear"
    REFUSE = "refuse"
    RECORD = "record"
    SEND = "send"
    COUNT = "count"
    LOSE = "lose"


TRANSITIONS: dict[Stage, dict[Step, Stage]] = {
    Stage.ARRIVED: {Step.KNOW: Stage.KNOWN, Step.COUNT: Stage.COUNTED},
    Stage.COUNTED: {Step.SEND: Stage.TURNED_AWAY, Step.LOSE: Stage.LOST},
    Stage.KNOWN: {Step.JUDGE: Stage.JUDGED, Step.REFUSE: Stage.REFUSED},
    Stage.JUDGED: {
        Step.ANSWER: Stage.ANSWERED,
        Step.OPEN: Stage.OPENED,
        Step.REFUSE: Stage.REFUSED,
        Step.LOSE: Stage.LOST,
    },
    Stage.ANSWERED: {Step.CLEAR: Stage.CLEARED, Step.REFUSE: Stage.REFUSED},
    Stage.OPENED: {
        Step.PART: Stage.OPENED,
        Step.CLEAR: Stage.CLEARED,
        Step.REFUSE: Stage.REFUSED,
    },
    Stage.CLEARED: {Step.RECORD: Stage.RECORDED, Step.LOSE: Stage.LOST},
    Stage.REFUSED: {Step.RECORD: Stage.RECORDED, Step.LOSE: Stage.LOST},
    Stage.RECORDED: {Step.SEND: Stage.SENT, Step.LOSE: Stage.LOST},
    Stage.SENT: {},
    Stage.TURNED_AWAY: {},
    Stage.LOST: {},
}


class Passage:
    """One call's walk through the table; a step costs about 0.1 us."""

    __slots__ = ("stage",)

    def __init__(self) -> None:
        self.stage = Stage.ARRIVED

    def step(self, step: Step) -> None:
        """Go on, if the table has this step here; anything else is our own bug."""
        following = TRANSITIONS[self.stage].get(step)
        if following is None:
            raise AssertionError(f"a call that is {self.stage} cannot {step}")
        self.stage = following
