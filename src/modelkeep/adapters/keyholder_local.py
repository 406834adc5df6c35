"""A keyholder in this very process: what the keyholder's process runs, and simulations use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from modelkeep.adapters.keysources import opened_source
from modelkeep.adapters.shares_slip39 import joined_words, split_words
from modelkeep.core.errors import IntegrityError, KeepError, RefusedError, UsageError
from modelkeep.crypto.kdf import KEY_BYTES, SALT_BYTES
from modelkeep.crypto.keyring import (
    SOURCE,
    LockedRing,
    RingBody,
    Wrap,
    locked_ring,
    opened_ring,
)
from modelkeep.crypto.recipients import Identity, opened_by, parsed_recipient, sealed_to
from modelkeep.crypto.secret import Secret
from modelkeep.ports.entropy import Entropy
from modelkeep.ports.keyholder import Holders, Means, Split
from modelkeep.ports.keysource import KeySource

# (reference, passphrase) -> the source.
Sources = Callable[[str, Secret | None], KeySource]
# A hostile store must not make us stretch a passphrase for ever.
RINGS_TRIED_MAX = 16
_INFO = b"root"


def local_keyholder(means: Means, *, entropy: Entropy) -> LocalKeyholder:
    """A keyholder over the real key sources."""

    def source(reference: str, passphrase: Secret | None) -> KeySource:
        return opened_source(reference, passphrase=passphrase, entropy=entropy, argon2=means.argon2)

    return LocalKeyholder(means, sources=source, entropy=entropy)


@dataclass(frozen=True, slots=True)
class _Held:
    """The root of one ring: who can open it, and what the next one is wrapped with."""

    root: Secret
    wraps: tuple[Wrap, ...]
    means: Means


class LocalKeyholder:
    """Holds the root from the first `unlock` or `lock` on."""

    def __init__(self, means: Means, *, sources: Sources, entropy: Entropy) -> None:
        self._means = means
        self._sources = sources
        self._entropy = entropy
        # By number of the ring: one that was sealed and never stored must not be gone on from.
        self._held: dict[int, _Held] = {}

    def unlock(self, rings: Sequence[LockedRing]) -> tuple[int, RingBody]:
        failure: KeepError | None = None
        for place, ring in enumerate(rings[:RINGS_TRIED_MAX]):
            try:
                root = self._unwrapped(ring)
                body = opened_ring(ring, root)
            except (RefusedError, IntegrityError) as error:
                failure = failure or error
                continue
            self._held = {ring.number: _Held(root, ring.wraps, self._means)}
            return place, body
        raise failure or IntegrityError("keys.no_ring", "there is no keyring to open")

    def lock(
        self, body: RingBody, *, keep_id: str, number: int, holders: Holders | None = None
    ) -> LockedRing:
        before = self._held.get(number - 1)
        if holders is not None:
            held = self._held_by(holders, before.means if before is not None else self._means)
        elif before is not None:
            held = before
        else:
            raise UsageError("keys.locked", "the root of the ring before is not at hand")
        self._held[number] = held
        return locked_ring(
            body,
            root=held.root,
            keep_id=keep_id,
            number=number,
            wraps=held.wraps,
            salt=self._entropy.random_bytes(SALT_BYTES),
        )

    def split(self, *, threshold: int, total: int) -> Split:
        seed = Secret(self._entropy.random_bytes(KEY_BYTES))
        words = split_words(seed, threshold=threshold, total=total)
        return Split(words=words, recipient=str(Identity(seed).recipient))

    def close(self) -> None:
        self._held = {}

    def _held_by(self, holders: Holders, before: Means) -> _Held:
        root = Secret(self._entropy.random_bytes(KEY_BYTES))
        means = replace(
            before,
            source=holders.source or before.source,
            passphrase=Secret(holders.passphrase) if holders.passphrase else before.passphrase,
            words=(),
            identity=None,
        )
        source = self._sources(means.source, means.passphrase)
        wrapped = source.wrap(root)
        if source.unwrap(wrapped) != root:  # a root that does not come back would lose the keep
            raise IntegrityError("keys.wrap", "the key source does not give back what it wrapped")
        wraps = [Wrap(kind=SOURCE, holder=source.kind, wrapped=wrapped)]
        for each in holders.recipients:
            sealed = sealed_to(parsed_recipient(each.text), root, info=_INFO)
            wraps.append(Wrap(kind=each.kind, holder=each.text, wrapped=sealed, note=each.note))
        return _Held(root, tuple(wraps), means)

    def _unwrapped(self, ring: LockedRing) -> Secret:
        """The root of a ring; at most one of its wraps is tried, the one that is for us."""
        means = self._means
        if means.words or means.identity is not None:
            return _opened_by(self._identity(), ring)
        source = self._sources(means.source, means.passphrase)
        held = [wrap for wrap in ring.wraps if wrap.kind == SOURCE]
        for wrap in held:
            if wrap.holder == source.kind:
                return source.unwrap(wrap.wrapped)
        others = ", ".join(sorted({wrap.holder for wrap in held})) or "nobody"
        raise RefusedError(
            "keys.no_holder",
            f"the root of this keep is held by {others[:100]}, not by {source.kind}",
            hint="name the key source with --key-source, or in [keys] of modelkeep.toml",
        )

    def _identity(self) -> Identity:
        seed = joined_words(self._means.words) if self._means.words else self._means.identity
        assert seed is not None
        return Identity(seed)


def _opened_by(identity: Identity, ring: LockedRing) -> Secret:
    """The root of a ring that is sealed to a recovery key or an escrow recipient."""
    own = str(identity.recipient)
    for wrap in ring.wraps:
        if wrap.kind != SOURCE and wrap.holder == own:
            return opened_by(identity, wrap.wrapped, info=_INFO)
    raise RefusedError(
        "keys.no_holder",
        "the root of this keep is not sealed to this key",
        hint="shares of an earlier split, or a recipient that was revoked, open nothing any more",
    )
