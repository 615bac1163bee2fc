"""Values that will not do: each idea names the value, or what would do, in one line."""

import numpy as np
import pytest
from denoisers import Mixture, best_denoiser, even_chain, standard_noise

from diffusion.bound import likelihood_terms, prior_terms, step_terms, variational_bound
from diffusion.ddpm import Chain, cosine_betas, linear_betas
from diffusion.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    nearest,
    precision_and_recall,
)
from diffusion.latents import initial_noise, slerp, spherical_interpolation, walks
from diffusion.likelihoods import PixelLikelihood, gaussian_log_likelihood
from diffusion.model import DiffusionModel
from diffusion.objectives import MinSNRWeighting, NoiseObjective, P2Weighting, make_objective
from diffusion.samplers import adams_bashforth, ancestral, ddim, dpm_solver, heun
from diffusion.schedules import LinearSchedule, OffsetCosineSchedule, ShiftedCosineSchedule
from diffusion.support.pixels import scale_pixels
from diffusion.thresholding import thresholded
from diffusion.training.building import build
from diffusion.training.config import get_preset
from diffusion.unet import build_unet

OFFSET = OffsetCosineSchedule()
CHAIN = even_chain(5)
IMAGES = np.zeros((2, 1, 1, 3))
A, B = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
ROWS = np.zeros((5, 2))
denoise = Mixture([[[[0.7, 0.7, 0.7]]]], 0.4).denoise


def noised(steps, count=1):
    images = np.ones((count, 2))
    return Chain([0.3]).q_sample(images, steps, images)


def sampled(sampler, **options):
    return sampler(best_denoiser, OFFSET, standard_noise(1), **options)


def step(number, **options):
    return step_terms(CHAIN, denoise, IMAGES, number, **options)


def bound(likelihood, **options):
    return variational_bound(CHAIN, denoise, IMAGES, likelihood, **options)


def tiny(**options):
    return build(get_preset("tiny", **options), 1)


