"""Processes that train as one: they meet, tell each other things, and notice when one ends.

Process 0 listens at an address that all know, and each of the others keeps one connection to it
for the whole run. The operating system closes the connection of a process that is killed, so the
others learn of it at once and end with one line; JAX by itself ends them by an abort and a dump of
the stack, up to 100 seconds later. A machine that loses its power is noticed after half a minute.
"""

import atexit
import contextlib
import json
import os
import queue
import socket
import sys
import threading
import time

_WELCOME, _MESSAGE, _ERROR, _GOODBYE = b"WMEG"
_GREETING = b"diffusion"
_GRACE = 1.0  # seconds for word of an end to get round


class Peers:
    """This process among those it trains with; made by `meet`, used as a context manager.

    number: of this process, from 0. count: how many there are. Until the end of the `with` block,
    a process that is lost, or that leaves by an exception, ends this one: one line on standard
    error, and status 2.
    """

    def __init__(self, number, count, connections):
        self.number, self.count, self.connections = number, count, connections
        self._inboxes = {other: queue.SimpleQueue() for other in connections}
        self._threads, self._leaving = [], threading.Event()

    def __enter__(self):
        for other, connection in self.connections.items():
            thread = threading.Thread(target=self._listen, args=(other, connection), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, kind, error, trace):
        if error is None:
            self._tell(_GOODBYE)
            return
        time.sleep(_GRACE)  # if the cause is that another has ended, `_listen` says so, and ends us
        reason = str(error).strip().splitlines() or [kind.__name__]
        self._leave(f"process {self.number} has ended: {reason[0]}")
        # JAX would wait at its exit for the others, who are not coming.
        foreseen = isinstance(error, (ValueError, OSError, RuntimeError, SystemExit))
        atexit.register(_end, 2 if foreseen else 1)

    def from_first(self, content):
        """Return to all what process 0 has: bytes; the others' `content` is not looked at."""
        if self.number == 0:
            self._tell(_MESSAGE, content)
            return content
        return self._inboxes[0].get()

    def agree(self, facts):
        """Wait for all, and raise ValueError in all where one's `facts` are not process 0's.

        facts: name -> what JSON can write.
        """
        facts = json.loads(json.dumps(facts))
        verdict = b""
        if self.number:
            self._tell(_MESSAGE, json.dumps(facts).encode())
        else:
            for other, inbox in self._inboxes.items():
                theirs = json.loads(inbox.get())
                for name in [name for name in facts if theirs.get(name) != facts[name]][:1]:
                    verdict = (
                        f"process {other} has {name} {theirs.get(name)}, process 0 has "
                        f"{facts[name]}: start all processes alike"
                    ).encode()
        if verdict := self.from_first(verdict):
            raise ValueError(verdict.decode())

    def _tell(self, kind, content=b""):
        for connection in self.connections.values():
            with contextlib.suppress(OSError):  # `_listen` notices
                _send(connection, kind, content)

    def _listen(self, other, connection):
        reason = (
            f"process {other} of {self.count} is gone: see its own output for the cause, then "
            "start all of them again, with --resume"
        )
        with contextlib.suppress(OSError):
            while True:
                kind, content = _receive(connection)
                if kind == _MESSAGE:
                    self._inboxes[other].put(content)
                elif kind == _GOODBYE:
                    return
                elif not self._leaving.is_set():
                    reason = content.decode()
                    break
        if not self._leaving.is_set():
            print(f"error: {reason}", file=sys.stderr)
            self._leave(reason)
            _end(2)

    def _leave(self, reason):
        """Tell the others why; process 0 goes last, since JAX aborts whom it leaves behind."""
        self._leaving.set()
        self._tell(_ERROR, reason.encode())
        if self.number == 0:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(3 * _GRACE)


