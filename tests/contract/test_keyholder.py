"""Who sees the root: one contract for the keyholder in this process and for the one in its own."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from command import wait_until

from modelkeep.adapters.checkpoint_signer import RemoteSigner, signing_pair
from modelkeep.adapters.keyholder_local import RINGS_TRIED_MAX, local_keyholder
from modelkeep.adapters.keyholder_process import ProcessKeyholder
from modelkeep.adapters.keysources import new_key
from modelkeep.core.errors import IntegrityError, RefusedError, UnavailableError, UsageError
from modelkeep.core.record import replaced
from modelkeep.crypto.hierarchy import keep_keys
from modelkeep.crypto.kdf import Argon2Settings
from modelkeep.crypto.keyring import DomainKey, LockedRing, RingBody, Wrap
from modelkeep.crypto.recipients import Identity
from modelkeep.crypto.secret import Secret
from modelkeep.ledger.checkpoint import signed_checkpoint, verified_checkpoint
from modelkeep.ports.keyholder import Holders, Means, RootRecipient
from modelkeep.testing.memory import SeededEntropy

CHEAP = Argon2Settings(memory_kib=8, passes=1, lanes=1)
CANARY = "passphrase-canary-of-a-keyholder"
BODY = RingBody(
    identity=b"i" * 32,
    domains=(DomainKey(name="acme", key_id="a1" * 8, key=b"k" * 32),),
    ca_key=b"ca",
    ca_pem=b"pem",
)
ESCROW = Identity(Secret(bytes(range(32))))
OWN = Holders()


def means(passphrase=CANARY, **more):
    secret = Secret(passphrase.encode()) if passphrase else None
    return Means(source="passphrase", passphrase=secret, argon2=CHEAP, **more)


def to(kind, text):
    return Holders(recipients=(RootRecipient(kind=kind, text=text),))


class KeyholderContract:
    """What every keyholder promises; `keyholder` makes one of some means, and ends it."""

    def ring(self, keyholder, holders=OWN, number=0):
        return keyholder(means()).lock(BODY, keep_id="keep", number=number, holders=holders)

    def test_what_one_locks_another_with_the_same_means_opens(self, keyholder):
        ring = self.ring(keyholder)
        assert keyholder(means()).unlock([ring]) == (0, BODY)

    def test_the_first_ring_that_opens_counts_and_what_is_none_is_passed_over(self, keyholder):
        ring = self.ring(keyholder)
        noise = [
            replaced(ring, sealed=b"noise"),
            replaced(ring, number=5),
            replaced(ring, wraps=()),
            replaced(ring, wraps=(Wrap(kind="source", holder="passphrase", wrapped=b"{}"),)),
            replaced(ring, wraps=(Wrap(kind="other", holder="passphrase", wrapped=b""),)),
        ]
        assert keyholder(means()).unlock([*noise, ring, ring]) == (len(noise), BODY)

    def test_no_more_rings_are_tried_than_a_number(self, keyholder):
        ring = self.ring(keyholder)
        noise = [replaced(ring, wraps=())] * RINGS_TRIED_MAX
        assert keyholder(means()).unlock([*noise[1:], ring])[0] == RINGS_TRIED_MAX - 1
        with pytest.raises(RefusedError):
            keyholder(means()).unlock([*noise, ring])

    def test_a_wrong_passphrase_is_refused_with_its_code(self, keyholder):
        with pytest.raises(RefusedError) as refused:
            keyholder(means("not the passphrase")).unlock([self.ring(keyholder)])
        assert refused.value.code == "keys.passphrase"
        assert refused.value.hint
        assert "not the passphrase" not in str(refused.value.as_facts())

    def test_no_ring_at_all_is_said(self, keyholder):
        with pytest.raises(IntegrityError) as none:
            keyholder(means()).unlock([])
        assert none.value.code == "keys.no_ring"

    def test_a_ring_of_another_key_source_is_said(self, keyholder, tmp_path):
        reference = f"file:{tmp_path}/kek"
        new_key(reference, entropy=SeededEntropy())
        ring = self.ring(keyholder, Holders(source=reference))
        with pytest.raises(RefusedError) as refused:
            keyholder(means()).unlock([ring])
        assert refused.value.code == "keys.no_holder"
        assert keyholder(Means(source=reference)).unlock([ring]) == (0, BODY)

    def test_it_locks_nothing_before_the_root_is_there(self, keyholder):
        with pytest.raises(UsageError) as locked:
            keyholder(means()).lock(BODY, keep_id="keep", number=1)
        assert locked.value.code == "keys.locked"

    def test_the_same_holders_open_the_next_ring_under_the_same_root(self, keyholder):
        first = self.ring(keyholder)
        holder = keyholder(means())
        holder.unlock([first])
        second = holder.lock(BODY, keep_id="keep", number=1)
        assert second.wraps == first.wraps
        assert second.sealed != first.sealed
        assert keyholder(means()).unlock([second]) == (0, BODY)

    def test_other_holders_get_a_new_root_and_go_on_holding(self, keyholder):
        holder = keyholder(means())
        holder.unlock([self.ring(keyholder)])
        new = "another passphrase"
        rotated = holder.lock(
            BODY, keep_id="keep", number=1, holders=Holders(passphrase=new.encode())
        )
        escrowed = holder.lock(
            BODY, keep_id="keep", number=2, holders=to("escrow", str(ESCROW.recipient))
        )
        for ring in (rotated, escrowed):
            assert keyholder(means(new)).unlock([ring]) == (0, BODY)
            with pytest.raises(RefusedError):
                keyholder(means()).unlock([ring])
        assert keyholder(means("", identity=ESCROW.seed)).unlock([escrowed]) == (0, BODY)
        with pytest.raises(RefusedError) as refused:
            keyholder(means("", identity=ESCROW.seed)).unlock([rotated])
        assert refused.value.code == "keys.no_holder"

    def test_enough_words_of_a_split_open_what_is_sealed_to_it(self, keyholder):
        made = keyholder(means()).split(threshold=2, total=3)
        assert len(made.words) == 3
        ring = self.ring(keyholder, to("shares", made.recipient))
        assert keyholder(means("", words=made.words[1:])).unlock([ring]) == (0, BODY)
        with pytest.raises(RefusedError) as refused:
            keyholder(means("", words=made.words[:1])).unlock([ring])
        assert refused.value.code == "keys.shares"

    @pytest.mark.parametrize(("needed", "total"), [(0, 3), (4, 3), (1, 2), (2, 17), (-1, -1)])
    def test_a_split_out_of_bounds_is_refused(self, keyholder, needed, total):
        with pytest.raises(UsageError) as refused:
            keyholder(means()).split(threshold=needed, total=total)
        assert refused.value.code == "keys.split"

    def test_a_recipient_that_is_none_is_refused_and_the_old_root_stays(self, keyholder):
        holder = keyholder(means())
        ring = self.ring(keyholder)
        holder.unlock([ring])
        with pytest.raises(UsageError):
            holder.lock(BODY, keep_id="keep", number=1, holders=to("escrow", "mkr1nonsense"))
        assert holder.lock(BODY, keep_id="keep", number=1).wraps == ring.wraps

    def test_after_closing_it_knows_nothing_and_closing_again_is_no_error(self, keyholder):
        holder = keyholder(means())
        holder.unlock([self.ring(keyholder)])
        holder.close()
        holder.close()
        with pytest.raises((UsageError, UnavailableError)) as closed:
            holder.lock(BODY, keep_id="keep", number=1)
        assert closed.value.code in ("keys.locked", "keyholder.lost")


class TestLocalKeyholder(KeyholderContract):
    @pytest.fixture
    def keyholder(self):
        seeds = iter(range(100))
        return lambda of: local_keyholder(of, entropy=SeededEntropy(next(seeds)))


@pytest.mark.slow
class TestProcessKeyholder(KeyholderContract):
    @pytest.fixture
    def keyholder(self):
        started = []

        def start(of):
            started.append(ProcessKeyholder(of))
            return started[-1]

        yield start
        for each in started:
            each.close()

    def test_a_killed_one_is_said_to_be_lost(self, keyholder):
        holder = keyholder(means())
        ring = self.ring(keyholder)
        os.kill(holder.pid, signal.SIGKILL)
        with pytest.raises(UnavailableError) as lost:
            holder.unlock([ring])
        assert lost.value.code == "keyholder.lost"
        assert "-9" in lost.value.message

    def test_it_is_nowhere_to_be_read(self, keyholder):
        holder = keyholder(means())
        holder.unlock([self.ring(keyholder)])
        proc = Path(f"/proc/{holder.pid}")
        assert (proc / "environ").read_bytes() == b""
        assert CANARY.encode() not in (proc / "cmdline").read_bytes()
        assert [
            line.split()[4:6]
            for line in (proc / "limits").read_text().splitlines()
            if line.startswith("Max core file size")
        ] == [["0", "0"]]
        listening = [path for path in (proc / "fd").iterdir() if "socket" in str(path.readlink())]
        assert len(listening) == 1, "the pair to its parent, and nothing else"

    def test_its_memory_is_locked_where_the_kernel_allows_it(self, keyholder):
        holder = keyholder(means())
        holder.unlock([self.ring(keyholder)])
        status = Path(f"/proc/{holder.pid}/status").read_text().splitlines()
        facts = dict(line.split(":\t", 1) for line in status)
        locked_kib = int(facts["VmLck"].split()[0])
        may_lock = int(facts["CapEff"], 16) >> 14 & 1
        hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
        if may_lock or hard == resource.RLIM_INFINITY:
            assert locked_kib > 0.9 * int(facts["VmRSS"].split()[0])
        else:
            assert locked_kib * 1024 <= hard

    def test_ctrl_c_and_a_polite_end_of_its_group_do_not_end_it(self, keyholder):
        holder = keyholder(means())
        ring = self.ring(keyholder)
        holder.unlock([ring])  # it is past its start
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(holder.pid, number)
        assert holder.unlock([ring]) == (0, BODY)

    def test_it_ends_with_its_socket_and_says_nothing(self, keyholder, capfd):
        holder = keyholder(means())
        holder.close()
        assert holder.poll() == 0
        assert capfd.readouterr() == ("", "")

    def test_it_ends_when_its_parent_is_killed(self):
        script = (
            "import time\n"
            "from modelkeep.adapters.keyholder_process import ProcessKeyholder\n"
            "from modelkeep.ports.keyholder import Means\n"
            "print(ProcessKeyholder(Means(source='passphrase')).pid, flush=True)\n"
            "time.sleep(60)\n"
        )
        parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.communicate()
        wait_until(lambda: not is_alive(pid), 5)

    def test_one_process_of_a_user_cannot_read_another_that_is_hardened(self):
        done = subprocess.run(
            [sys.executable, "-c", PEEK], capture_output=True, text=True, check=False, timeout=20
        )
        assert (done.stdout.split(), done.returncode) == (["read", "refused"], 0), done.stderr

    def test_a_message_that_is_too_long_is_refused_on_either_side(self, keyholder, monkeypatch):
        monkeypatch.setattr(
            "modelkeep.adapters.keyholder_process.KEYHOLDER_MESSAGE_BYTES_MAX", 10_000
        )
        holder = keyholder(means())
        ring = LockedRing(keep_id="k", number=0, wraps=(), sealed=bytes(20_000))
        with pytest.raises(UnavailableError) as long:
            holder.unlock([ring])
        assert long.value.code == "keyholder.message"
        assert holder.split(threshold=2, total=2).recipient, "it goes on"

    @pytest.mark.parametrize(
        "garbage",
        [
            b"secret-canary-on-the-wire",
            b"\xff\xff\xff\xff",
            b"\x00\x00\x00\x19secret-canary-on-the-wire",
            b"\x00\x00\x00\x00",
        ],
    )
    def test_garbage_ends_it_without_showing_what_came(self, garbage):
        own, its = socket.socketpair()
        with own, its:
            process = subprocess.Popen(
                [sys.executable, "-m", "modelkeep.workers.keyholder", "--fd", str(its.fileno())],
                pass_fds=[its.fileno()],
                stderr=subprocess.PIPE,
                text=True,
            )
            its.close()
            own.sendall(garbage)
            own.shutdown(socket.SHUT_WR)
            _, said = process.communicate(timeout=20)
        assert process.returncode in (0, 65)
        assert "Traceback" not in said
        assert "canary" not in said
        assert len(said.splitlines()) <= 1

    def test_it_signs_checkpoints_for_a_recorder_and_outlives_it(self):
        recorders_fd, its_fd = signing_pair()
        holder = ProcessKeyholder(means(), sign_fd=its_fd)
        os.close(its_fd)
        try:
            holder.unlock([holder.lock(BODY, keep_id="k", number=0, holders=OWN)])
            signer = RemoteSigner(recorders_fd)
            public = keep_keys(Secret(BODY.identity))
            made = signed_checkpoint("log.example/1", size=3, root=b"r" * 32, signer=signer)
            assert verified_checkpoint(made.raw, origin="log.example/1", public=signer.public)
            assert signer.public != public.signer.public, "it signs checkpoints, nothing else"
            with pytest.raises(RefusedError) as refused:
                signed_checkpoint("log.example/1", size=2, root=b"r" * 32, signer=signer)
            assert refused.value.code == "keyholder.refused"
            with pytest.raises(RefusedError):
                signer.sign(b"a head", context="series/head")
            assert len(signer.sign(b"up to date", context="series/alive")) == 64
            os.close(recorders_fd)
            before_s = cpu_s(holder.pid)
            time.sleep(0.3)
            assert cpu_s(holder.pid) - before_s < 0.1, "it does not spin on a socket that is closed"
            assert holder.split(threshold=2, total=2).recipient
        finally:
            holder.close()
        assert holder.poll() == 0


PEEK = """
import ctypes, encodings.ascii, os, sys  # nobody else may be allowed to load more later
from modelkeep.adapters.hardening import hardened
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # changing the user took it away
went, came = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    os.read(went[0], 1); hardened(); os.write(came[1], b"."); os.read(went[0], 1); os._exit(0)
for ready in (True, False):
    try:
        open(f"/proc/{pid}/environ", "rb").read(); print("read")
    except PermissionError:
        print("refused")
    if ready:
        os.write(went[1], b"."); os.read(came[0], 1)
os.write(went[1], b"."); os.waitpid(pid, 0)
"""


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_means_and_messages_print_no_secret():
    secret = means(CANARY, identity=ESCROW.seed)
    shown = repr(secret) + str(replace(secret, words=()))
    shown += repr(Holders(passphrase=CANARY.encode())) + repr(to("escrow", "mkr1"))
    assert CANARY not in shown
    assert repr(ESCROW.seed.reveal()) not in shown
