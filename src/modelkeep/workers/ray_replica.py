"""A replica as an actor of Ray: opens its weights in memory, answers sealed batches of calls.

It knows nothing of Ray: `adapters.ray_cluster` deploys this class. What reaches it through Ray is
ciphertext, under a key that is made anew whenever the bridge starts:

- the weights come in parts, each sealed under its number, name and version; they are opened into a
  memory file that is sealed against changes, and the model is loaded from there;
- a batch of calls comes as one sealed object, and its replies go back as another.

So neither lies readable in Ray's object store, which may be written to a disk. The key comes by a
call of its own, which Ray holds in the memory of processes only. Beyond that the code is that of
`workers.replica`: the same checks of a call's form, the same joining of rows, the same runtime.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator, Sequence

from modelkeep.adapters.memory_file import MemoryFile
from modelkeep.core.errors import IntegrityError, KeepError
from modelkeep.core.record import Row, from_json, msgpack_decoder, to_msgpack
from modelkeep.crypto.aead import TAG_BYTES, Cipher, opened_blob, sealed_blob
from modelkeep.crypto.kdf import SALT_BYTES, derived_key
from modelkeep.crypto.secret import Secret
from modelkeep.kernels.replica_frames import AnswerFrame, CallFrame, FaultFrame
from modelkeep.workers.plan import RayModel
from modelkeep.workers.replica import computed, misfit, split_answers

PART_BYTES = 16 * 1024 * 1024
KEY_BYTES = 32
_CALLS, _REPLIES = "ray-calls", "ray-replies"


class Calls(Row, frozen=True):
    """Calls that travel together."""

    calls: tuple[CallFrame, ...]


class Replies(Row, frozen=True):
    """Their replies, in the same order."""

    replies: tuple[AnswerFrame | FaultFrame, ...]


_decoded_calls = msgpack_decoder(Calls, what="a batch of calls")
_decoded_replies = msgpack_decoder(Replies, what="a batch of replies")


# ---- weights --------------------------------------------------------------------------------


def sealed_parts(key: Secret, weights: memoryview, model: RayModel) -> Iterator[bytes]:
    """The weights, ready to leave this machine."""
    assert len(weights) == model.size_bytes
    cipher = _weights_cipher(key)
    for number, start in enumerate(range(0, len(weights), PART_BYTES)):
        part = weights[start : start + PART_BYTES]
        yield cipher.seal(number, part, bound=_bound(model))


def opened_parts(key: Secret, parts: Iterable[memoryview], model: RayModel) -> MemoryFile:
    """The weights in a sealed memory file; every part is proven, and that none is missing.

    Raises:
        IntegrityError: `aead.tag` or `ray.parts`; nothing of the plaintext stays.
        UnavailableError: `memory.full`.
    """
    made = MemoryFile(f"model-{model.model}")
    try:
        target = made.allocate(model.size_bytes)
        cipher, at = _weights_cipher(key), 0
        for number, part in enumerate(parts):
            size = len(part) - TAG_BYTES
            if size != min(PART_BYTES, model.size_bytes - at) or size <= 0:
                raise IntegrityError("ray.parts", "a part of the model has another size")
            into = target[at : at + size]
            cipher.open_into(number, part, into, bound=_bound(model))
            at += size
        if at != model.size_bytes:
            raise IntegrityError("ray.parts", "a part of the model is missing")
        made.sealed()
    except BaseException:
        made.wiped()
        raise
    return made


def _weights_cipher(key: Secret) -> Cipher:
    return Cipher(derived_key(key, "ray-weights"))


def _bound(model: RayModel) -> bytes:
    return f"{model.model}:{model.version}:{model.size_bytes}".encode()


# ---- calls ----------------------------------------------------------------------------------


def sealed_calls(key: Secret, calls: Sequence[CallFrame]) -> bytes:
    """Calls, ready to leave this machine."""
    return _sealed(key, Calls(tuple(calls)), _CALLS)


def opened_calls(key: Secret, blob: bytes) -> tuple[CallFrame, ...]:
    """What `sealed_calls` made.

    Raises:
        IntegrityError: `aead.short`, `aead.tag`, or no batch of calls.
    """
    batch: Calls = _decoded_calls(memoryview(opened_blob(key, blob, purpose=_CALLS)))
    return batch.calls


def sealed_replies(key: Secret, replies: Sequence[AnswerFrame | FaultFrame]) -> bytes:
    """Replies, ready to leave this machine."""
    return _sealed(key, Replies(tuple(replies)), _REPLIES)


def opened_replies(key: Secret, blob: bytes) -> tuple[AnswerFrame | FaultFrame, ...]:
    """What `sealed_replies` made.

    Raises:
        IntegrityError: `aead.short`, `aead.tag`, or no batch of replies.
    """
    batch: Replies = _decoded_replies(memoryview(opened_blob(key, blob, purpose=_REPLIES)))
    return batch.replies


def _sealed(key: Secret, row: Row, purpose: str) -> bytes:
    return sealed_blob(key, to_msgpack(row), purpose=purpose, salt=os.urandom(SALT_BYTES))


# ---- the actor ------------------------------------------------------------------------------


class RayReplica:
    """One model in one actor; it answers one batch at a time."""

    def __init__(self, model: bytes, key: bytes, parts: Iterable[memoryview]) -> None:
        """Load the model.

        Args:
            model: JSON of a `RayModel`.

        Raises:
            KeepError: the model does not open or does not load.
        """
        from modelkeep.wiring import open_runtime  # noqa: PLC0415  # loads onnxruntime

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self._model = from_json(RayModel, model, what="the plan of an actor")
        self._key = Secret(key)
        # Kept: the runtime may point into it.
        self._memory = opened_parts(self._key, parts, self._model)
        self._runtime = open_runtime(
            self._memory.sealed(), schema=self._model.schema, threads=self._model.threads
        )

    def answer(self, blob: bytes) -> bytes:
        """Answer a batch: a reply for each of its calls, a fault where one cannot be computed.

        Raises:
            IntegrityError: it is none of ours.
        """
        calls = opened_calls(self._key, blob)
        replies: dict[int, AnswerFrame | FaultFrame] = {}
        for batch in self._batches(calls, replies):
            answered = self._answered([calls[at] for at in batch])
            replies |= dict(zip(batch, answered, strict=True))
        return sealed_replies(self._key, [replies[at] for at in range(len(calls))])

    def _batches(
        self, calls: Sequence[CallFrame], replies: dict[int, AnswerFrame | FaultFrame]
    ) -> Iterator[list[int]]:
        """Which calls run together; one of a wrong form gets its fault and runs with nobody."""
        batch: list[int] = []
        rows, form = 0, None
        for at, call in enumerate(calls):
            fault = misfit(self._model.schema.inputs, call)
            if fault:
                replies[at] = FaultFrame(call.number, "frame.form", fault)
                continue
            here = tuple(shape[1:] for shape in call.shapes)
            more = call.shapes[0][0] if self._model.batchable else self._model.batch_rows_max
            if batch and (here != form or rows + more > self._model.batch_rows_max):
                yield batch
                batch, rows = [], 0
            batch.append(at)
            rows, form = rows + more, here
        if batch:
            yield batch

    def _answered(self, calls: Sequence[CallFrame]) -> list[AnswerFrame | FaultFrame]:
        try:
            arrays = computed(self._runtime, self._model.schema, calls)
        except KeepError as error:
            if len(calls) > 1:  # one bad call must not fail its neighbours
                return [reply for each in calls for reply in self._answered([each])]
            return [FaultFrame(calls[0].number, error.code, error.message)]
        return list(split_answers(calls, arrays, self._model.schema.outputs))
