"""Inpainting: what is known stays, what is drawn fits to it, whatever the mask's shape."""

import numpy as np
import pytest
from denoisers import best_denoiser, standard_noise

from diffusion.inpainting import inpaint, repaint, resampling_path
from diffusion.samplers import ddim
from diffusion.schedules import CosineSchedule, OffsetCosineSchedule
from diffusion.training.building import load_model

SCHEDULE = OffsetCosineSchedule()


@pytest.fixture(scope="module")
def model(by_name):
    return load_model(by_name)


@pytest.fixture(scope="module")
def photographs(painted):
    return np.asarray(painted.images[:2])


def masks():
    """Masks of odd shapes for images of 16x16."""
    rows, columns = np.indices((16, 16))
    radii = np.hypot(rows - 7.5, columns - 7.5)
    pixel = np.zeros((16, 16), bool)
    pixel[3, 12] = True
    return {
        "ring": (radii > 3) & (radii < 6),
        "checkerboard": (rows + columns) % 2 == 0,
        "one pixel": pixel,
        "all but one": ~pixel,
        "half": columns < 8,
        "nothing": np.zeros((16, 16), bool),
        "everything": np.ones((16, 16), bool),
    }


# --- known pixels ---


@pytest.mark.parametrize("name", masks())
def test_known_pixels_come_back_to_the_bit_and_the_others_are_drawn(model, photographs, name):
    mask = masks()[name]
    result = inpaint(model, photographs, mask, 4, seed=1, resamplings=2, labels="rose")
    expected = photographs.astype("float32") / np.float32(255)
    assert result.shape == expected.shape and result.dtype == np.float32
    np.testing.assert_array_equal(result[:, ~mask], expected[:, ~mask])
    assert result.min() >= 0 and result.max() <= 1
    if mask.any():
        assert (result[:, mask] != expected[:, mask]).mean() > 0.5


def test_nothing_to_draw_needs_no_evaluation_and_all_of_it_forgets_the_photograph(photographs):
    class Untouched:
        image_size = 16

    empty = inpaint(Untouched(), photographs, masks()["nothing"])
    np.testing.assert_array_equal(np.round(empty * 255), photographs)


def test_a_mask_of_everything_leaves_nothing_of_the_photograph(model, photographs):
    one, other = (
        inpaint(model, photographs[i : i + 1], masks()["everything"], 3, seed=4) for i in (0, 1)
    )
    np.testing.assert_array_equal(one, other)


def test_each_image_has_its_own_mask(model, photographs):
    both = np.stack([masks()["half"], ~masks()["half"]])
    result = inpaint(model, photographs, both, 3, seed=0)
    for index in range(2):
        kept = ~both[index]
        np.testing.assert_array_equal(
            result[index][kept], np.float32(photographs[index][kept]) / 255
        )


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.ones((16, 16), "uint8"), "masks must be bool"),
        (np.ones((8, 8), bool), r"masks must have the shape \(16, 16\) or \(2, 16, 16\)"),
        (np.ones((3, 16, 16), bool), r"got \(3, 16, 16\)"),
    ],
)
def test_masks_of_another_kind_are_refused_in_one_line(model, photographs, mask, words):
    with pytest.raises(ValueError, match=words):
        inpaint(model, photographs, mask)


def test_images_of_another_shape_are_refused(model, photographs):
    with pytest.raises(ValueError, match=r"images must have the shape \(B, 16, 16, 3\)"):
        inpaint(model, photographs[:, :8], masks()["half"])


# --- what is drawn ---


def test_drawn_pixels_of_independent_data_have_its_distribution():
    images, noise = np.full((4000, 1, 1, 3), 5.0, "float32"), standard_noise()
    mask = np.zeros((4000, 1, 1, 1), bool)
    mask[:2000] = True
    drawn = np.asarray(
        repaint(best_denoiser, SCHEDULE, noise, 20, images, mask, resamplings=2, seed=0)
    )
    np.testing.assert_array_equal(drawn[2000:], images[2000:])
    assert abs(drawn[:2000].mean() - 0.7) < 0.03 and 0.2 < drawn[:2000].std() < 0.42


CORRELATION, KNOWN = 0.9, 1.5  # of two pixels with mean 0 and variance 1; the first one's value


