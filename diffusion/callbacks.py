"""What happens beside the training: checkpoints, sample grids, and stopping in good order."""

import signal
import threading
import time

import keras
import numpy as np
from keras import ops

from diffusion.files import grid, save_grid, write_json, written_whole


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
        record["steps"] = int(self.model.optimizer.iterations)
        entry = {"epoch": epoch + 1, "steps": record["steps"], "seconds": record["seconds"]}
        record["history"].append(entry | {name: float(value) for name, value in logs.items()})
        write_json(self.record_path, record)
        with written_whole(self.path) as temporary:
            self.model.save(temporary)


class SampleGrid(keras.callbacks.Callback):
    """Draw pictures from one and the same noise every few epochs, to see flowers come out of it.

    folder: where `epoch_0001.png` and so on go. every: epochs from one grid to the next; the
    first epoch is always drawn. log_dir: if given, the grids go to TensorBoard there as well
    (which needs TensorFlow).
    """

    def __init__(self, folder, every=1, num_images=10, diffusion_steps=20, seed=0, log_dir=None):
        super().__init__()
        self.folder, self.every, self.log_dir = folder, every, log_dir
        self.num_images, self.diffusion_steps, self.seed = num_images, diffusion_steps, seed

    def on_epoch_end(self, epoch, logs=None):
        number = epoch + 1
        if number > 1 and number % self.every:
            return
        images = self.model.generate(self.num_images, self.diffusion_steps, seed=self.seed)
        save_grid(self.folder / f"epoch_{number:04d}.png", images)
        if self.log_dir is not None:
            import tensorflow as tf

            step = int(self.model.optimizer.iterations)
            with tf.summary.create_file_writer(str(self.log_dir)).as_default():
                tf.summary.image("samples", grid(images)[None], step=step)


class StopInGoodOrder(keras.callbacks.Callback):
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
        self.interrupted = True
        self.__exit__()

    def on_train_begin(self, logs=None):
        self._steps = int(self.model.optimizer.iterations)

    def on_train_batch_end(self, batch, logs=None):
        self._steps += 1
        if not np.isfinite(logs["loss"]):
            raise TrainingError(not_finite("the loss", self.model, self.path))
        if self.interrupted or self._steps == self.max_steps:
            self.model.stop_training = True


def not_finite(what, model, path):
    """Say, in one line, that training ran away: at which step, how fast, and what is left."""
    step = int(ops.convert_to_numpy(model.optimizer.iterations))
    rate = float(ops.convert_to_numpy(model.optimizer.learning_rate))
    kept = f"the last good checkpoint is {path}" if path.exists() else "no checkpoint was written"
    return (
        f"{what} is not finite at step {step}, learning rate {rate:.3g}: "
        f"try a lower learning rate; {kept}"
    )