def meet(address, count, number, timeout=300.0):
    """Wait until all `count` processes have come to `address`, "host:port" of process 0.

    number: of this process, 0 to count - 1. timeout: seconds. Returns the `Peers` and the port
    that process 0 keeps free for JAX. Raises ValueError for what cannot be right, OSError (in
    every process) where one has not come in time.
    """
    if not 0 <= number < count:
        raise ValueError(f"--process-id must be 0 to {count - 1}, got {number}")
    host, port = split_address(address)
    deadline = time.monotonic() + timeout
    if number:
        return _join(address, host, port, count, number, deadline, timeout)
    connections = {}
    try:
        with _server(address, host, port) as server:
            while len(connections) < count - 1:
                _welcome(server, connections, count, deadline)
    except (OSError, ValueError) as error:
        if isinstance(error, TimeoutError):
            missing = [str(other) for other in range(1, count) if other not in connections]
            error = TimeoutError(
                f"process {', '.join(missing)} of {count} did not come to {address} within "
                f"{timeout:g} s: start it, let it through the firewall, or wait longer "
                "(--peer-timeout)"
            )
        for connection in connections.values():
            _send(connection, _ERROR, str(error).encode())
        raise error
    with socket.create_server(("", 0)) as free:
        jax_port = free.getsockname()[1]
    peers = Peers(0, count, connections)
    peers._tell(_WELCOME, str(jax_port).encode())
    for connection in connections.values():
        connection.settimeout(None)
    return peers, jax_port


def split_address(address):
    """Split "host:port" or "[host]:port"; raises ValueError for anything else."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"--coordinator must be HOST:PORT of process 0, got {address!r}")
    return host.strip("[]"), int(port)


def is_loopback(host):
    """Whether this host name means this machine only."""
    return host in ("localhost", "::1") or host.startswith("127.")


def _server(address, host, port):
    try:
        # Behind a router, the name that others know this machine by may not be one of its own.
        return socket.create_server((host if is_loopback(host) else "", port))
    except OSError as error:
        raise OSError(
            f"process 0 cannot listen at {address} ({os.strerror(error.errno or 0)}): choose "
            "another port, and start process 0 on that very machine"
        ) from error


def _welcome(server, connections, count, deadline):
    """Let one more process in."""
    server.settimeout(max(deadline - time.monotonic(), 0.01))
    connection, _ = server.accept()
    try:
        connection.settimeout(10)
        _, content = _receive(connection)
        theirs = json.loads(content)
        number, their_count = int(theirs["number"]), int(theirs["count"])
    except (OSError, ValueError, KeyError, TypeError):
        connection.close()  # not one of us
        return
    problem = None
    if their_count != count:
        problem = f"process {number} has --num-processes {their_count}, process 0 has {count}"
    elif number in connections or number == 0:
        problem = f"two processes came with --process-id {number}: give each its own"
    if problem:
        _send(connection, _ERROR, problem.encode())
        raise ValueError(problem)
    _keep_alive(connection)
    connections[number] = connection


def _join(address, host, port, count, number, deadline, timeout):
    """Come to process 0, and wait until all have."""
    while True:
        left = deadline - time.monotonic()
        try:
            connection = socket.create_connection((host, port), timeout=max(left, 0.01))
            break
        except socket.gaierror as error:
            raise OSError(f"no host {host!r}: check --coordinator, {address}") from error
        except OSError as error:
            if left <= 0:
                raise OSError(
                    f"process 0 was not at {address} for {timeout:g} s "
                    f"({error.strerror or error}): start it there, check the address, or wait "
                    "longer (--peer-timeout)"
                ) from error
            time.sleep(min(0.3, left))
    try:
        _keep_alive(connection)
        _send(connection, _MESSAGE, json.dumps({"number": number, "count": count}).encode())
        connection.settimeout(max(left, 0) + 10)  # process 0 gives up first, and says why
        kind, content = _receive(connection)
    except OSError as error:
        raise OSError(
            f"no process 0 of this training answers at {address}, or it has ended"
        ) from error
    if kind == _ERROR:
        raise OSError(content.decode())
    connection.settimeout(None)
    return Peers(number, count, {0: connection}), int(content)


def _keep_alive(connection):
    """Have the system ask every few seconds whether the other machine is still there."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _send(connection, kind, content=b""):
    head = _GREETING + bytes([kind]) + len(content).to_bytes(8, "big")
    connection.sendall(head + content)


def _receive(connection):
    """Return the kind and content of the next message; raises OSError where none can come."""
    head = _read(connection, len(_GREETING) + 9)
    if not head.startswith(_GREETING):
        raise ConnectionError("not a message of ours")
    return head[len(_GREETING)], _read(connection, int.from_bytes(head[-8:], "big"))


def _read(connection, size):
    content = bytearray()
    while len(content) < size:
        part = connection.recv(min(size - len(content), 1 << 20))
        if not part:
            raise ConnectionError("closed")
        content += part
    return bytes(content)


def _end(status):
    """End now: without JAX's exit, which waits for processes that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
