"""Goal: a power cut at any moment of a submission or of its acceptance loses and doubles nothing.

Method: blow the fuse before every single write of either, on a disk that forgets what was not
synced; open what is left, and go on.
"""

import pytest
from inboxes import FILES, Shelf, client_of, handed_in, taken
from scenes import Scene

from modelkeep.adapters.store_folder import FolderStore
from modelkeep.core.errors import MissingError
from modelkeep.flows.inbox_view import waiting
from modelkeep.kernels.digest import digest_of
from modelkeep.sdk.inbox import Inbox
from modelkeep.testing.power import Fuse, PowerCut
from modelkeep.vault.inbox import place_of


def with_client(folder):
    scene = Scene(folder)
    scene.create().close()
    with scene.open() as keep:
        client = client_of(keep.opened)
    return scene, client


def submit(scene, client, fuse):
    scene.disk.fuse = fuse
    store = FolderStore(scene.main, "inbox", scene.disk, keep_id=client.certificate.keep_id)
    return handed_in(store, client)


def lists_left(scene):
    names = (path.relative_to(scene.main).as_posix() for path, _ in scene.disk.walk(scene.main))
    return [name for name in names if (place := place_of(name)) is not None and place.is_list]


@pytest.mark.slow
def test_a_submission_that_was_cut_is_whole_or_cannot_be_accepted(tmp_path):
    scene, client = with_client(tmp_path)
    before = scene.image()
    whole = Fuse()
    wanted = submit(scene, client, whole)
    refused = 0
    for at in range(whole.count):
        scene.show(before)
        with pytest.raises(PowerCut):
            submit(scene, client, Fuse(at))
        scene.show(scene.image())
        has_list = bool(lists_left(scene))
        shelf = Shelf()
        with scene.open() as keep:
            if has_list:  # all but the answer to the client was done
                assert at > whole.count // 2
                taken(keep.opened, wanted.submission, shelf)
                assert shelf.versions == {"run": [FILES]}
            else:
                assert [row.state for row in waiting(keep.opened).submissions] in (
                    [],
                    ["incomplete"],
                )
                with pytest.raises(MissingError):
                    taken(keep.opened, wanted.submission, shelf)
                assert not shelf.versions
                refused += 1
    assert refused > whole.count // 2


@pytest.mark.slow
def test_an_acceptance_that_was_cut_goes_on_and_stores_once(tmp_path):
    scene, client = with_client(tmp_path)
    submission = submit(scene, client, Fuse()).submission
    before = scene.image()

    def accept(fuse):
        with scene.open(fuse) as keep:
            return Inbox(keep).accept(submission)

    whole = Fuse()
    assert accept(whole).version == 1
    for at in range(whole.count):
        scene.show(before)
        with pytest.raises(PowerCut):
            accept(Fuse(at))
        scene.show(scene.image())
        with scene.open() as keep:
            inbox = Inbox(keep)
            states = [row.state for row in inbox.waiting().submissions]
            assert set(states) <= {"whole", "settled"}
            if states == ["whole"]:
                assert inbox.accept(submission).version == 1
            elif states:
                inbox.reject(submission)
            assert inbox.waiting().submissions == ()
            assert [(each.name, each.version) for each in keep.models()] == [("run", 1)]
            digests = {each.path: each.digest for each in keep.manifest("run:1").files}
            assert digests == {path: digest_of(raw) for path, raw in FILES.items()}
