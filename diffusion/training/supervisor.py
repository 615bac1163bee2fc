"""Run this program again as a child process, and report a lost peer in one line.

When a process that trains with others is lost, JAX aborts the others with a page of log lines and
stack frames. The parent keeps that page back and says what it means.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading

_MARK = "DIFFUSION_SUPERVISED"
_ABORT = re.compile(r"[EF]\d{4} \d\d:\d\d:\d\d\S* +\d+ (coordination_service\w*\.cc|client\.h):")


def supervise(coordinator: str, count: int, number: int, timeout: float) -> int | None:
    """Run this program again as a child and return its exit status; None in the child itself.

    SIGINT, SIGTERM and SIGHUP go on to the child. Its standard error is passed on line by line,
    except for JAX's report of a lost peer: that becomes one line, and status 2. The child ends
    if its parent is killed.
    """
    if os.environ.pop(_MARK, None):
        threading.Thread(target=_end_with_parent, daemon=True).start()
        return None
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env={**os.environ, _MARK: "1"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,  # a terminal's Ctrl-C then reaches it once, from here
    )
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), lambda number, frame: child.send_signal(number))
    held = []
    relay = threading.Thread(target=_relay, args=(child.stderr, held), daemon=True)
    relay.start()
    status = child.wait()
    relay.join(5)  # a process that the child has left behind may still hold the pipe
    text = "".join(held)
    if status >= 0:
        own = [line for line in held if line.startswith("error: ")]
        sys.stderr.write("".join(own) or text)
        return status
    name = signal.Signals(-status).name
    if text:
        reason = explain(text, coordinator, count, number, timeout)
    else:
        reason = f"the training process was ended by {name}"
    print(f"error: {reason}", file=sys.stderr)
    return 2 if text else 128 - status


def explain(text: str, coordinator: str, count: int, number: int, timeout: float) -> str:
    """Return in one line what JAX's last words, `text`, mean for process `number` of `count`."""
    if "Unexpected task registered" in text:
        return f"process 0 expects no process {number}: give all the same --num-processes"
    if "RegisterTask" in text:
        return (
            f"not all {count} processes came to {coordinator} within {timeout:g} s: start all of "
            "them, each with its own --process-id and the same --num-processes, let them through "
            "the firewall, or wait longer (--peer-timeout)"
        )
    named = re.search(r"(?:stopped sending heartbeats\)|task names):\n((?:.*\d+\n)+)", text)
    lost = re.findall(r"(\d+)\n", named[1]) if named else ["0"] if number else []
    who = f"process {', '.join(lost)} of {count}" if lost else "another process"
    return (
        f"{who} was lost (ended, hanging or out of reach): see its own output for the cause, then "
        "start all of them again with --resume"
    )


def _relay(lines, held):
    """Pass lines on to standard error, until JAX reports an error; keep the rest in `held`."""
    for line in lines:
        if held or _ABORT.match(line):
            held.append(line)
        else:
            with contextlib.suppress(OSError):  # a closed terminal must not stop the child
                sys.stderr.write(line)
                sys.stderr.flush()


def _end_with_parent():
    with contextlib.suppress(OSError):
        os.read(0, 1)  # returns when the parent, which never writes, is gone
    os._exit(2)
