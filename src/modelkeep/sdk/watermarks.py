"""Watermarks for the owner of a keep, and `checked`, which strangers run without one.

marks = Watermarks(keep)
marks.new_weights("fraud-w1", "fraud.onnx")       # registered, before anybody has the model
marks.embed("fraud-w1", "fraud.onnx", "marked.onnx")
...
marks.verify("fraud-w1", "suspect.onnx", claim="claim.json")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from modelkeep.core.errors import RefusedError, UsageError
from modelkeep.core.record import Record
from modelkeep.flows.marking import (
    marking,
    triggers_again,
    triggers_registered,
    weights_registered,
)
from modelkeep.flows.watermark import (
    CheckedClaim,
    Registered,
    checked_claim,
    claimed,
    demand_before,
    opened_claim,
    registered,
    registered_new,
    registrations,
    seed_of,
)
from modelkeep.kernels.trigger_mark import COUNT, TriggerSet, array_in, trigger_file
from modelkeep.ledger.checkpoint import parsed_verifier_key
from modelkeep.ledger.cosignature import Witness, parsed_witness
from modelkeep.sdk.files import mapped, walked
from modelkeep.sdk.keep import Keep
from modelkeep.sdk.suspects import Examined, examined, files_at, files_of, suspect_digest
from modelkeep.seal.marks import (
    CLAIM_BYTES_MAX,
    Claim,
    Judgement,
    Registration,
    claim_bytes,
    judged,
    parsed_claim,
)

_BLOCK_BYTES = 16 * 1024 * 1024
Examine = Callable[[Registration, bytes], Examined]


class Marked(Record, frozen=True):
    """A model that was marked.

    Attributes:
        weights: how many there are in the marked tensors.
        changed: how many of them got another value.
        relative_change: of these tensors, as L2 norms.
        largest_change: of one weight, in units of the mean size of its tensor's weights.
        digest: of the marked model.
    """

    mark: str
    weights: int
    changed: int
    relative_change: float
    largest_change: float
    digest: str


class Watermarks:
    """The marks of an open keep."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    # -- before the release -------------------------------------------------------------------

    def new(self, mark: str, method: str, parameters: str, *, model: str = "") -> Registered:
        """Register a mark whose parameters are made elsewhere, as JSON.

        Raises:
            UsageError: `mark.name`, `mark.method` or `mark.exists`.
        """
        return registered_new(self._keep.opened, mark, method, parameters, model=model)

    def new_weights(
        self, mark: str, path: str | Path, *, bits: int = 0, margin: float = 0.0, model: str = ""
    ) -> Registered:
        """Register a weight mark for this model, and for others with the same tensors.

        Args:
            path: a file or folder; only names and sizes of its tensors are looked at.
            bits: 0 for what suits its size.
            margin: 0 for the usual; more survives more and changes more.

        Raises:
            UsageError: `mark.room`, `mark.parameters`, `mark.exists` or `mark.name`.
        """
        with files_at(Path(path)) as files:
            return weights_registered(
                self._keep.opened, mark, files, bits=bits, margin=margin, model=model
            )

    def new_triggers(
        self,
        mark: str,
        examples: str | Path,
        output: str | Path,
        *,
        classes: int,
        count: int = COUNT,
        model: str = "",
    ) -> Registered:
        """Register a trigger set, made of the owner's own examples; write it for training.

        Args:
            examples: a .npy file; its first axis counts them.
            output: a .npz file with `inputs` and `labels`; train with them mixed in.

        Raises:
            UsageError: `mark.*`; `file.exists`.
            MissingError: `file.folder`, or UnavailableError: `file.write`; nothing is registered.
        """
        with mapped(Path(examples)) as view, self._target(Path(output)) as write:
            made, triggers = triggers_registered(  # only now: a registration is for ever
                self._keep.opened,
                mark,
                array_in(view),
                classes=classes,
                count=count,
                model=model,
            )
            write(trigger_file(triggers))
        return made

    def triggers(self, mark: str, examples: str | Path, output: str | Path) -> TriggerSet:
        """Write a registered trigger set again, from the same examples.

        Raises:
            MissingError: `mark.unknown`.
            UsageError: `mark.triggers`, `mark.method`, `file.exists`.
        """
        with mapped(Path(examples)) as view:
            found = triggers_again(self._keep.opened, mark, array_in(view))
            with self._target(Path(output)) as write:
                write(trigger_file(found))
        return found

    def embed(
        self,
        mark: str,
        path: str | Path,
        output: str | Path,
        *,
        force: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Marked:
        """Write a model with its weight mark; one that carries it already comes out the same.

        A folder keeps its links, its empty folders and all permission bits; a file gets mode 0600.

        Raises:
            MissingError: `mark.unknown`, `file.missing`.
            UsageError: `mark.method`, `mark.model`, `mark.room`, `restore.exists`.
        """
        from modelkeep.adapters.appearing import appearing  # noqa: PLC0415 - needed here only

        source, target = walked(Path(path)), Path(output)
        disk, is_folder = self._keep.folder.world.disk, bool(source.folders)
        modes = {each.path: each.mode for each in source.files if is_folder}
        with files_of(source) as files:
            made = marking(self._keep.opened, mark, files)
            with appearing(disk, target, is_folder=is_folder, force=force) as into:
                for name, view in files.items():
                    place = name if is_folder else "."
                    into.begin(place, len(view))
                    for start in range(0, len(view), _BLOCK_BYTES):
                        block = memoryview(bytearray(view[start : start + _BLOCK_BYTES]))
                        made.apply(name, start, block)
                        into.write(place, start, block)
                        progress(len(block))
                    into.end(place, mode=modes.get(name, -1), mtime_ns=-1)
                into.frame(source.folders, source.links)
        with files_at(target) as files:
            digest = suspect_digest(files)
        return Marked(
            mark=mark,
            weights=made.weights,
            changed=made.changed,
            relative_change=made.relative_change,
            largest_change=made.largest_change,
            digest=digest,
        )

    # -- afterwards ---------------------------------------------------------------------------

    def list(self) -> tuple[Registered, ...]:
        """Every mark, in the order of registration."""
        return registrations(self._keep.opened)

    def verify(
        self,
        mark: str,
        suspect: str | Path,
        *,
        triggers: str | Path | None = None,
        claim: str | Path | None = None,
        checkpoint: bytes | None = None,
    ) -> Judgement:
        """Read a mark in a suspect.

        Args:
            suspect: a model's file or folder; for a trigger set its answers (.npy) or an ONNX
                model.
            triggers: the file of the trigger set, where a model is to be asked.
            claim: write a claim there, which shows the seed: whoever has it can remove the mark.
            checkpoint: a checkpoint that others have had for longer, to prove the claim against.

        Raises:
            MissingError: `mark.unknown`, `file.missing`; `ledger.unpublished`, for a claim.
            UsageError: `mark.*`, `file.exists`.
            RefusedError: `mark.weak`, for a claim about a suspect in which the mark is not found.
        """
        path = Path(triggers) if triggers is not None else None
        return self.judge(
            mark,
            lambda registration, seed: examined(registration, seed, Path(suspect), triggers=path),
            claim=claim,
            checkpoint=checkpoint,
        )

    def judge(
        self,
        mark: str,
        examine: Examine,
        *,
        claim: str | Path | None = None,
        checkpoint: bytes | None = None,
    ) -> Judgement:
        """As `verify`, whatever the mark is read in.

        Args:
            examine: reads it, given its registration and seed.
        """
        keep = self._keep.opened
        if claim is not None:
            _demand_free(Path(claim))
        known = registrations(keep)
        found = registered(keep, mark, among=known)
        done = examine(found.registration, seed_of(keep, mark).reveal())
        judgement = judged(found.registration, done.reading, tests=len(known))
        if claim is not None:
            if not judgement.is_found:
                raise RefusedError(
                    "mark.weak",
                    f"{mark} is not found in the suspect (p = {judgement.corrected_p:.2g}): there "
                    "is nothing to claim",
                    hint="a claim shows the mark's seed; it is made of what convinces",
                )
            with self._target(Path(claim)) as write:
                made = claimed(
                    keep,
                    found,
                    done.reading,
                    tests=len(known),
                    suspect=done.suspect,
                    trusted=self._trusted(),
                    checkpoint=checkpoint,
                )
                write(claim_bytes(made))
        return judgement

    def _trusted(self) -> tuple[Witness, ...]:
        return tuple(parsed_witness(each) for each in self._keep.config.ledger.witness.keys)

    def _target(self, path: Path) -> AbstractContextManager[Callable[[bytes], None]]:
        from modelkeep.adapters.file_streams import file_target  # noqa: PLC0415

        return file_target(self._keep.folder.world.disk, path)


def checked(
    claim: Claim | bytes,
    suspect: str | Path | Examine,
    *,
    keys: Sequence[str],
    witnesses: Sequence[str] = (),
    before_ns: int = 0,
    triggers: str | Path | None = None,
) -> CheckedClaim:
    """Check a claim with nothing but keys: its proof, its commitment, and the suspect itself.

    Args:
        suspect: its path, or what reads the mark in it.
        keys: verifier keys of logs; the one of the claim's log is chosen by its name.
        witnesses: verifier keys of witnesses whose cosignatures count.
        before_ns: when the suspect first appeared: the registration must be older, by the word
            of a witness where witnesses are given; 0 asks for nothing.

    Raises:
        IntegrityError: `mark.*`, `ledger.*`: it is forged, or of another suspect.
        UsageError: `ledger.verifier_key`, `ledger.key_of_other`, `mark.suspect_form`.
    """
    if isinstance(claim, bytes):
        claim = parsed_claim(claim)
    logs = dict(parsed_verifier_key(key) for key in keys)
    trusted = [parsed_witness(each) for each in witnesses]
    registration, proven = opened_claim(claim, logs=logs, witnesses=trusted)
    if isinstance(suspect, str | Path):
        path = Path(triggers) if triggers is not None else None
        done = examined(registration, claim.seed, Path(suspect), triggers=path)
    else:
        done = suspect(registration, claim.seed)
    found = checked_claim(
        claim, registration, proven, done.reading, suspect=done.suspect, is_model=done.is_model
    )
    if before_ns:
        demand_before(found, before_ns, is_witnessed=bool(trusted))
    return found


def read_claim(path: Path) -> bytes:
    """A claim file's bytes.

    Raises:
        MissingError: `file.missing`.
        UsageError: `file.read`, `file.size`.
    """
    from modelkeep.adapters.file_streams import small_bytes  # noqa: PLC0415

    return small_bytes(path, size_max=CLAIM_BYTES_MAX)


def _demand_free(path: Path) -> None:
    if path.is_symlink() or path.exists():
        raise UsageError("file.exists", f"{path} exists", hint="name another file")
