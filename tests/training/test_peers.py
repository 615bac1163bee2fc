"""Processes that train as one: they all come or none goes on, and no end leaves another waiting."""

import signal
import socket
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

from diffusion.training.peers import meet, split_address

PROGRAM = """
import sys, time
from diffusion.training.peers import meet
address, count, number, ending = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
peers, jax_port = meet(address, count, number, 30)
with peers:
    content = peers.from_first(b"weights" * 300_000 if number == 0 else None)
    peers.agree({"seed": 3, "widths": (8, 16)})
    print(len(content), jax_port, flush=True)
    if ending == "fail" and number == 1:
        raise OSError("no space left on the disk of process 1")
    if ending == "differ":
        peers.agree({"seed": 3, "widths": (8, 16 + number % 2)})
    if ending == "wait" or ending == "fail":
        time.sleep(60)
"""


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def start(count, ending):
    address = free_address()
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(count), str(number), ending],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def end(processes):
    """Each one's status, output and errors; the test fails if one does not end by itself."""
    try:
        outputs = [process.communicate(timeout=30) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]


def test_all_get_what_the_first_has_and_end_well():
    ends = end(start(3, "well"))
    assert [status for status, _, _ in ends] == [0, 0, 0], ends
    assert len({output for _, output, _ in ends}) == 1  # the same port, too
    assert ends[0][1].startswith("2100000 ")


@pytest.mark.parametrize("victim", [0, 2])
def test_where_one_is_killed_all_others_end_with_one_line(victim):
    processes = start(3, "wait")
    for process in processes:
        process.stdout.readline()
    processes[victim].send_signal(signal.SIGKILL)
    ends = end(processes)
    for number in {0, 1, 2} - {victim}:
        status, _, errors = ends[number]
        assert status == 2
        assert errors.startswith(f"error: process {victim} of 3 is gone") and "--resume" in errors
        assert errors.count("\n") == 1


def test_where_one_fails_all_others_say_why():
    ends = end(start(3, "fail"))
    assert [status for status, _, _ in ends] == [2, 2, 2]
    for number in (0, 2):
        assert ends[number][2] == (
            "error: process 1 has ended: no space left on the disk of process 1\n"
        )


def test_processes_that_were_started_otherwise_are_refused_in_all():
    for status, _, errors in end(start(2, "differ")):
        assert status == 2
        assert "process 1 has widths [8, 17], process 0 has [8, 16]" in errors


def test_who_never_comes_is_named():
    address = free_address()
    with pytest.raises(OSError, match=r"process 1, 2 of 3 did not come to 127.*within 0.2 s"):
        meet(address, 3, 0, 0.2)
    with pytest.raises(OSError, match=r"process 0 was not at 127.* for 0.2 s .*refused"):
        meet(address, 2, 1, 0.2)


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen at 127.0.0.1:{port} .*in use"):
            meet(f"127.0.0.1:{port}", 2, 0, 5)


def test_an_unknown_host_is_named(monkeypatch):
    def unknown(*arguments, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(OSError, match="no host 'flower-host': check --coordinator"):
        meet("flower-host:1234", 2, 1, 5)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [((2, 3), (1, 2), "--num-processes 2, process 0 has 3"), ((1, 3), (1, 3), "--process-id 1")],
)
def test_wrong_numbers_are_refused_in_all(first, second, words):
    address, errors = free_address(), []

    def come(number, count):
        try:
            meet(address, count, number, 3)
        except (OSError, ValueError) as error:
            errors.append(str(error))

    threads = [threading.Thread(target=come, args=who) for who in ((0, 3), first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(errors) == 3 and sum(words in error for error in errors) >= 2, errors


def test_strangers_at_the_port_are_not_let_in():
    address, met = free_address(), []
    first = threading.Thread(target=lambda: met.append(meet(address, 2, 0, 20)))
    first.start()
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", b""):
        for _ in range(200):
            try:
                with socket.create_connection(split_address(address)) as stranger:
                    stranger.sendall(greeting)
                break
            except ConnectionRefusedError:
                threading.Event().wait(0.02)
    second, port = meet(address, 2, 1, 20)
    first.join(20)
    assert met[0][1] == port and list(met[0][0].connections) == [1]
    for peers in (met[0][0], second):
        for connection in peers.connections.values():
            connection.close()


@pytest.mark.parametrize("address", ["host", "host:", ":80", "host:x", "host:0", "host:70000"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        split_address(address)


@pytest.mark.parametrize("number", [-1, 2])
def test_a_number_out_of_range_is_refused(number):
    with pytest.raises(ValueError, match=f"--process-id must be 0 to 1, got {number}"):
        meet(free_address(), 2, number, 5)


def test_an_ipv6_address_loses_its_brackets():
    assert split_address("[::1]:1234") == ("::1", 1234)
