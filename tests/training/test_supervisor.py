"""Processes that train as one: all start or none does, and a lost one ends the others in one line.

Most of these run no model: they meet, and then agree on something again and again.
"""

import importlib.util
import os
import signal
import socket
import time

import pytest
from processes import end as end_all
from processes import start_python

from diffusion.training.rendezvous import addresses
from diffusion.training.supervisor import explain

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="no JAX here")


def on_jax(test):
    """Mark a test that starts processes on JAX."""
    return pytest.mark.slow(needs_jax(test))


PROGRAM = """
import os, signal, sys, time
from diffusion.training import distribution, rendezvous, supervisor
ending, timeout, *place = sys.argv[1:]
place = rendezvous.addresses(place[0], int(place[1]), int(place[2]))
status = supervisor.supervise(*place, float(timeout))
if status is not None:
    sys.exit(status)
print("child", os.getpid(), flush=True)
if ending == "signals":
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append("SIGINT"))
    signal.signal(signal.SIGTERM, lambda *_: seen.append("SIGTERM"))
    print("ready", file=sys.stderr, flush=True)
    while "SIGTERM" not in seen:
        time.sleep(0.05)
    print(seen, file=sys.stderr)
    sys.exit(7)
rendezvous.HEARTBEAT_SECONDS = 6
number = place[2]
try:
    with rendezvous.rendezvous(*place, float(timeout)):
        distribution._here = distribution._Here(number, place[1])
        distribution.require_agreement(lambda: {"seed": 3, "widths": "x" * 10})
        print("met", flush=True)
        if ending == "fail" and number == 1:
            raise OSError("no space left on the disk of process 1")
        if ending == "differ":
            distribution.require_agreement(lambda: {"seed": 3, "widths": [8, 16 + number]})
        while True:
            distribution.require_agreement(dict)
            time.sleep(0.05)
except (OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
"""


def free_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def start(ending, *places, address=None, timeout=60):
    """Start one process for each (number of processes, own number)."""
    address = address or free_address()
    return [start_python("-c", PROGRAM, ending, timeout, address, *place) for place in places]


def meet(processes):
    """Wait until all have met; return the children that do the work."""
    children = []
    for process in processes:
        children.append(int(process.stdout.readline().split()[1]))
        while (line := process.stdout.readline()) != "met\n":
            assert line, process.stderr.read()
    return children


def end(processes):
    """Return status and error lines of each; the test fails unless each ends within a minute."""
    return [(status, errors.splitlines()) for status, _, errors in end_all(processes, timeout=60)]


def assert_one_line(ends, *words):
    for status, errors in ends:
        assert status == 2
        assert len(errors) == 1 and errors[0].startswith("error: "), errors
        assert any(word in errors[0] for word in words), errors


@on_jax
@pytest.mark.parametrize(
    ("victim", "number"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)]
)
def test_a_lost_process_ends_the_others_with_one_line(victim, number):
    processes = start("run", (3, 0), (3, 1), (3, 2))
    child = meet(processes)[victim]
    lost = processes.pop(victim)
    try:
        # A killed parent takes its child along; what hangs is the child.
        os.kill(child if number == signal.SIGSTOP else lost.pid, number)
        # Process 2 may learn that process 0 has gone before it learns why.
        assert_one_line(end(processes), f"process {victim} of 3 was lost", "process 0 of 3")
    finally:
        if number == signal.SIGSTOP:
            os.kill(child, signal.SIGKILL)
        lost.kill()
        lost.communicate()


@on_jax
def test_a_process_that_fails_says_why_and_ends_the_others():
    first, second = end(start("fail", (2, 0), (2, 1)))
    assert second == (2, ["error: no space left on the disk of process 1"])
    assert_one_line([first], "process 1 of 2 was lost")


@on_jax
def test_processes_with_other_facts_are_refused_in_all():
    ends = end(start("differ", (2, 0), (2, 1)))
    assert_one_line(ends, "process 1 has widths [8, 17], process 0 has [8, 16]")


@on_jax
def test_processes_that_do_not_all_come_or_differ_in_numbers_end_with_one_line():
    missing = [[(2, 0)], [(2, 1)], [(3, 0), (2, 1)], [(3, 0), (3, 1), (3, 1)]]
    groups = [start("run", *places, timeout=5) for places in missing]
    first, *others = start("run", (2, 0), (3, 1), (3, 2), timeout=10)  # both are too many
    for group in groups:
        assert_one_line(end(group), "processes came")
    assert_one_line(end(others), "the same --num-processes", "with the same number")
    assert_one_line(end([first]), "process 1 of 2 was lost", "not all 2 processes came")


@on_jax
def test_a_taken_port_and_an_unknown_host_are_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert_one_line(end(start("run", (2, 0), address=address)), f"listen at {address}")
    ends = end(start("run", (2, 1), address="flowers.invalid:1234"))
    assert_one_line(ends, "no host 'flowers.invalid'")


@pytest.mark.slow
def test_the_child_gets_each_signal_once_and_its_status_and_errors_are_passed_on():
    (process,) = start("signals", (2, 0))
    assert process.stderr.readline() == "ready\n"
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.5)
    assert end([process]) == [(7, ["['SIGINT', 'SIGTERM']"])]


@pytest.mark.slow
def test_a_killed_child_is_reported_by_its_signal():
    (process,) = start("signals", (2, 0))
    os.kill(int(process.stdout.readline().split()[1]), signal.SIGKILL)
    status, errors = end([process])[0]
    assert status == 137 and "SIGKILL" in errors[-1]


@pytest.mark.parametrize(
    ("number", "text", "words"),
    [
        (0, "are unhealthy (stopped sending heartbeats):\n1\n3\nThe tasks", "process 1, 3 of 4"),
        (0, "Some timed out task names:\n/job:jax_worker/task:2\n", "process 2 of 4 was lost"),
        (1, "DEADLINE_EXCEEDED\n\nRPC: Service/Heartbeat", "process 0 of 4 was lost"),
        (0, "words of a version to come", "another process was lost"),
        (3, "Unexpected task registered with task=3\n\nRPC: RegisterTask", "--num-processes"),
    ],
)
def test_the_last_words_of_jax_become_one_line(number, text, words):
    line = explain(text, "host:1", 4, number, 300)
    assert words in line and "\n" not in line


def test_addresses_come_from_the_environment_and_options_take_precedence(monkeypatch):
    alone = addresses(None, None, None)
    assert alone == addresses(*alone) == ("", 1, 0)
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "10.0.0.1:99,10.0.0.2:99")
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "1")
    assert addresses(None, None, None) == ("10.0.0.1:99", 2, 1)
    assert addresses("[::1]:7", None, 0) == ("[::1]:7", 2, 0)
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "one")
    with pytest.raises(ValueError, match=r"KERAS_DISTRIBUTION_PROCESS_ID .*'one'"):
        addresses(None, None, None)
    monkeypatch.delenv("KERAS_DISTRIBUTION_PROCESS_ID")
    with pytest.raises(ValueError, match="need --coordinator"):
        addresses(None, None, None)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        *(((text, 2, 0), f"'{text}'") for text in ("host", "host:", ":80", "host:x", "host:70000")),
        *((("host:80", 2, number), f"got {number}") for number in (-1, 2)),
        (("host:80", 0, 0), "got 0"),
    ],
)
def test_wrong_addresses_and_numbers_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        addresses(*wrong)
