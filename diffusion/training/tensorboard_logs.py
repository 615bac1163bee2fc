"""Show a training run in TensorBoard."""

import time
from typing import Any

from keras import ops

from diffusion.support.files import image_grid
from diffusion.training.callbacks import View
from diffusion.training.record import steps_taken


class TensorBoardLogs(View):
    """Write losses and sample grids to event files under `folder`, a run's `logs/`.

    `steps/` holds the loss curve as "loss", `train/` the loss and learning rate of each epoch, by
    the names Keras gives them. Needs TensorFlow.
    """

    errors = Exception  # TensorFlow's, TensorBoard's and the system's

    def __init__(self, folder):
        super().__init__(folder)
        self._curve: Any = None
        self._epochs: Any = None

    def on_train_begin(self, logs=None):
        self._write(self._open)

    def on_epoch_end(self, epoch, logs=None):
        self._write(self._add_epoch, epoch, logs)

    def on_train_end(self, logs=None):
        self._write(self._close)

    def add_loss(self, part):
        """Add a `curves.Part` to the loss curve."""
        self._write(lambda: self._curve.add("loss", part.loss, part.step))

    def add_images(self, images):
        """Add a sample grid of images (N, S, S, 3) in [0, 1]."""
        self._write(self._add_images, images)

    def _write(self, write, *arguments):
        if not self.failed:  # a writer that has failed once fails for good
            self.attempt(write, *arguments)

    def _open(self):
        import tensorflow as tf

        self._curve = Events(self.path / "steps", steps_taken(self.model))
        self._epochs = tf.summary.create_file_writer(str(self.path / "train"))

    def _add_epoch(self, epoch, logs):
        import tensorflow as tf

        rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        with self._epochs.as_default():
            for name, value in {**logs, "learning_rate": rate}.items():
                tf.summary.scalar(f"epoch_{name}", value, step=epoch)
        self._epochs.flush()

    def _add_images(self, images):
        import tensorflow as tf

        step = steps_taken(self.model)
        with tf.summary.create_file_writer(str(self.path)).as_default():
            tf.summary.image("samples", image_grid(images)[None], step=step)

    def _close(self):
        self._curve.close()
        self._epochs.close()


class Events:
    """An event file of numbers by step; it voids what an earlier file says after step `done`."""

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

    def close(self):
        """Write what is still held, and close the file."""
        self._writer.close()

    def _write(self, **content):
        self._writer.add_event(self._event(wall_time=time.time(), **content))
