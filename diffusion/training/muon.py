"""Muon: steps of the same size in every direction of a layer's weights."""

from typing import Any

import keras
from keras import ops

from diffusion.support.contracts import Tensor

FEWEST = 16  # rows and columns of a matrix worth it; the first and the last layer have fewer


@keras.saving.register_keras_serializable(package="diffusion")
class Muon(keras.optimizers.Muon):
    """Keras's Muon, which updates matrices, for the kernels of convolutions too.

    A gradient's singular values differ by orders of magnitude: a plain step moves a layer in a few
    directions and hardly in the others. Muon replaces the averaged gradient `U S V^T` by nearly
    `U V^T`, found by matrix products alone. A kernel (height, width, inputs, outputs) is taken as
    the matrix (height * width * inputs, outputs). What is no matrix (biases, embeddings, the
    kernels of attention), or has fewer than 16 rows or columns (the first and the last layer), is
    updated by AdamW. Both kinds of step have the same root mean square, so one learning rate and
    one weight decay suit both.

    precision: of those matrix products; "bfloat16" halves their time where it is fast.
    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the size of the
    steps follows Liu et al. 2025 (arXiv:2502.16982), section 2.2.
    """

    def __init__(self, *args: Any, precision: str = "float32", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.precision = precision

    def _should_use_adamw(self, variable):
        shape = variable.shape
        if len(shape) == 4:
            shape = (shape[0] * shape[1] * shape[2], shape[3])
        is_embedding = self.exclude_embeddings and variable.path.endswith("embeddings")
        return len(shape) != 2 or min(shape) < FEWEST or is_embedding

    def _muon_update_step(self, gradient, variable, lr, m):
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
        average = gradient + self.momentum * m if self.nesterov else m
        matrix = ops.reshape(average, (-1, average.shape[-1]))
        step = self.lr_adjust(self.orthogonalized(matrix))
        self.assign_sub(variable, ops.reshape(ops.cast(lr, step.dtype) * step, gradient.shape))

    def orthogonalized(self, matrix: Tensor) -> Tensor:
        """Return nearly `U V^T` of a matrix `U S V^T`: its singular values lie in about 0.7-1.2."""
        matrix = matrix / (ops.norm(matrix) + self.epsilon)
        low = ops.cast(matrix, self.precision)
        return ops.cast(self.zeropower_via_newtonschulz5(low, self.ns_steps), matrix.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "precision": self.precision}
