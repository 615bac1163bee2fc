"""The discrete chain against simulation, Gaussian conditioning, published numbers, schedules."""

import keras
import numpy as np
import pytest
from denoisers import knowing

from diffusion.ddpm import Chain, cosine_betas, from_symmetric, linear_betas, to_symmetric
from diffusion.model import DiffusionModel
from diffusion.samplers import ancestral
from diffusion.schedules import CosineSchedule, LinearSchedule, OffsetCosineSchedule
from diffusion.training.loop import load_model, train
from diffusion.unet import build_unet

CHAINS = {
    "linear": Chain(linear_betas(40)),
    "cosine": Chain(cosine_betas(40)),
    "offset": Chain.from_schedule(OffsetCosineSchedule(), 20),
    "one step": Chain([0.3]),
}


@pytest.fixture(params=CHAINS)
def chain(request):
    return CHAINS[request.param]


def joint_covariance(chain):
    """Covariance of (x_0, ..., x_T) for x_0 ~ N(0, 1), from the one-step recursion alone."""
    count = len(chain.betas)
    ways = np.zeros((count + 1, count + 1))  # row t: x_t as a sum of x_0 and each step's noise
    ways[0, 0] = 1
    for t, beta in enumerate(chain.betas, start=1):
        ways[t] = np.sqrt(1 - beta) * ways[t - 1]
        ways[t, t] = np.sqrt(beta)
    return ways @ ways.T, ways


def test_published_numbers():
    linear, cosine = linear_betas(), cosine_betas()
    assert linear.dtype == cosine.dtype == np.float64 and len(linear) == len(cosine) == 1000
    assert (linear[0], linear[-1]) == (1e-4, 0.02)
    # Ho et al.: L_T of 1e-5 bits, which leaves a signal variance of 4.04e-5.
    np.testing.assert_allclose(Chain(linear).alpha_bars[-1], 4.04e-5, atol=5e-8)
    # Nichol and Dhariwal: s = 0.008 was chosen so that sqrt(beta_1) is a bit less than 1/127.5.
    assert 0.8 / 127.5 < np.sqrt(cosine[0]) < 1 / 127.5
    assert cosine[-1] == 0.999 and (cosine[:-1] < 0.999).all() and (np.diff(cosine) > 0).all()


def test_cosine_betas_multiply_to_the_cosine():
    times = np.arange(1, 100) / 100  # without the last step, which is clipped
    curve = [np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 for t in (*times, 0)]
    expected = np.array(curve[:-1]) / curve[-1]
    np.testing.assert_allclose(Chain(cosine_betas(100)).alpha_bars[:-1], expected, rtol=1e-10)


def test_the_jump_has_the_moments_of_the_steps(chain):
    covariance, ways = joint_covariance(chain)
    np.testing.assert_allclose(chain.signal_rates, ways[1:, 0], rtol=1e-10)
    np.testing.assert_allclose(chain.noise_rates**2, (ways[1:, 1:] ** 2).sum(axis=1), rtol=1e-9)
    np.testing.assert_allclose(np.diag(covariance), 1, rtol=1e-12)


def test_the_posterior_is_that_of_gaussian_conditioning(chain):
    # x_{t-1} given (x_0, x_t), all jointly Gaussian: S_ab S_bb^-1, S_aa - S_ab S_bb^-1 S_ba.
    covariance, _ = joint_covariance(chain)
    for index in range(1, len(chain)):
        given = [0, index + 1]
        across = covariance[index, given]
        coefficients = across @ np.linalg.inv(covariance[np.ix_(given, given)])
        variance = covariance[index, index] - coefficients @ across
        tables = chain.posterior_image_coefficients, chain.posterior_noisy_coefficients
        np.testing.assert_allclose([t[index] for t in tables], coefficients, rtol=1e-6)
        np.testing.assert_allclose(chain.posterior_variances[index], variance, rtol=1e-6)


def test_the_last_step_back_returns_the_image(chain):
    images, noisy = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 3))
    means, variances = chain.posterior(images, noisy, np.zeros(3, int))
    np.testing.assert_allclose(means, images, rtol=1e-12)
    np.testing.assert_array_equal(variances, np.zeros((3, 1, 1, 1)))
    assert chain.previous_alpha_bars[0] == 1 and chain.noise_rates[0] > 0


