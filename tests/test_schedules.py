"""Schedules: the contract that all share, and each against its own formula."""

import keras
import numpy as np
import pytest
from conftest import ON_TENSORFLOW

from diffusion.schedules import SCHEDULES, CosineSchedule, LinearSchedule, OffsetCosineSchedule


def rates(schedule, times):
    noise_rates, signal_rates = schedule(np.asarray(times, "float32"))
    return np.asarray(noise_rates), np.asarray(signal_rates)


@pytest.fixture
def reference():
    """The chapter taken literally."""
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


def test_a_time_has_its_rates_whatever_stands_beside_it_and_in_any_shape(schedule):
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


def test_a_linear_schedule_of_large_rates_agrees_with_its_product_too():
    betas = 0.001 + np.arange(50) / 50 * (0.5 - 0.001)
    _, signal_rates = rates(LinearSchedule(0.001, 0.5, 50), np.arange(50) / 50)
    np.testing.assert_allclose(signal_rates**2, np.cumprod(1 - betas), rtol=1e-4)


def test_cosine_schedule_is_a_quarter_turn(reference):
    times = np.linspace(0, 1, 33)
    noise_rates, signal_rates = rates(CosineSchedule(), times)
    expected_noise_rates, expected_signal_rates = reference.cosine_diffusion_schedule(times)
    np.testing.assert_allclose(noise_rates, expected_noise_rates, atol=1e-6)
    np.testing.assert_allclose(signal_rates, expected_signal_rates, atol=1e-6)


def test_offset_cosine_schedule_keeps_to_its_signal_rates(reference):
    times = np.linspace(0, 1, 33).astype("float32")
    noise_rates, signal_rates = rates(OffsetCosineSchedule(), times)
    np.testing.assert_allclose(signal_rates[[0, -1]], [0.95, 0.02], atol=1e-6)
    expected = reference.offset_cosine_diffusion_schedule(times)
    np.testing.assert_allclose([noise_rates, signal_rates], expected, atol=1e-6)


def test_a_saved_schedule_comes_back_equal():
    for schedule in (LinearSchedule(0.001, 0.05, 300), OffsetCosineSchedule(0.1, 0.9)):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
        assert type(again) is type(schedule) and again.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: LinearSchedule(min_rate=0.3, max_rate=0.02), "0.3"),
        (lambda: LinearSchedule(steps=0), "0"),
        (lambda: OffsetCosineSchedule(max_signal_rate=1.2), "1.2"),
    ],
)
def test_numbers_out_of_range_are_named(make, value):
    with pytest.raises(ValueError, match=value):
        make()
