"""What happens beside the training: checkpoints, loss curves, sample grids, stopping in order."""

import signal
import threading
import time

import keras
import numpy as np
from keras import ops

from diffusion.support.files import image_grid, save_image_grid, write_json, written_whole
from diffusion.training import distribution
from diffusion.training.curves import STEPS_PER_PART, Part, read_losses, write_losses
from diffusion.training.record import steps_taken


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and what to try."""


class Checkpoint(keras.callbacks.Callback):
    """After each epoch, write the run's record and then the model, each whole or not at all.

    Keras's own `ModelCheckpoint` and `BackupAndRestore` write over the old file in place, so that
    a process killed meanwhile leaves neither. The model file is all that is needed to go on: the
    optimizer in it counts the steps. The record is written first and may be one epoch ahead;
    whoever resumes drops what the model has not seen.

    path: the `.keras` file. record_path: a JSON file. record: a dictionary; its "history" grows
    by one entry an epoch, and its "steps" and "seconds" are kept up to date.
    """

    def __init__(self, path, record_path, record):
        super().__init__()
        self.path, self.record_path, self.record = path, record_path, record

    def on_train_begin(self, logs=None):
        self._clock = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        weights = self.model.network.get_weights()
        if not all(np.isfinite(weight).all() for weight in weights):
            raise TrainingError(not_finite("a weight", self.model, self.path))
        now = time.perf_counter()
        record = self.record
        record["seconds"] += now - self._clock
        self._clock = now
        record["steps"] = steps_taken(self.model)
        entry = {"epoch": epoch + 1, "steps": record["steps"], "seconds": record["seconds"]}
        record["history"].append(entry | {name: float(value) for name, value in logs.items()})
        write_json(self.record_path, record)
        with distribution.single_process(), written_whole(self.path) as temporary:
            self.model.save(temporary)


class LossCurve(keras.callbacks.Callback):
    """Record the mean loss of every few steps, for a curve finer than one point an epoch.

    The "loss" that Keras hands to callbacks is the mean since the epoch began. The mean of steps
    a+1 to b is had from two of them, (b mean_b - a mean_a) / (b - a), and only those are looked at.

    path: the CSV file (`curves.Part` says what a row holds). every: a part of the curve ends at
    each multiple of so many steps, and where an epoch or the training ends, so that none reaches
    over a checkpoint: put this before `Checkpoint`, and a run that goes on from one drops what the
    model has not seen, and has neither a gap nor a step twice. log_dir: if given, the curve goes
    to TensorBoard there as well, as "loss" (which needs the tensorboard package).
    """

    def __init__(self, path, every=STEPS_PER_PART, log_dir=None):
        super().__init__()
        self.path, self.every, self.log_dir = path, every, log_dir
        self._events = None

    def on_train_begin(self, logs=None):
        done = steps_taken(self.model)
        parts = read_losses(self.path) if self.path.exists() else []
        self.parts = [part for part in parts if part.step <= done]
        self._written = time.perf_counter()
        if self.log_dir is not None:
            self._events = Events(self.log_dir, done)

    def on_epoch_begin(self, epoch, logs=None):
        self._start = steps_taken(self.model)
        self._closed, self._sum = 0, 0.0  # steps of this epoch that are in a part; their losses

    def on_train_batch_end(self, batch, logs=None):
        step = self._start + batch + 1
        if step // self.every > (self._start + self._closed) // self.every:
            self._close(batch + 1, logs["loss"])
            if time.perf_counter() - self._written > 10:  # seconds: costs nothing, so seldom
                self._write()

    def on_epoch_end(self, epoch, logs=None):
        count = steps_taken(self.model) - self._start
        if count > self._closed:
            self._close(count, logs["loss"])
        self._write()

    def on_train_end(self, logs=None):
        if self._events:
            self._events.close()

    def _close(self, count, mean):
        """End a part at step `count` of this epoch, of which `mean` is the mean loss so far."""
        steps, total = count - self._closed, count * mean
        part = Part(self._start + count, steps, self.model.image_size, (total - self._sum) / steps)
        self._closed, self._sum = count, total
        self.parts.append(part)
        if self._events:
            self._events.add("loss", part.loss, part.step)

    def _write(self):
        write_losses(self.path, self.parts)
        self._written = time.perf_counter()


class SampleGrid(keras.callbacks.Callback):
    """Draw pictures from one and the same noise every few epochs, to see flowers come out of it.

    folder: where `epoch_0001.png` and so on go. every: epochs from one grid to the next; the
    first epoch is always drawn. log_dir: if given, the grids go to TensorBoard there as well
    (which needs TensorFlow). Of processes that train as one, all draw, for the weights lie across
    them all, and process 0 keeps the grid.
    """

    def __init__(self, folder, every=1, num_images=10, steps=20, seed=0, log_dir=None):
        super().__init__()
        self.folder, self.every, self.log_dir = folder, every, log_dir
        self.num_images, self.steps, self.seed = num_images, steps, seed

    def on_epoch_end(self, epoch, logs=None):
        number = epoch + 1
        if number > 1 and number % self.every:
            return
        images = self.model.generate(self.num_images, self.steps, seed=self.seed)
        if not distribution.is_first():
            return
        save_image_grid(self.folder / f"epoch_{number:04d}.png", images)
        if self.log_dir is not None:
            import tensorflow as tf

            step = steps_taken(self.model)
            with tf.summary.create_file_writer(str(self.log_dir)).as_default():
                tf.summary.image("samples", image_grid(images)[None], step=step)


class GracefulStop(keras.callbacks.Callback):
    """End training after a batch, so that what follows an epoch still happens: the checkpoint.

    It ends when `max_steps` steps have been taken in all (None: no bound), on Ctrl-C (or the
    notebook's stop button), and with a TrainingError when the loss is no longer a number. A
    second Ctrl-C ends at once. Use it as a context manager around `fit`: it minds Ctrl-C within,
    and `interrupted` tells afterwards whether that ended it.
    """

    def __init__(self, path, max_steps=None):
        super().__init__()
        self.path, self.max_steps, self.interrupted = path, max_steps, False
        self._old_handler = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._old_handler = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, *exception):
        if self._old_handler is not None:
            signal.signal(signal.SIGINT, self._old_handler)
            self._old_handler = None

    def _on_interrupt(self, signum, frame):
        self.interrupted = not distribution.ask_to_stop()
        self.__exit__()

    def on_train_begin(self, logs=None):
        self._steps = steps_taken(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1
        if not np.isfinite(logs["loss"]):
            raise TrainingError(not_finite("the loss", self.model, self.path))
        if distribution.told_to_stop(self._steps):  # never among themselves: all at once
            self.interrupted = True
        if self.interrupted or self._steps == self.max_steps:
            self.model.stop_training = True


class Events:
    """A TensorBoard file of numbers by step; what an earlier one says after `done` is void."""

    def __init__(self, folder, done):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventFileWriter(str(folder), flush_secs=10)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=done + 1, session_log=start)

    def add(self, name, value, step):
        """Add one number."""
        value = self._summary.Value(tag=name, simple_value=value)
        self._write(step=step, summary=self._summary(value=[value]))

    def _write(self, **content):
        self._writer.add_event(self._event(wall_time=time.time(), **content))

    def close(self):
        """Write what is still held, and close the file."""
        self._writer.close()


def not_finite(what, model, path):
    """Say, in one line, that training ran away: at which step, how fast, and what is left."""
    step = steps_taken(model)
    rate = float(ops.convert_to_numpy(model.optimizer.learning_rate))
    kept = f"the last good checkpoint is {path}" if path.exists() else "no checkpoint was written"
    return (
        f"{what} is not finite at step {step}, learning rate {rate:.3g}: "
        f"try a lower learning rate; {kept}"
    )