def test_each_image_of_a_batch_has_its_own_step():
    chain, random = CHAINS["cosine"], np.random.default_rng(0)
    images, noises = random.normal(size=(2, 3, 2, 2, 1)).astype("float32")
    steps = np.array([0, 39, 7])
    together, stepped = (
        chain.q_sample(images, steps, noises),
        chain.noise_one_step(images, steps, noises),
    )
    assert together.dtype == np.float32
    tensors = chain.q_sample(*map(keras.ops.convert_to_tensor, (images, steps, noises)))
    np.testing.assert_allclose(tensors, together, rtol=1e-6)
    for index, step in enumerate(steps):
        alone = np.sqrt(chain.alpha_bars[step]) * images[index]
        alone = alone + np.sqrt(1 - chain.alpha_bars[step]) * noises[index]
        np.testing.assert_allclose(together[index], alone, rtol=1e-5, atol=1e-6)
        beta = chain.betas[step]
        alone = np.sqrt(1 - beta) * images[index] + np.sqrt(beta) * noises[index]
        np.testing.assert_allclose(stepped[index], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "schedule", [OffsetCosineSchedule(), LinearSchedule(), CosineSchedule()], ids=repr
)
@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_a_chain_from_a_schedule_has_its_rates_at_each_step(schedule, steps):
    chain = Chain.from_schedule(schedule, steps)
    for index in {0, steps // 2, steps - 1}:
        noise_rate, signal_rate = map(float, schedule(np.float32((index + 1) / steps)))
        np.testing.assert_allclose(chain.noise_rates[index], noise_rate, rtol=1e-5)
        np.testing.assert_allclose(chain.signal_rates[index], signal_rate, rtol=1e-5, atol=1e-7)


def test_as_a_schedule_it_visits_each_step_and_ends_at_the_image(chain):
    schedule, count = chain.as_schedule(), len(chain)
    times = np.arange(count + 1) / count
    for rounded in (times, 1 - np.arange(count + 1)[::-1] / count):
        noise_rates, signal_rates = map(np.asarray, schedule(rounded))
        np.testing.assert_allclose(noise_rates, [0, *chain.noise_rates], rtol=1e-6)
        np.testing.assert_allclose(signal_rates, [1, *chain.signal_rates], rtol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(again) is type(schedule)
    np.testing.assert_array_equal(again.chain.betas, chain.betas)


def test_uniform_times_fall_on_each_step_equally_often():
    chain = CHAINS["offset"]
    times = (np.arange(20_000) + 0.5) / 20_000
    noise_rates = np.asarray(chain.as_schedule()(times))[0]
    values, counts = np.unique(noise_rates, return_counts=True)
    kept = values > 0  # the first hundredth of a step is the clean image
    np.testing.assert_allclose(values[kept], chain.noise_rates, rtol=1e-6)
    np.testing.assert_allclose(counts[kept], 1000, atol=11)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ancestral_sampling_takes_the_steps_in_the_tables(chain, variance):
    """With a denoiser that knows the image, each step has the posterior's mean and variance."""
    count, seen = len(chain), []
    image = np.full((1, 100, 100, 3), 0.4, "float32")  # 30,000 equal numbers
    noise = np.random.default_rng(0).normal(size=image.shape).astype("float32")
    ancestral(knowing(image, seen), chain.as_schedule(), noise, count, variance=variance, seed=1)
    for k in range(count - 1):
        step = count - 1 - k
        means, variances = chain.posterior(image, seen[k][0], [step])
        expected = chain.betas[step] if variance == "large" else float(variances.ravel()[0])
        drawn = (seen[k + 1][0] - means) / np.sqrt(expected)
        # 30,000 draws: five standard errors, 1/173 for the mean and 1/122 for the variance
        assert abs(drawn.mean()) < 5 / 173 and abs(drawn.var() - 1) < 5 / 122


@pytest.mark.slow
def test_a_model_trained_on_a_chain_with_symmetric_images_reloads(painted, tmp_path, tiny):
    schedule = Chain(linear_betas(1000)).as_schedule()
    model = DiffusionModel(build_unet(16, (8, 16), 1, 8), schedule)
    model.set_statistics(0.5, 0.25)
    model.compile("adamw", loss="mean_squared_error")
    run = train(tiny, painted, tmp_path, model=model, max_steps=2, sample_every=0, verbose=0)
    again = load_model(run.folder)
    images, symmetric = painted.images, to_symmetric(painted.images)
    np.testing.assert_allclose(again.normalize(images), symmetric, atol=1e-6)
    np.testing.assert_array_equal(again.schedule.chain.betas, schedule.chain.betas)
    np.testing.assert_array_equal(again.generate(1, 3, seed=0), model.generate(1, 3, seed=0))


def test_symmetric_images_range_from_minus_one_to_one(painted):
    levels = np.array([[[[0, 51, 255]]]], "uint8")
    np.testing.assert_allclose(to_symmetric(levels), [[[[-1, -0.6, 1]]]], atol=1e-6)
    again = from_symmetric(to_symmetric(painted.images))
    np.testing.assert_allclose(again, painted.images / 255, atol=1e-6)
    np.testing.assert_array_equal(from_symmetric(np.float32([-3, 3])), [0, 1])
