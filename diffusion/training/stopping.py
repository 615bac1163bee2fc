"""Stop a training run in good order: finish the step, save, and say where."""

import contextlib
import errno
import os
import signal
import sys
import threading

import keras
import numpy as np

from diffusion.training import distribution
from diffusion.training.callbacks import TrainingError, not_finite
from diffusion.training.record import steps_taken

HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
SIGNALS = {signal.SIGINT, signal.SIGTERM, HANGUP}


class GracefulStop(keras.callbacks.Callback):
    """End training after a step, so that the epoch ends as usual: with a checkpoint.

    Training ends after `max_steps` steps in all (None: no bound), with a TrainingError when the
    loss is not finite, and at a signal: SIGINT (Ctrl-C, a notebook's stop button), SIGTERM
    (`docker stop`, a scheduler) or SIGHUP (a closed terminal). Use it as a context manager around
    `fit`: it handles signals within, in the main thread only, and leaves alone those that the
    process ignores, as under `nohup`. Before the first step it ends at once: there is nothing to
    save. After the first signal, Ctrl-C ends the process at once. `interrupted` and `signal` (a
    number, or None) say afterwards what happened.

    path: the checkpoint, for the error message.
    """

    def __init__(self, path, max_steps=None):
        super().__init__()
        self.path, self.max_steps = path, max_steps
        self.interrupted, self.signal = False, None
        self._old_handlers, self._outputs, self._abandonable = {}, {}, False

    def __enter__(self):
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in SIGNALS - ({signal.SIGTERM} if _jax_handles_sigterm() else set()):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._old_handlers[number] = signal.signal(number, self._on_signal)
        for name in ("stdout", "stderr"):
            if (stream := getattr(sys, name)) is getattr(sys, f"__{name}__") and stream:
                self._outputs[name] = stream
                setattr(sys, name, _Output(stream, lambda: self._on_signal(HANGUP)))
        return self

    def __exit__(self, *exception):
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._old_handlers = {}
        if self.signal != HANGUP:  # else what is printed from here on may fail, too
            for name, stream in self._outputs.items():
                setattr(sys, name, stream)

    @contextlib.contextmanager
    def abandoned_at_a_signal(self):
        """Leave the block at a signal: for what a training run can do without."""
        self._abandonable = True
        try:
            yield
        except _Abandoned:
            pass
        finally:
            self._abandonable = False

    def _on_signal(self, number, frame=None):
        if signal.SIGINT in self._old_handlers:
            signal.signal(signal.SIGINT, self._old_handlers.pop(signal.SIGINT))
        if distribution.request_stop():
            return
        self.signal = self.signal or number
        self.interrupted = True
        if self.model is not None:
            self.model.stop_training = True
        if self._abandonable:
            self._abandonable = False
            raise _Abandoned

    def on_train_begin(self, logs=None):
        self._steps = steps_taken(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self._abandonable = False  # from now on there is a step to save
        self._steps += 1
        if not np.isfinite(logs["loss"]):
            raise TrainingError(not_finite("the loss", self.model, self.path))
        if distribution.stop_requested(self._steps):  # all processes after the same step
            self.interrupted = True
        if self.interrupted or self._steps == self.max_steps:
            self.model.stop_training = True


class _Abandoned(BaseException):
    """Raised by a signal in a block that may be left out."""


class _Output:
    """A text stream that falls silent and calls `when_gone` once its terminal or pipe is gone."""

    def __init__(self, stream, when_gone):
        self._stream, self._when_gone = stream, when_gone

    def write(self, text):
        try:
            written = self._stream.write(text)
            self._stream.flush()
            return written
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # takes what is still in the buffer
            os.close(nowhere)
            self._when_gone()
            return len(text)

    def flush(self):
        self.write("")

    def __getattr__(self, name):
        return getattr(self._stream, name)


def _jax_handles_sigterm():
    """Return whether several processes train as one: JAX then stops all after the same step."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.process_count() > 1
