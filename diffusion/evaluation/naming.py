"""Naming: whether a classifier gives generated images the names they were generated for.

KID does not see this: a model that draws good flowers but mixes up their names has a low one.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffusion.evaluation.encoder import SHIPPED, Encoder, encode
from diffusion.support.keras_files import load_keras_file, record_file


class SpeciesClassifier:
    """Gives images the names of flowers.

    classifier: images (B, S, S, 3) in [0, 1] -> scores (B, K), a function or Keras model.
    names: of the K species, in the order of the scores.
    """

    def __init__(self, classifier: Encoder, names: Sequence[str]):
        self.classifier, self.names = classifier, tuple(names)

    def __call__(self, images: np.ndarray) -> list[str]:
        """Return a name for each of images (N, S, S, 3), uint8 or in [0, 1]."""
        return [self.names[best] for best in encode(self.classifier, images).argmax(axis=-1)]

    def check(self, names: Sequence[str]) -> None:
        """Raise ValueError for a name that the classifier does not know."""
        if unknown := [name for name in names if name not in self.names]:
            raise ValueError(
                f"the classifier does not know {unknown[0]!r}: use one trained on the same species"
            )

    def share_named(self, images: np.ndarray, names: Sequence[str]) -> float:
        """Return the share of images (N, S, S, 3) that get their own one of `names` (N,).

        Names are compared as texts: number 5 of a model may be another flower than that of the
        classifier. Raises ValueError for a name that the classifier does not know.
        """
        self.check(names)
        found = zip(self(images), names, strict=True)
        return float(np.mean([given == asked for given, asked in found]))


def load_species_classifier(path: Path | str | None = None) -> SpeciesClassifier:
    """Load a classifier of `scripts/train_encoder.py`, with the names in the record beside it.

    path: its `.keras` file; default the one that ships. `models/README.md` says how often it is
        right about real flowers: no model can be expected to do better.
    Raises FileNotFoundError where file or record is missing, ValueError where either is damaged or
    the record has no species.
    """
    path = Path(path or SHIPPED)
    record = record_file(path)
    if not record.is_file():
        raise FileNotFoundError(f"no {record}: the names of the species should be in it")
    try:
        names = json.loads(record.read_text(encoding="utf-8"))["species"]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{record} does not list the species of {path.name}") from error
    classifier = load_keras_file(path, "a classifier", compile=False)
    classifier.trainable = False
    if classifier.output_shape != (None, len(names)):
        raise ValueError(f"{path} does not have the {len(names)} species of {record.name}")
    return SpeciesClassifier(classifier, names)
