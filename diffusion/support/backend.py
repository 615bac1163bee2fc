"""Where Keras's backends differ: compiling, the state of a training step, replicas."""

from collections.abc import Callable
from typing import Any

import keras

from diffusion.support.contracts import Tensor, named_inputs
from diffusion.support.precision import accelerators


def compiled(network: keras.Model, jit_compile: bool = False) -> Callable[..., Tensor]:
    """Return `network` in inference mode as a compiled function of its inputs by name.

    It is compiled at its first call and then serves every sampler, every number of steps and, on
    TensorFlow, every batch size (JAX compiles once for each). It always uses the network's current
    weights. jit_compile: let TensorFlow use XLA.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        inputs = named_inputs(network).items()
        signature = {name: tf.TensorSpec(each.shape, each.dtype) for name, each in inputs}
        return tf.function(
            lambda inputs: network(inputs, training=False),
            input_signature=[signature],
            jit_compile=jit_compile,
        )
    if keras.backend.backend() == "jax":
        import jax

        # Weights that are not arguments would be compiled in as constants.
        def call(weights, state, inputs):
            return network.stateless_call(weights, state, inputs, training=False)[0]

        jitted = jax.jit(call)
        return lambda inputs: jitted(
            [weight.value for weight in network.trainable_variables],
            [weight.value for weight in network.non_trainable_variables],
            inputs,
        )
    return lambda inputs: network(inputs, training=False)


def compiled_gradient(
    network: keras.Model, name: str, function: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """Return the gradient of `function(outputs, labels)` with respect to one input, compiled.

    Called with the network's inputs by name and labels (B,), int32; the network is in inference
    mode. name: of that input. function: returns a number for each image, (B,), that depends on this
    image alone.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        signature = {
            key: tf.TensorSpec(each.shape, each.dtype)
            for key, each in named_inputs(network).items()
        }

        @tf.function(input_signature=[signature, tf.TensorSpec((None,), "int32")])
        def gradient(inputs, labels):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(inputs[name])
                values = function(network(inputs, training=False), labels)
            return tape.gradient(values, inputs[name])

        return gradient
    if keras.backend.backend() == "jax":
        import jax

        def total(variable, inputs, labels, weights, state):
            inputs = {**inputs, name: variable}
            outputs, _ = network.stateless_call(weights, state, inputs, training=False)
            return function(outputs, labels).sum()

        jitted = jax.jit(jax.grad(total))
        return lambda inputs, labels: jitted(
            inputs[name],
            inputs,
            labels,
            [weight.value for weight in network.trainable_variables],
            [weight.value for weight in network.non_trainable_variables],
        )
    raise RuntimeError(f"no gradients on Keras's backend {keras.backend.backend()}")


def changed_state(model: keras.Model, state: tuple, change: Callable[[], Any]) -> tuple:
    """Apply `change()` to the state that a training step on JAX returns; return the new state.

    state: as Keras's `train_step` returns it: the values of the trainable variables, the
        non-trainable ones, the optimizer's, and so on.
    change: a function that assigns to non-trainable variables.
    """
    variables = (model.trainable_variables, model.non_trainable_variables)
    new_values = [
        pair
        for some_variables, values in zip(
            (*variables, model.optimizer.variables), state[:3], strict=True
        )
        for pair in zip(some_variables, values, strict=True)
    ]
    with keras.StatelessScope(state_mapping=new_values) as scope:
        change()
    non_trainable = [scope.get_current_value(variable) for variable in variables[1]]
    return (state[0], non_trainable, *state[2:])


def replica() -> tuple[int, int]:
    """Return this replica's index and the number of replicas under `tf.distribute`, else (0, 1).

    Every replica draws the random numbers of the joint batch and uses its own share of them. (JAX
    does this by itself.)
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()  # None outside a step
        if context is not None and context.num_replicas_in_sync > 1:
            return context.replica_id_in_sync_group, context.num_replicas_in_sync
    return 0, 1


def share_of_draws(draw: Callable[..., Tensor], shape: tuple[Any, ...], seed: Any) -> Tensor:
    """Return this replica's share, of `shape`, of the random numbers of the joint batch.

    draw: `keras.random.normal` or the like. shape: (B, ...) of this replica's batch. seed: a
    `keras.random.SeedGenerator`. With one replica this is `draw(shape, seed=seed)`.
    """
    number, replicas = replica()
    numbers = draw((replicas * shape[0], *shape[1:]), seed=seed)
    return numbers[number * shape[0] : (number + 1) * shape[0]]


def compile_with_xla() -> str | bool:
    """Return the value for `jit_compile`: XLA pays on a GPU, but slows TensorFlow down on a CPU."""
    return "auto" if accelerators() or keras.backend.backend() != "tensorflow" else False


def compiling(tensor: Tensor) -> bool:
    """Return whether `tensor` belongs to a function being compiled, so that it has no value yet."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly()
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(tensor, jax.core.Tracer)
    return False
