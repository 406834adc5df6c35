"""Keys and writers that the vault's tests share; nothing here is ever a real key."""

from modelkeep.crypto.hierarchy import Domains, domain_keys
from modelkeep.crypto.secret import Secret
from modelkeep.crypto.signatures import Signer
from modelkeep.kernels.digest import keyed_id
from modelkeep.testing.memory import MemoryStore, SeededEntropy
from modelkeep.vault.commit import Writer
from modelkeep.vault.encode import Policy
from modelkeep.vault.load import Reader
from modelkeep.vault.pack import Encoded, PackWriter
from modelkeep.vault.settings import VaultSettings
from modelkeep.vault.streams import Plain, streamed

DOMAIN = domain_keys("default", "d" * 16, Secret(b"d" * 32))
OTHER_DOMAIN = domain_keys("other", "e" * 16, Secret(b"d" * 32))
DOMAINS = Domains((DOMAIN, OTHER_DOMAIN))
SIGNER = Signer(Secret(b"s" * 32))
STRANGER = Signer(Secret(b"t" * 32))
SALT = bytes(range(32))
SEGMENT_BYTES = 4096


def chunk_id(plain, domain=DOMAIN):
    return keyed_id(domain.chunk_ids.reveal(), plain)


def solo(plain, domain=DOMAIN):
    """A chunk as a `fast` store keeps it."""
    return Encoded(chunk_id(plain, domain), len(plain), payload=plain)


def source(raw, path="model", tensors=(), segment_bytes=SEGMENT_BYTES):
    """A file in memory, cut as the vault cuts files."""
    view = memoryview(raw)

    def read_into(start, target):
        target[:] = view[start : start + len(target)]

    plain = Plain(path=path, size_bytes=len(raw), read_into=read_into)
    return streamed(plain, tensors, writer=writer_to(segment_bytes=segment_bytes))


def reader_of(*stores, may_heal=True):
    return Reader(stores=stores, domains=DOMAINS, public=SIGNER.public, may_heal=may_heal)


def packed(*plains, domain=DOMAIN, signer=SIGNER, salt=SALT):
    """A finished pack of these chunks: its entry and its bytes."""
    writer = PackWriter(domain=domain, signer=signer, salt=salt)
    for plain in plains:
        writer.add(solo(plain, domain))
    entry, raw = writer.finished()
    return entry, bytes(raw)


def writer_to(store=None, *, policy=Policy.FAST, **settings):
    return Writer(
        store=store if store is not None else MemoryStore(),
        domain=DOMAIN,
        signer=SIGNER,
        entropy=SeededEntropy(),
        settings=VaultSettings(**{"segment_bytes": SEGMENT_BYTES, **settings}),
        policy=policy,
    )


def flipped(raw, at):
    """One bit changed: number `at` of all bits."""
    changed = bytearray(raw)
    changed[at // 8] ^= 1 << (at % 8)
    return bytes(changed)
