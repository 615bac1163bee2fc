"""What has to be said to each of Keras's backends in its own words: compiling, and replicas."""

import keras

from diffusion.precision import accelerators


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
