"""What has to be said to each of Keras's backends in its own words: compiling, steps, replicas."""

import keras

from diffusion.support.precision import accelerators


def compiled(network, jit_compile=False):
    """Return `network`, not training, as a compiled function of its two inputs.

    It is compiled at its first call and then serves every sampler, every number of steps, and
    on TensorFlow every batch size (on JAX it is compiled once for each). It always uses the
    network's weights of the moment. jit_compile: have TensorFlow use XLA.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec(shape, "float32") for shape in network.input_shape]
        return tf.function(
            lambda *inputs: network(list(inputs), training=False),
            input_signature=signature,
            jit_compile=jit_compile,
        )
    if keras.backend.backend() == "jax":
        import jax

        # JAX would take the weights for constants, were they not handed over at each call.
        def call(weights, state, inputs):
            return network.stateless_call(weights, state, inputs, training=False)[0]

        jitted = jax.jit(call)
        return lambda *inputs: jitted(
            [weight.value for weight in network.trainable_variables],
            [weight.value for weight in network.non_trainable_variables],
            list(inputs),
        )
    return lambda *inputs: network(list(inputs), training=False)


def changed_state(model, state, change):
    """Apply `change()` to the state in which a training step on JAX has left `model`'s variables.

    state: as Keras's `train_step` returns it: values of the trainable variables, of the others and
        of the optimizer's, and so on. change: a function that assigns to variables that are not
        trainable. Returns the new state.
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


def replica():
    """Which replica of how many computes this, under a `tf.distribute` strategy; else 0 and 1.

    All replicas draw the same random numbers: each draws those of the joint batch, and takes its
    own. (JAX sees to this by itself.)
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()  # None outside of a step
        if context is not None and context.num_replicas_in_sync > 1:
            return context.replica_id_in_sync_group, context.num_replicas_in_sync
    return 0, 1


def compile_with_xla():
    """What to pass as `jit_compile`: XLA makes a GPU faster, and TensorFlow on a CPU slower."""
    return "auto" if accelerators() or keras.backend.backend() != "tensorflow" else False


def compiling(tensor):
    """Return whether `tensor` stands in a function that is being compiled, and has no value."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly()
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(tensor, jax.core.Tracer)
    return False