def model(network=None, schedule=OFFSET, **options):
    return DiffusionModel(network or build_unet(16, (8, 8), 1, 8), schedule, **options)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        # schedules
        (lambda: LinearSchedule(min_rate=0.3, max_rate=0.02), "0.3"),
        (lambda: LinearSchedule(steps=0), "0"),
        (lambda: LinearSchedule(steps=20), "more than 20 steps, got steps=20"),
        (lambda: OffsetCosineSchedule(max_signal_rate=1.2), "1.2"),
        (lambda: ShiftedCosineSchedule(shift=0), "shift=0"),
        # unet, model
        (lambda: build_unet(image_size=30), "30"),
        (lambda: build_unet(widths=(8,)), "widths"),
        (lambda: build_unet(embedding_dims=7), "7"),
        (lambda: model(schedule=lambda times: (times, 1 - times)), "schedule must derive"),
        (lambda: model(lambda inputs: inputs[0]), "network must be a functional"),
        (lambda: model(objective="velocity"), "objectives.Objective, got 'velocity'"),
        (lambda: scale_pixels(np.zeros((1, 2, 2, 3), "int64")), "int64"),
        (lambda: model().generate(), "either num_images or initial_noise"),
        (lambda: model().generate(2, initial_noise=A[None]), "either num_images or"),
        (lambda: model().generate(1, seed=2**32), "seed.*4294967296"),
        (lambda: model().generate(0), "got 0"),
        (lambda: thresholded(None, -1, 1, 0), "got 0"),
        (lambda: thresholded(None, -1, 1, -1), "got -1"),
        (lambda: thresholded(None, -1, 1, 1.5), "got 1.5"),
        # samplers, flow
        (lambda: sampled(ddim, steps=0), "0"),
        (lambda: sampled(ddim, eta=1.5), "1.5"),
        (lambda: sampled(ddim, eta=1.0, seed=2**32), "seed.*4294967296"),
        (lambda: sampled(ancestral, seed=-1), "seed.*-1"),
        (lambda: sampled(ancestral, variance="huge"), "'huge'.*small, large"),
        (lambda: sampled(heun, steps=0), "got 0"),
        (lambda: sampled(heun, spacing="even"), "'even'.*log_snr, time"),
        (lambda: sampled(adams_bashforth, order=5), "got 5"),
        (lambda: sampled(dpm_solver, order=3), "got 3"),
        # latents
        (lambda: slerp(A, -A, 0.5), "opposite"),
        (lambda: slerp(A, 0 * A, 0.5), "b = 0"),
        (lambda: slerp(np.stack([A, 0 * A]), np.stack([B, B]), 0.5), "a = 0"),
        (lambda: spherical_interpolation(A, B[:4], 0.5), "shape"),
        (lambda: walks(A[None], 5), "got 1 and 5"),
        (lambda: initial_noise(0, 32), "got 0"),
        (lambda: initial_noise(1, 4, seed=2**32), "seed.*4294967296"),
        (lambda: initial_noise(1, 4, seed=-1), "seed.*-1"),
        (lambda: initial_noise(1, 4, seed=1.5), "seed.*1.5"),
        # objectives
        (lambda: make_objective("eps"), "'eps'.*noise, image, velocity"),
        (lambda: make_objective("noise", "snr"), "'snr'.*none, p2, min_snr"),
        (lambda: tiny(loss="l1"), "'l1'.*mean_squared_error"),
        (lambda: tiny(objective="v"), "'v'"),
        (lambda: P2Weighting(offset=0), "offset=0"),
        (lambda: MinSNRWeighting(-1), "got -1"),
        (lambda: NoiseObjective(lambda snr: 1 / snr), "weighting must derive"),
        # ddpm
        (lambda: Chain([0.1, 0.0]), "above 0 and below 1, got 0.0"),
        (lambda: Chain([0.1, 1.0]), "above 0 and below 1, got 1.0"),
        (lambda: Chain([np.nan]), "got nan"),
        (lambda: Chain([]), "list of betas"),
        (lambda: Chain([[0.1]]), r"list of betas, got an array of shape \(1, 1\)"),
        (lambda: linear_betas(0), "whole number of at least 1, got 0"),
        (lambda: linear_betas(20), "21 or more, got 20"),
        (lambda: cosine_betas(2.5), "got 2.5"),
        (lambda: cosine_betas(True), "got True"),
        (lambda: Chain.from_schedule(OFFSET, -1), "got -1"),
        (lambda: noised([1]), "0 to 0"),
        (lambda: noised([-1]), "got -1"),
        (lambda: noised([0.0]), "float64"),
        (lambda: noised([0], count=2), "2 whole"),
        # bound, likelihoods
        (lambda: step(3, variance="middle"), "'middle'.*small, large"),
        (lambda: step(0), "1 to 4, got .*0"),
        (lambda: step(5), "1 to 4, got .*5"),
        (lambda: step(1.5), "whole numbers.*1.5"),
        (lambda: prior_terms(CHAIN, np.zeros((2, 4, 4, 3), "uint8")), "normalize, got uint8"),
        (lambda: bound(gaussian_log_likelihood, draws=0), "draws.*0"),
        (lambda: bound("gaussian"), "likelihood.*'gaussian'"),
        (lambda: likelihood_terms(CHAIN, denoise, IMAGES, max, decoder_variance=-0.1), "-0.1"),
        (lambda: PixelLikelihood()(np.float64(0.0), 0.0, 0.0), "level 127.50.*256 levels"),
        (lambda: PixelLikelihood()(np.float64(1.5), 0.0, 0.0), "level 318.75"),
        (lambda: PixelLikelihood(0.5, 0.0), "deviation.*0.0"),
        # evaluation.distances
        (lambda: kernel_distance(ROWS[:1], ROWS), "got 1 and 5"),
        (lambda: frechet_distance(ROWS, ROWS[:1]), "got 5 and 1"),
        (lambda: frechet_distance(ROWS, np.zeros((5, 3))), r"got \(5, 2\) and \(5, 3\)"),
        (lambda: precision_and_recall(ROWS[:3], ROWS), r"\(3 and 5\), got 3"),
        (lambda: nearest(A[None], B[None, :4]), r"\(8, 8, 3\).* 1 .*\(4, 8, 3\)"),
    ],
)
def test_a_value_that_will_not_do_is_named_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
