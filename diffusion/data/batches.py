"""Serve images in batches, in an order that depends on seed and epoch number alone."""

import operator
import warnings
from collections.abc import Callable

import keras
import numpy as np

from diffusion.support.validation import whole_number


class Batches(keras.utils.PyDataset):
    """Serve uint8 images to `fit` in full batches, each epoch in an order of its own.

    Epoch `epoch` is `repeats` permutations of all images one after another, the one of repeat
    `r` drawn from `default_rng([seed, epoch, r])`; a last, incomplete batch is dropped. Batch i
    of an epoch is the same however often, and in whichever order, batches are read, so a resumed
    run sees what an uninterrupted one would have seen.

    Call `fit(batches, shuffle=False)`: by default, Keras shuffles the batches once more, with
    Python's own random numbers, which no seed here controls. Leave out `steps_per_epoch`: it cuts
    an epoch into pieces (`repeats` makes epochs longer). To resume at epoch k, set
    `batches.epoch = k` and pass `initial_epoch=k`, or let `EpochFromFit` set it.

    Args:
        images: uint8 (N, S, S, 3), usually the memory-mapped `Flowers.images`.
        labels: whole numbers (N,), usually `Flowers.labels`; a batch is then a dictionary of
            `images` and `labels` (int32). None serves images alone.
        batch_size: images in a batch, at least 1.
        repeats: passes through all images in an epoch, at least 1 (listing 8-2: 5).
        shuffle: False serves the images in their own order.
        flip: mirror each image left to right with probability 1/2.
        seed, epoch: whole numbers from 0; `epoch` may be set at any time between epochs.
        transform: a function applied to each batch's images, for example `halve`, so that its
            results for all images need not fit in memory.
        start: leave out the first `start` batches of every epoch, so that batch i is batch
            i + start of the whole epoch: for a run that resumes mid-epoch.
        share: serve only these rows of every batch, a slice: if several processes train together,
            all have the same batches and each reads its share. Default all.
        **kwargs: `workers` and the like, for `keras.utils.PyDataset`.

    Raises ValueError if a number is out of range or the images do not fill one batch.
    Source: the `repeat`, `shuffle` and `batch(drop_remainder=True)` of listing 8-2.
    """

    def __init__(
        self,
        images: np.ndarray,
        batch_size: int = 64,
        *,
        repeats: int = 1,
        shuffle: bool = True,
        flip: bool = False,
        seed: int = 0,
        epoch: int = 0,
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
        start: int = 0,
        share: slice = slice(None),
        labels: np.ndarray | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.images, self.labels = images, labels
        if labels is not None and len(labels) != len(images):
            raise ValueError(f"{len(labels)} labels for {len(images)} images: give one for each")
        self.batch_size = whole_number("batch_size", batch_size, least=1)
        self.repeats = whole_number("repeats", repeats, least=1)
        self.shuffle, self.flip, self.transform = shuffle, flip, transform
        self.seed = whole_number("seed", seed, least=0)
        self.start = whole_number("start", start, least=0)
        self.share = share
        self.epoch = epoch
        whole_epoch = len(images) * self.repeats // self.batch_size
        if not whole_epoch:
            raise ValueError(
                f"{len(images)} images x {self.repeats} repeats do not fill one batch of "
                f"{self.batch_size}: lower batch_size or raise repeats"
            )
        if self.start >= whole_epoch:
            raise ValueError(
                f"start={self.start} leaves out all {whole_epoch} batches of an epoch: "
                f"choose 0 to {whole_epoch - 1}"
            )

    @property
    def epoch(self) -> int:
        """The number of the epoch being served, from 0."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch):
        self._epoch = whole_number("epoch", epoch, least=0)
        self._begun = self._untouched = False
        self._plan = None

    def __len__(self):
        return len(self.images) * self.repeats // self.batch_size - self.start

    def __getitem__(self, index):
        """Return batch `index` of this epoch: uint8 (batch_size, S, S, 3), perhaps with labels."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        self._warn_if_reordered(index)
        index += self.start
        rows, mirrored = self._plan_of(self._epoch)
        mine = range(index * self.batch_size, (index + 1) * self.batch_size)[self.share]
        positions = slice(mine.start, mine.stop)
        batch = self.images[rows[positions]]  # a copy
        if self.flip:
            mirrored = mirrored[positions]
            batch[mirrored] = batch[mirrored][:, :, ::-1]
        batch = self.transform(batch) if self.transform else batch
        if self.labels is None:
            return batch
        return {"images": batch, "labels": self.labels[rows[positions]].astype("int32")}

    def __iter__(self):
        """Serve one epoch to a hand-written loop; call `on_epoch_end` after it."""
        self.on_epoch_begin()
        return super().__iter__()

    def on_epoch_begin(self):
        """Note that an epoch has begun."""
        self._begun = self._untouched = True

    def on_epoch_end(self):
        """Move on to the next epoch, if one has begun.

        `fit` and `evaluate` also call this once before their first epoch: counting that call
        would skip an epoch at every resume.
        """
        if self._begun:
            self.epoch = self._epoch + 1

    def _plan_of(self, epoch):
        """Return the row at each position of the epoch, and whether mirrored; drawn once."""
        plan = self._plan  # read once and checked: a thread may still store the last epoch's
        if plan is None or plan[0] != epoch:
            plan = (epoch, *self._draw_plan(epoch))
            self._plan = plan
        return plan[1:]

    def _draw_plan(self, epoch):
        count = len(self.images)
        if self.shuffle:
            seeds = ([self.seed, epoch, repeat] for repeat in range(self.repeats))
            rows = np.concatenate([np.random.default_rng(s).permutation(count) for s in seeds])
        else:
            rows = np.tile(np.arange(count), self.repeats)
        if not self.flip:
            return rows, None
        # A stream that no permutation of this epoch uses.
        flips = np.random.default_rng([self.seed, epoch, self.repeats + 1])
        return rows, flips.random(len(rows)) < 0.5

    def _warn_if_reordered(self, index):
        # A single worker reads batch 0 first, unless fit reorders the batches itself.
        if self._untouched and index > 0 and self.workers <= 1:
            warnings.warn(
                "the batches of this epoch are not read in order: pass shuffle=False to fit, "
                "as Batches does the shuffling",
                stacklevel=3,
            )
        self._untouched = False


def halve(images: np.ndarray) -> np.ndarray:
    """Halve the side of uint8 images (B, S, S, 3) by averaging two by two pixels."""
    rows = images[:, ::2].astype("uint16") + images[:, 1::2]
    return ((rows[:, :, ::2] + rows[:, :, 1::2] + 2) // 4).astype("uint8")


class EpochFromFit(keras.callbacks.Callback):
    """Set `batches.epoch` to `fit`'s own number as each epoch begins.

    The order then depends on `fit`'s `initial_epoch` alone: there is nothing to set by hand, and
    nothing that Keras does before the first epoch can shift it (under JAX, and under a
    distribution strategy, `fit` starts an epoch that it discards, to build unbuilt layers;
    `BackupAndRestore` changes the first epoch after `fit` was called).
    """

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch
