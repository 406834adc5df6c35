"""A keep with several domains on a simulated disk, for tests of keys."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from onnx_models import two_models
from scenes import CHEAP, PASSPHRASE, Scene

from modelkeep.adapters.keyholder_local import local_keyholder
from modelkeep.core.errors import KeepError
from modelkeep.core.names import key_id_of
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.secret import Secret
from modelkeep.ports.keyholder import Means
from modelkeep.sdk.keep import Keep
from modelkeep.testing.memory import SeededEntropy
from modelkeep.testing.power import Fuse

ESCROW = Identity(Secret(bytes(range(32))))
NEW = "another passphrase for tests"
FILES = {
    "digits:1": two_models()[0],
    "fraud:1": two_models()[0],
    "fraud:2": two_models()[1],
    "other:1": two_models()[1],
}


class Away:
    """A disk on which one folder does not answer."""

    def __init__(self, disk, folder):
        self._disk = disk
        self._folder = folder

    def __getattr__(self, name):
        found = getattr(self._disk, name)  # what the disk has not, this one has not either

        def call(*words):
            for word in words:
                if isinstance(word, Path) and self._folder in (word, *word.parents):
                    raise OSError(errno.EIO, "away")
            return found(*words)

        return call


class KeyScene(Scene):
    """A scene in which every opening draws keys of its own, and a store can be away."""

    def __init__(self, folder):
        super().__init__(folder)
        self.opened = 0
        self.away = None
        self.passphrase = PASSPHRASE

    def world(self, fuse):
        self.opened += 1
        first = 1_000 * self.opened
        disk = self.disk if self.away is None else Away(self.disk, self.away)
        return replace(
            super().world(fuse),
            disk=disk,
            entropy=SeededEntropy(first),
            keyholder=lambda means: local_keyholder(
                replace(means, argon2=CHEAP), entropy=SeededEntropy(first + 1)
            ),
        )

    def open(self, fuse=None, *, passphrase="", means=None):
        world = self.world(fuse or Fuse())
        if means is None:
            means = Means(passphrase=Secret((passphrase or self.passphrase).encode()))
        return Keep(self.keep_path, means=means, world=world)

    def refusal(self, **means):
        with pytest.raises(KeepError) as refused:
            self.open(**means)
        return refused.value.code

    def objects(self, store, key_id=""):
        """Objects of a store by name; those under one key, if it is named."""
        found = {
            path.relative_to(store).as_posix(): self.disk.read(path)
            for path, _ in self.disk.walk(store)
        }
        return {name: raw for name, raw in found.items() if key_id in ("", key_id_of(name))}

    def rings(self, store):
        return [name for name in self.objects(store) if name.startswith("keyring/")]

    def put_back(self, store, objects):
        for name, raw in objects.items():
            path = store / name
            if self.disk.size(path) is None:
                self.disk.create(path, raw)
                self.disk.sync(path)
                self.disk.sync_folder(path.parent)
            else:
                self.disk.rewrite(path, raw)


def fill(scene):
    """Models in `default`, `acme` and `zeta`, backed up."""
    with scene.open() as keep:
        keep.keys.new("acme", "zeta")
        keep.admit(two_models()[0], name="digits")
        keep.admit(two_models()[0], name="fraud", domain="acme")
        keep.admit(two_models()[1], name="fraud")
        keep.admit(two_models()[1], name="other", domain="zeta")
        keep.set_alias("fraud:prod", 2)
        assert all(report.is_whole for report in keep.backup())


def key_ids(keep, domain):
    return [each.key_id for each in keep.opened.domains.all_of(domain)]


def restored(scene, keep, reference):
    out = scene.folder / "out"
    keep.restore(reference, out, force=True)
    return scene.disk.read(out)


def demand_whole(scene, keep, *references):
    for reference in references:
        assert restored(scene, keep, reference) == FILES[reference].read_bytes(), reference
    report = keep.check(read_data=True)
    assert report.is_whole, report.findings


def rotate(scene, passphrase=NEW):
    with scene.open() as keep:
        keep.keys.rotate(passphrase=passphrase)
    scene.passphrase = passphrase
