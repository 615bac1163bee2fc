"""Training callbacks: checkpoints, loss curves, sample grids and the progress bar."""

import contextlib
import time
import warnings

import keras
import numpy as np
from keras import ops

from diffusion.support.files import save_image_grid, write_json, written_whole
from diffusion.training import distribution
from diffusion.training.curves import STEPS_PER_PART, Part, read_losses, write_losses
from diffusion.training.record import steps_taken


class TrainingError(RuntimeError):
    """Training cannot continue; the message says why and what to try."""


class Checkpoint(keras.callbacks.Callback):
    """After each epoch, write the run's record and then the model, each whole or not at all.

    Keras's own `ModelCheckpoint` and `BackupAndRestore` overwrite the old file in place, so a
    process killed meanwhile leaves neither. To resume, the model file is enough: its optimizer
    counts the steps. The record is written first and may be one epoch ahead; resuming drops what
    the model has not seen.

    path: the `.keras` file. record_path: a JSON file. record: a dictionary; its "history" grows
    by one entry an epoch, and its "steps" and "seconds" are kept up to date.
    Raises TrainingError if a weight is not finite, OSError if a file cannot be written.
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
        now, record = time.perf_counter(), self.record
        record["seconds"] += now - self._clock
        self._clock = now
        record["steps"] = steps_taken(self.model)
        entry = {"epoch": epoch + 1, "steps": record["steps"], "seconds": record["seconds"]}
        record["history"].append(entry | {name: float(value) for name, value in logs.items()})
        try:
            write_json(self.record_path, record)
            with distribution.single_process(), written_whole(self.path) as temporary:
                self.model.save(temporary)
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written at step {record['steps']} ({_reason(error)}): make "
                f"room, or mend its folder, then add --resume; {kept(self.path)}"
            ) from error


class View(keras.callbacks.Callback):
    """A callback that only shows the training: if it cannot write, it warns once.

    path: the file or folder that it writes. failed: whether it ever could not.
    """

    errors: type[Exception] = OSError

    def __init__(self, path):
        super().__init__()
        self.path, self.failed = path, False

    def attempt(self, write, *arguments):
        """Call `write(*arguments)`; training does not end if that fails."""
        try:
            write(*arguments)
        except self.errors as error:
            if not self.failed:
                reason = f"{self.path} cannot be written ({_reason(error)})"
                warnings.warn(f"{reason}: training continues without it", stacklevel=3)
            self.failed = True


class LossCurve(View):
    """Record the mean loss of every few steps: a curve finer than one point an epoch.

    Keras hands callbacks the mean "loss" since the epoch began. Two of them give the mean of steps
    a+1 to b, (b mean_b - a mean_a) / (b - a).

    path: the CSV file (`curves.Part` is its row). A damaged one is moved aside. every: a part of
    the curve ends at each multiple of so many steps, and where an epoch or the training ends, so
    that no part reaches over a checkpoint: place this before `Checkpoint`. A resumed run then drops
    what the model has not seen, and has neither a gap nor a step twice. board: a `TensorBoardLogs`
    that gets the curve, too.
    """

    def __init__(self, path, every=STEPS_PER_PART, board=None):
        super().__init__(path)
        self.every, self.board = every, board

    def on_train_begin(self, logs=None):
        done = steps_taken(self.model)
        self.parts = [part for part in self._recorded() if part.step <= done]
        self._written = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self._start = steps_taken(self.model)
        self._closed, self._sum = 0, 0.0  # steps of this epoch that are in a part; their losses

    def on_train_batch_end(self, batch, logs=None):
        step = self._start + batch + 1
        if step // self.every > (self._start + self._closed) // self.every:
            self._close(batch + 1, logs["loss"])
            if time.perf_counter() - self._written > 10:  # seconds: rarely, so at no cost
                self._write()

    def on_epoch_end(self, epoch, logs=None):
        count = steps_taken(self.model) - self._start
        if count > self._closed:
            self._close(count, logs["loss"])
        self._write()

    def _recorded(self):
        try:
            return read_losses(self.path)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            aside = self.path.with_suffix(".damaged.csv")
            self.path.replace(aside)
            warnings.warn(f"{error}: moved to {aside.name}; the curve begins anew", stacklevel=2)
            return []

    def _close(self, count, mean):
        """End a part at step `count` of this epoch, of which `mean` is the mean loss so far."""
        steps, total = count - self._closed, count * mean
        part = Part(self._start + count, steps, self.model.image_size, (total - self._sum) / steps)
        self._closed, self._sum = count, total
        self.parts.append(part)
        if self.board:
            self.board.add_loss(part)

    def _write(self):
        self.attempt(write_losses, self.path, self.parts)
        self._written = time.perf_counter()


class SampleGrid(View):
    """Generate images from the same noise every few epochs, to watch flowers emerge from it.

    A model with labels is given names that are spread evenly over all it knows, always the same.
    folder: where `epoch_0001.png` and so on go. every: epochs from one grid to the next; the first
    epoch always has one. board: a `TensorBoardLogs` that gets the grids, too. stop: a
    `GracefulStop`; after a signal there is no grid. Of several processes all generate, for the
    weights lie across them all, and process 0 writes the grid.
    """

    def __init__(self, folder, every=1, num_images=10, steps=20, seed=0, board=None, stop=None):
        super().__init__(folder)
        self.every, self.board, self.stop = every, board, stop
        self.num_images, self.steps, self.seed = num_images, steps, seed

    def on_epoch_end(self, epoch, logs=None):
        number = epoch + 1
        if (number > 1 and number % self.every) or (self.stop and self.stop.interrupted):
            return
        with self.stop.abandoned_at_a_signal() if self.stop else contextlib.nullcontext():
            count, labels = self.num_images, None
            if self.model.labelled:
                last = len(self.model.class_names) - 1
                labels = np.linspace(0, last, count).round().astype(int)
            images = self.model.generate(count, self.steps, seed=self.seed, labels=labels)
            if distribution.is_main_process():
                self.attempt(save_image_grid, self.path / f"epoch_{number:04d}.png", images)
                if self.board:
                    self.board.add_images(images)


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras's progress bar; an epoch that was stopped midway ends at the steps it took."""

    def on_epoch_end(self, epoch, logs=None):
        self.progbar.update(self.seen, list(logs.items()), finalize=True)


@contextlib.contextmanager
def memory_errors(config, path):
    """Turn NumPy's, TensorFlow's and JAX's errors of memory into one line that says what to do."""
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__} {error}".upper().replace("_", "")
        # TensorFlow says the same of a full disk.
        exhausted = "RESOURCEEXHAUSTED" in text and "NO SPACE LEFT" not in text
        if not (exhausted or isinstance(error, MemoryError)):
            raise
        raise TrainingError(
            f"out of memory with batch_size {config.batch_size}: choose a smaller one "
            f"(--batch-size) in another folder; {kept(path)}"
        ) from error


def not_finite(what, model, path):
    """Say in one line that training diverged: at which step and learning rate, and what is left."""
    step = steps_taken(model)
    rate = float(ops.convert_to_numpy(model.optimizer.learning_rate))
    return (
        f"{what} is not finite at step {step}, learning rate {rate:.3g}: "
        f"try a lower learning rate; {kept(path)}"
    )


def kept(path):
    """Say which checkpoint is left."""
    return f"the last good checkpoint is {path}" if path.exists() else "no checkpoint was written"


def _reason(error):
    """The system's words for an error without its path, else the first line of the message."""
    if getattr(error, "strerror", None):
        return error.strerror
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return first_line.split("}} ")[-1]  # TensorFlow begins with the name of its operation
