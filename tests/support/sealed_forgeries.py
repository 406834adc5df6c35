"""What a keep's own keys can make that nobody admitted: signed maps to other chunks."""

from __future__ import annotations

import random
from collections.abc import Iterable

from sealed_vaults import Sealed, Vault

from modelkeep.core.record import Record, replaced, to_msgpack
from modelkeep.core.rows import Applied
from modelkeep.crypto.hierarchy import DomainKeys
from modelkeep.flows.keep import OpenKeep, current_snapshot
from modelkeep.kernels.digest import hex_of
from modelkeep.vault.index import Index, packs_of
from modelkeep.vault.objects import sealed_object, series_member
from modelkeep.vault.pack import PackEntry, Segment
from modelkeep.vault.snapshot import ArtifactEntry, Head, Recipe

Objects = dict[str, bytes]
# A model of the same sizes, which shares some chunks.
OTHERS = {"a:1": "b:1", "a:2": "a:1", "b:1": "a:2"}


def sealed_under(
    keep: OpenKeep, objects: Objects, kind: str, record: Record, domain: DomainKeys
) -> str:
    """Put a record into the store as the keep itself would; its name."""
    body = to_msgpack(record)
    salt = bytes.fromhex(hex_of(body))
    name, raw = sealed_object(kind, body, domain=domain, signer=keep.keys.signer, salt=salt)
    objects[name] = raw
    return name


def committed(
    vault: Vault,
    objects: Objects,
    model: Sealed,
    *,
    recipe: Recipe | None = None,
    envelope: str = "",
) -> Applied:
    """A snapshot in which a version has another recipe or envelope, and its head: all signed."""
    keep = vault.keep
    before, stands = current_snapshot(keep), keep.state.applied()

    def entry(each: ArtifactEntry) -> ArtifactEntry:
        if f"{each.name}:{each.version}" != model.reference:
            return each
        domain = keep.domains.named("default")
        made = sealed_under(keep, objects, "recipe", recipe, domain) if recipe else each.recipe
        return replaced(each, recipe=made, envelope=envelope or each.envelope)

    after = replaced(before, artifacts=tuple(entry(each) for each in before.artifacts))
    snapshot = sealed_under(keep, objects, "snapshot", after, keep.keys.own)
    head = Head(number=stands.head + 1, keep_id=keep.keep_id, snapshot=snapshot)
    objects.update([series_member("head", head, signer=keep.keys.signer)])
    return replaced(stands, head=head.number, snapshot=snapshot)


def with_chunks(model: Sealed, chunks: Iterable[tuple[bytes, int]]) -> Recipe:
    """The recipe of a model of one file, of other chunks."""
    (file,) = model.found.recipe.files
    return replaced(model.found.recipe, files=(replaced(file, chunks=tuple(chunks)),))


def map_reordered(vault: Vault, objects: Objects, model: Sealed, rng: random.Random) -> Applied:
    """Two chunks of one length have changed places."""
    chunks = list(model.found.recipe.files[0].chunks)
    longest = max(length for _, length in chunks)
    one, other = rng.sample([at for at, each in enumerate(chunks) if each[1] == longest], 2)
    chunks[one], chunks[other] = chunks[other], chunks[one]
    return committed(vault, objects, model, recipe=with_chunks(model, chunks))


def map_spliced(vault: Vault, objects: Objects, model: Sealed, rng: random.Random) -> Applied:
    """One chunk is another model's, from the same place."""
    theirs = vault.model(OTHERS[model.reference]).found.recipe.files[0].chunks
    chunks = list(model.found.recipe.files[0].chunks)
    at = rng.choice([at for at, each in enumerate(chunks) if each != theirs[at]])
    chunks[at] = theirs[at]
    return committed(vault, objects, model, recipe=with_chunks(model, chunks))


def map_of_another(vault: Vault, objects: Objects, model: Sealed, rng: random.Random) -> Applied:
    """A model's manifest over all chunks of another one."""
    del rng
    theirs = vault.model(OTHERS[model.reference]).found.recipe.files[0].chunks
    return committed(vault, objects, model, recipe=with_chunks(model, theirs))


def map_shortened(vault: Vault, objects: Objects, model: Sealed, rng: random.Random) -> Applied:
    """The last chunks are left out, and the size says so."""
    chunks = model.found.recipe.files[0].chunks
    kept = chunks[: rng.randrange(len(chunks))]
    recipe = with_chunks(model, kept)
    file = replaced(recipe.files[0], size_bytes=sum(length for _, length in kept))
    return committed(vault, objects, model, recipe=replaced(recipe, files=(file,)))


def older_envelope(vault: Vault, objects: Objects, model: Sealed, rng: random.Random) -> Applied:
    """The manifest of another version, or of another model."""
    del rng
    other = vault.model(OTHERS[model.reference])
    return committed(vault, objects, model, envelope=other.core[1])


def index_redirected(vault: Vault, objects: Objects, model: Sealed, rng: random.Random) -> Applied:
    """An index that leads a model's chunks to segments of others of the same size."""
    keep, key_id = vault.keep, model.found.key_id
    packs = packs_of(keep.reader().index_of(keep.store, key_id))
    longest = max(each.length for each in model.chunks)
    wanted = {each.segment.chunk_id for each in model.chunks if each.length == longest}

    def led(each: Segment, pack: PackEntry) -> Segment:
        """In the same pack, under the same key, where there is another one of that size."""
        alike = [one for one in pack.segments if one.length == longest and one != each]
        if each.chunk_id not in wanted or not alike:
            return each
        return replaced(rng.choice(alike), chunk_id=each.chunk_id)

    redirected = [
        replaced(pack, segments=tuple(led(each, pack) for each in pack.segments)) for pack in packs
    ]
    for name in vault.names("index"):
        del objects[name]
    domain = keep.domains.named("default")
    sealed_under(keep, objects, "index", Index(packs=tuple(redirected)), domain)
    return keep.state.applied()
