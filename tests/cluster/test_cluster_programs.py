from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_programs import Program, Starter, StartFailedError, reserve_port


@pytest.fixture
def starter() -> Iterator[Starter]:
    starter = Starter()
    yield starter
    starter.close()


def test_a_program_that_ends_while_starting_is_an_error_with_the_end_of_its_log(
    tmp_path: Path, starter: Starter
) -> None:
    command = ["/bin/sh", "-c", "seq 1000; echo no such flag; exit 3"]
    program = Program(command, tmp_path / "log", starter, lambda: False)
    with pytest.raises(StartFailedError, match="ended with code 3") as caught:
        program.start()
    assert str(caught.value).endswith("\n999\n1000\nno such flag")
    assert "\n900\n" not in str(caught.value)
    assert program.pid is None


def test_a_program_outlives_the_thread_that_asked_for_it(tmp_path: Path, starter: Starter) -> None:
    program = Program(["/bin/sleep", "600"], tmp_path / "log", starter, lambda: True)
    asking = threading.Thread(target=program.start)
    asking.start()
    asking.join()
    assert program.pid is not None
    ended = os.pidfd_open(program.pid)
    assert select.select([ended], [], [], 0.2)[0] == []
    program.stop()
    assert select.select([ended], [], [], 0)[0] == [ended]
    os.close(ended)
    assert program.pid is None


def test_nothing_that_was_started_outlives_its_starter(tmp_path: Path) -> None:
    starter = Starter()
    program = Program(["/bin/sleep", "600"], tmp_path / "log", starter, lambda: True)
    program.start()
    assert program.pid is not None
    ended = os.pidfd_open(program.pid)
    starter.close()
    assert select.select([ended], [], [], 0)[0] == [ended]
    os.close(ended)


def test_a_reserved_port_is_free_for_a_program_and_for_nobody_else() -> None:
    with reserve_port() as reservation, socket.socket() as program, socket.socket() as stranger:
        address = reservation.getsockname()
        with pytest.raises(OSError, match="in use"):
            stranger.bind(address)
        program.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        program.bind(address)
        program.listen()
        socket.create_connection(address, timeout=10).close()
