"""Denoising diffusion models in Keras 3, in the smallest parts that still draw flowers.

Import what you need from its own module: `from diffusion.unet import build_unet`. Importing this
package alone loads no framework and downloads nothing.
"""
