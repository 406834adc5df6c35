"""The control channel: whole messages, the newest of each kind, nothing that makes one wait."""

import errno
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.adapters.memory_file import sealed_bytes
from modelkeep.core.artifact import Schema
from modelkeep.core.errors import IntegrityError
from modelkeep.core.record import from_json, to_json
from modelkeep.workers.control import (
    CERTIFICATE,
    LOAD,
    TABLE,
    End,
    Load,
    SupervisorLine,
    Table,
    control_pair,
)
from modelkeep.workers.plan import ServedModel


@pytest.fixture
def channel():
    ours, fd = control_pair()
    yield ours, fd
    ours.close()
    os.close(fd)


def table(number, models=0):
    served = ServedModel(
        name="m" * 100, version=1, schema=Schema(inputs=(), outputs=()), sockets=(), is_default=True
    )
    return Table(number=number, models=(served,) * models)


def line_of(fd):
    tables, chains, said = [], [], []
    line = SupervisorLine(
        os.dup(fd), on_table=tables.append, on_certificate=chains.append, complain=said.append
    )
    return line, tables, chains, said


def test_a_table_of_any_size_arrives_whole_and_a_load_goes_back(channel):
    ours, fd = channel
    line, tables, chains, said = line_of(fd)
    ours.send(TABLE, to_json(table(1, models=5000)))
    ours.send(CERTIFICATE, b"chain" * 100_000)
    line.take()
    assert [each.number for each in tables] == [1]
    assert len(tables[0].models) == 5000
    assert chains == [b"chain" * 100_000]
    line.say(Load(table=1, sockets=("0.sock",)))
    ((kind, body),) = ours.received()
    assert kind == LOAD
    assert from_json(Load, body, what="x") == Load(table=1, sockets=("0.sock",))
    assert said == []
    line.close()


def test_who_reads_late_gets_the_newest_and_nobody_waits(channel):
    ours, fd = channel
    line, tables, _, _ = line_of(fd)
    for number in range(1, 500):
        ours.send(TABLE, to_json(table(number)))
    for _ in range(3):
        line.take()
        ours.flush()
    assert tables[-1].number == 499
    assert len(tables) < 100
    line.close()


def test_a_successor_reads_nothing_that_was_for_its_predecessor(channel):
    ours, fd = channel
    ours.send(TABLE, to_json(table(1)))
    ours.forget()
    ours.send(TABLE, to_json(table(2)))
    line, tables, _, _ = line_of(fd)
    line.take()
    assert [each.number for each in tables] == [2]
    line.close()


def test_a_body_that_could_change_or_make_one_wait_is_no_message(channel):
    ours, fd = channel
    with socket.socket(fileno=os.dup(fd)) as its:
        loose = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
        reading, writing = os.pipe()
        for bad in (loose, reading):
            socket.send_fds(its, [LOAD], [bad])
            with pytest.raises(IntegrityError, match="no message"):
                list(ours.received())
        its.send(LOAD)  # no body at all
        with pytest.raises(IntegrityError, match="no message"):
            list(ours.received())
        for each in (loose, reading, writing):
            os.close(each)


def test_what_cannot_be_made_at_present_is_sent_later(channel, monkeypatch):
    ours, fd = channel
    line, tables, _, _ = line_of(fd)

    def no_more(*_):
        raise OSError(errno.EMFILE, "no descriptor is left")

    with monkeypatch.context() as scarce:
        scarce.setattr("modelkeep.adapters.memory_file.os.memfd_create", no_more)
        ours.send(TABLE, to_json(Table(number=7, models=())))
        line.take()
        assert tables == []
    ours.flush()
    line.take()
    assert [each.number for each in tables] == [7]
    line.close()


def test_a_table_that_is_none_changes_nothing_and_is_said(channel):
    ours, fd = channel
    line, tables, _, said = line_of(fd)
    ours.send(TABLE, b"{}")
    line.take()
    assert tables == []
    assert len(said) == 1
    line.close()


@given(st.binary(max_size=40), st.binary(max_size=200))
def test_whatever_comes_is_taken_or_refused(kind, body):
    ours, fd = control_pair()
    sent = sealed_bytes("body", body)
    with socket.socket(fileno=fd) as its:
        if kind:
            socket.send_fds(its, [kind], [sent])
        os.close(sent)
        try:
            for got_kind, got_body in ours.received():
                assert (got_kind, got_body) == (kind, body)
        except IntegrityError:
            assert len(kind) > 16
    ours.close()
    assert isinstance(ours, End)