def pair_denoiser(noisy_images, noise_rates, signal_rates):
    """The ideal denoiser for two correlated pixels, (B, 1, 2, 3)."""
    noise, signal = float(noise_rates[0, 0, 0, 0]), float(signal_rates[0, 0, 0, 0])
    covariance = np.array([[1, CORRELATION], [CORRELATION, 1]])
    gain = signal * covariance @ np.linalg.inv(signal**2 * covariance + noise**2 * np.eye(2))
    images = np.einsum("ij,bhjc->bhic", gain, np.asarray(noisy_images)).astype("float32")
    return (np.asarray(noisy_images) - signal * images) / noise, images


def missed(resamplings, jump=1, schedule=SCHEDULE):
    """How far the mean of the pixel drawn beside the known one is from the conditional mean."""
    noise = np.random.default_rng(3).normal(size=(700, 1, 2, 3)).astype("float32")
    images, mask = np.zeros_like(noise), np.zeros((700, 1, 2, 1), bool)
    images[:, :, 0], mask[:, :, 1] = KNOWN, True
    options = {"resamplings": resamplings, "jump": jump, "seed": 1}
    result = repaint(pair_denoiser, schedule, noise, 20, images, mask, **options)
    np.testing.assert_array_equal(result[:, :, 0], images[:, :, 0])
    return abs(np.asarray(result)[:, :, 1].mean() - CORRELATION * KNOWN)


def test_resampling_brings_what_is_drawn_to_the_conditional_mean():
    errors = [missed(resamplings, schedule=CosineSchedule()) for resamplings in (1, 3, 10)]
    assert errors[0] > 0.3 and errors[1] < errors[0] / 2 and errors[2] < 0.08


def test_it_helps_with_longer_jumps_and_with_a_schedule_that_begins_with_noise():
    without = missed(1)
    assert missed(10) < without / 2 and missed(10, jump=4) < without / 1.8


def test_without_known_pixels_a_step_is_that_of_ddim_with_fresh_noise():
    noise, steps = standard_noise(200), 15
    drawn = repaint(
        best_denoiser, SCHEDULE, noise, steps, noise, np.ones((200, 1, 1, 1), bool), 1, seed=1
    )
    expected = np.asarray(ddim(best_denoiser, SCHEDULE, noise, steps, eta=1.0, seed=1))
    assert (
        abs(np.mean(drawn) - expected.mean()) < 0.05 and abs(np.std(drawn) - expected.std()) < 0.05
    )


def test_a_schedule_without_noise_at_its_lowest_times_stays_finite():
    class Flat(CosineSchedule):
        def __call__(self, diffusion_times):
            return super().__call__(np.maximum(0, np.asarray(diffusion_times) - 0.3))

    mask = np.ones((50, 1, 1, 1), bool)

    def denoise(noisy_images, noise_rates, signal_rates):
        return best_denoiser(noisy_images, np.maximum(noise_rates, 1e-6), signal_rates)

    drawn = repaint(denoise, Flat(), standard_noise(50), 20, standard_noise(50), mask, 3, seed=0)
    assert np.isfinite(np.asarray(drawn)).all()


# --- the path ---


def test_a_path_without_resampling_goes_straight_down():
    assert resampling_path(5) == [5, 4, 3, 2, 1, 0]
    assert resampling_path(5, resamplings=1, jump=3) == [5, 4, 3, 2, 1, 0]


def test_a_path_goes_back_up_by_its_jump():
    assert resampling_path(2, 2) == [2, 1, 2, 1, 0, 1, 0]
    assert resampling_path(4, 2, 2) == [4, 3, 2, 3, 4, 3, 2, 1, 0, 1, 2, 1, 0]


@pytest.mark.parametrize(("steps", "resamplings", "jump"), [(1, 5, 1), (20, 5, 1), (25, 3, 10)])
def test_every_path_moves_by_single_levels_from_noise_to_image(steps, resamplings, jump):
    path = np.array(resampling_path(steps, resamplings, jump))
    assert path[0] == steps and path[-1] == 0 and path.min() == 0 and path.max() == steps
    assert (np.abs(np.diff(path)) == 1).all()
    downs = (np.diff(path) == -1).sum()
    reached = steps // jump * jump
    assert downs == steps + reached * (resamplings - 1)


@pytest.mark.parametrize("options", [{"steps": 0}, {"resamplings": 0}, {"jump": 0}])
def test_numbers_below_1_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        resampling_path(**{"steps": 5, **options})
