"""Looking at a machine: this one, and ones that are made of files."""

import os
import socket
import threading
import time

import pytest

from modelkeep.adapters.host_facts import SystemFacts, kept_private
from modelkeep.adapters.host_reach import listeners, port_state, reached
from modelkeep.ports.host import Asked


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_this_machine_is_known():
    host = SystemFacts().gathered(Asked(folders=("/",), packages=("numpy", "no-such-thing")))
    assert host.system == "linux"
    assert host.kernel[0].isdigit()
    assert host.python.startswith("3.")
    assert host.cpus >= 1
    assert host.spaces[0].free_bytes > 0
    assert host.packages["numpy"][0].isdigit()
    assert host.packages["no-such-thing"] == ""
    assert host.clock.now_ns > 0
    assert host.has_entropy is True
    assert host.bounds.open_files != -2
    assert host.isolation is None


def test_looking_costs_little():
    facts = SystemFacts()
    facts.gathered(Asked())
    started = time.perf_counter()
    facts.gathered(Asked(folders=("/",)))
    assert time.perf_counter() - started < 0.05


def test_a_machine_of_which_nothing_can_be_read_is_unknown_and_no_error(tmp_path):
    host = SystemFacts(tmp_path).gathered(Asked(accelerators=("cuda", "rocm"), listeners=True))
    assert host.cpu_flags is None
    assert host.distribution == ("", "")
    assert host.memory.available_bytes == -1
    assert host.listeners is None
    assert host.bounds.overcommit == -2
    assert [each.devices for each in host.accelerators] == [(), ()]
    assert host.accelerators[0].why_none == "no /dev/nvidia0"


def test_devices_are_found_where_the_kernel_shows_them(tmp_path):
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "kfd"):
        (tmp_path / "dev" / name).touch()
    for number, lanes in (("0", 0), ("1", 256)):
        folder = tmp_path / "sys/class/kfd/kfd/topology/nodes" / number
        folder.mkdir(parents=True)
        (folder / "properties").write_text(f"cpu_cores_count 1\nsimd_count {lanes}\n")
    host = SystemFacts(tmp_path).gathered(Asked(accelerators=("cuda", "rocm")))
    cuda, rocm = host.accelerators
    assert len(cuda.devices) == 2
    assert rocm.devices == ("node 1",)


def test_isolation_is_tried_out():
    host = SystemFacts().gathered(Asked(isolation=True))
    assert {each.name for each in host.isolation} >= {"no network", "system calls"}


def test_an_open_port_is_reached_and_a_closed_one_is_not(listening, tmp_path):
    port = listening.getsockname()[1]
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    closed = f"127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "data").touch()
    places = (f"127.0.0.1:{port}", closed, str(tmp_path / "data"), str(tmp_path / "none"))
    found = [not each.why_not for each in reached(places, timeout_s=2)]
    free.close()
    assert found == [True, False, True, False]


def test_a_place_that_does_not_answer_is_given_up_in_time(listening):
    listening.listen(0)
    place = f"postgresql://127.0.0.1:{listening.getsockname()[1]}/x"  # it never says a word
    started = time.perf_counter()
    (found,) = reached([place], timeout_s=0.2)
    assert found.why_not
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(("word", "is_reached"), [(b"S", True), (b"N", True), (b"H", False)])
def test_what_answers_as_postgresql_does_is_reached(listening, word, is_reached):
    def answer():
        one, _ = listening.accept()
        with one:
            one.recv(8)
            one.sendall(word)

    thread = threading.Thread(target=answer)
    thread.start()
    (found,) = reached([f"postgresql://127.0.0.1:{listening.getsockname()[1]}/x"], timeout_s=5)
    thread.join()
    assert (not found.why_not) is is_reached


def test_a_port_that_is_taken_is_not_free(listening):
    port = listening.getsockname()[1]
    assert port_state("127.0.0.1", port).why_not == "somebody listens there already"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert port_state("127.0.0.1", port).why_not == ""
    assert port_state("127.0.0.1", 99_999).why_not


def test_who_listens_on_all_addresses_is_seen():
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 - that is what is looked for
        assert server.getsockname()[1] in listeners()
        host = SystemFacts().gathered(Asked(listeners=True))
        assert server.getsockname()[1] in host.listeners


def test_lines_of_the_kernel_that_are_none_are_passed_over(tmp_path):
    (tmp_path / "proc/net").mkdir(parents=True)
    text = "head\n 0: 00000000:0016 0:0 0A\n 1: 0100007F:0017 0:0 0A\n 2: 00000000:00ZZ 0:0 0A\nx\n"
    (tmp_path / "proc/net/tcp").write_text(text)
    assert listeners(tmp_path) == (22,)


def test_what_is_private_is_the_keep_and_its_keys(tmp_path):
    (tmp_path / "modelkeep.toml").touch()
    found = kept_private(tmp_path, ("file:keys/root", "passphrase", "file:/etc/key"))
    assert found == (
        str(tmp_path),
        str(tmp_path / "modelkeep.toml"),
        str(tmp_path / "keys/root"),
        "/etc/key",
    )
    modes = SystemFacts().gathered(Asked(private=found)).private
    assert modes[0].is_folder
    assert modes[0].owner == os.geteuid()
    assert modes[2].mode == -1
