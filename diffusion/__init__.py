"""Denoising diffusion models in Keras 3, in the smallest parts that still draw flowers.

Import what you need from its own module: `from diffusion.unet import build_unet`. Importing this
package alone loads no framework and downloads nothing.

To read it from the idea to the whole, take the modules in this order: `schedules`, `unet`,
`samplers`, `latents`, `objectives`, `model`, then `data` and `batches`, then `config`, `building`,
`training`, `callbacks`. Beyond the chapter: `ddpm`, `conditioning`, `flow`, `bound`, `metrics`. The
rest serves these: pictures from the disk (`find`, `cache`), from a server (`fetch`, `download`) or
from a brush (`species`, `synthetic`); `pixels`, `files`, `record`, `precision` and `backend`; a
trained model that ships (`shipping`); loss curves (`curves`, `reference_losses`); several devices
as one (`distribution`, `peers`); and what `make check` asks (`environment`, `advice`, `pins`,
`probe`).
"""
