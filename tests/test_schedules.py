"""Schedules: the contract that all share, and each against its own formula."""

import keras
import numpy as np
import pytest
from conftest import ON_TENSORFLOW

from diffusion.ddpm import Chain, linear_betas
from diffusion.schedules import (
    SCHEDULES,
    CosineSchedule,
    LinearSchedule,
    OffsetCosineSchedule,
    ShiftedCosineSchedule,
)


def rates(schedule, times):
    noise_rates, signal_rates = schedule(np.asarray(times, "float32"))
    return np.asarray(noise_rates), np.asarray(signal_rates)


@pytest.fixture
def reference():
    """The chapter's listings."""
    if not ON_TENSORFLOW:
        pytest.skip("the chapter is written in TensorFlow")
    import reference

    return reference


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]()


def test_squared_rates_sum_to_one(schedule):
    noise_rates, signal_rates = rates(schedule, np.linspace(0, 1, 1001))
    np.testing.assert_allclose(noise_rates**2 + signal_rates**2, 1, atol=2e-6)


def test_rates_depend_on_the_time_alone_in_any_order_batch_and_shape(schedule):
    times = np.random.default_rng(0).uniform(size=64).astype("float32")
    noise_rates, signal_rates = rates(schedule, times)
    order = np.random.default_rng(1).permutation(64)
    np.testing.assert_array_equal(rates(schedule, times[order])[1], signal_rates[order])
    np.testing.assert_array_equal(rates(schedule, times[:1])[0], noise_rates[:1])
    np.testing.assert_array_equal(
        rates(schedule, times.reshape(16, 4, 1, 1))[1].ravel(), signal_rates
    )


def test_noise_only_grows_with_time(schedule):
    noise_rates, signal_rates = rates(schedule, np.linspace(0, 1, 200))
    assert (np.diff(noise_rates) >= 0).all() and (np.diff(signal_rates) < 0).all()
    assert noise_rates[0] >= 0 and signal_rates[-1] > -1e-7 and noise_rates[-1] > 0.99


def test_linear_schedule_agrees_with_the_cumulative_product(reference):
    times = np.arange(1000) / 1000
    noise_variances, signal_variances = reference.linear_diffusion_schedule(times)
    noise_rates, signal_rates = rates(LinearSchedule(), times)
    np.testing.assert_allclose(signal_rates**2, signal_variances, rtol=3e-5)
    np.testing.assert_allclose(noise_rates**2, noise_variances, rtol=3e-5)


def test_a_linear_schedule_of_few_large_steps_agrees_with_its_product_too():
    betas = 20 * (0.0005 + np.arange(50) / 50 * (0.04 - 0.0005))  # 1000 / 50 times the rates
    _, signal_rates = rates(LinearSchedule(0.0005, 0.04, 50), np.arange(50) / 50)
    np.testing.assert_allclose(signal_rates**2, np.cumprod(1 - betas), rtol=1e-4)


@pytest.mark.parametrize("steps", [50, 100, 4000])
def test_a_linear_schedule_leaves_no_signal_whatever_its_steps_and_agrees_with_the_chain(steps):
    chain = np.log(Chain(linear_betas(steps)).signal_rates)
    _, signal_rates = rates(LinearSchedule(steps=steps), np.arange(steps) / steps)
    np.testing.assert_allclose(np.log(signal_rates), chain, rtol=3 / steps, atol=1e-7)
    assert rates(LinearSchedule(steps=steps), 1)[1] < 0.007  # 0.60 for 100 steps, were it not so


def test_cosine_schedule_is_a_quarter_turn(reference):
    times = np.linspace(0, 1, 33)
    expected = reference.cosine_diffusion_schedule(times)
    np.testing.assert_allclose(rates(CosineSchedule(), times), expected, atol=1e-6)


def test_offset_cosine_schedule_keeps_to_its_signal_rates(reference):
    times = np.linspace(0, 1, 33).astype("float32")
    noise_rates, signal_rates = rates(OffsetCosineSchedule(), times)
    np.testing.assert_allclose(signal_rates[[0, -1]], [0.95, 0.02], atol=1e-6)
    expected = reference.offset_cosine_diffusion_schedule(times)
    np.testing.assert_allclose([noise_rates, signal_rates], expected, atol=1e-6)


def test_shifted_cosine_schedule_lowers_the_log_snr_of_a_cosine_between_its_signal_rates():
    times = np.linspace(0, 1, 33).astype("float32")
    np.testing.assert_allclose(rates(ShiftedCosineSchedule(), [0, 1])[1], [0.95, 0.005], atol=1e-6)
    np.testing.assert_allclose(
        rates(ShiftedCosineSchedule(1, 0.02), times),
        rates(OffsetCosineSchedule(), times),
        atol=1e-6,
    )
    # A whole cosine from rate 1 to nearly 0: its logarithm of the SNR, lowered by 2 log(shift)
    noise_rates, signal_rates = rates(ShiftedCosineSchedule(4, 1e-6, 1), times[1:-1])
    log_snr = 2 * np.log(signal_rates / noise_rates)
    cosine = -2 * np.log(np.tan(np.pi / 2 * times[1:-1].astype("float64")))
    np.testing.assert_allclose(log_snr, cosine - 2 * np.log(4), atol=1e-3)


@pytest.mark.parametrize(
    "schedule",
    [
        LinearSchedule(0.001, 0.05, 300),
        OffsetCosineSchedule(0.1, 0.9),
        ShiftedCosineSchedule(2, 0.1, 0.9),
    ],
    ids=repr,
)
def test_a_saved_schedule_comes_back_equal(schedule):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(again) is type(schedule) and again.get_config() == schedule.get_config()
