"""What a service manager is told, over a real datagram socket."""

import socket

import pytest

from modelkeep.workers.notify import READY, STOPPING, notify, notify_reloading


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_service_manager_hears_every_state(tmp_path, monkeypatch, is_abstract):
    name = "@modelkeep-test-notify" if is_abstract else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if is_abstract else name)
        manager.settimeout(5)
        notify(READY)
        notify(STOPPING)
        notify_reloading()
        assert [manager.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]
        assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


@pytest.mark.parametrize("name", ["", "relative", "/nobody/listens/here"])
def test_without_one_nothing_happens(monkeypatch, name):
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    notify(READY)
