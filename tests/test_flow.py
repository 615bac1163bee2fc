"""The solvers of the probability flow: their order, their angles, what they refuse."""

import numpy as np
import pytest
from denoisers import best_denoiser, exact_flow, standard_noise

from diffusion.ddpm import Chain
from diffusion.flow import SPACINGS, solver_angles
from diffusion.samplers import adams_bashforth, ddim, dpm_solver, heun
from diffusion.schedules import CosineSchedule, OffsetCosineSchedule

OFFSET = OffsetCosineSchedule()
CHAIN = Chain(np.linspace(1e-3, 0.2, 50)).as_schedule()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("sampler", "options", "order"),
    [
        (heun, {}, 2),
        (adams_bashforth, {"order": 1}, 1),
        (adams_bashforth, {"order": 2}, 2),
        (adams_bashforth, {"order": 3}, 3),
        (adams_bashforth, {"order": 4}, 4),
        (dpm_solver, {"order": 1}, 1),
        (dpm_solver, {}, 2),
    ],
)
def test_a_solver_converges_to_the_exact_flow_at_its_order(sampler, options, order, spacing):
    noise = standard_noise(50)
    exact = exact_flow(OFFSET, noise, 0.0)
    errors = []
    for steps in (17, 33, 65):  # double the steps, plus the evaluation at the end
        images = sampler(best_denoiser, OFFSET, noise, steps, spacing=spacing, **options)
        errors.append(np.abs(np.asarray(images, "float64") - exact).mean())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > order - 0.25).all() and errors[-1] < 50 * 65.0**-order, (orders, errors)


def test_the_first_order_of_dpm_solver_is_ddim():
    """Lu et al. 2022, section 4: at the times of the chapter's sampler both give the same."""
    steps, noise = 8, standard_noise(50)

    def schedule(times):  # ddim evaluates at times 1 to 1 / steps
        return OFFSET(1 / steps + times * (1 - 1 / steps))

    ours = dpm_solver(best_denoiser, schedule, noise, steps, order=1, spacing="time")
    np.testing.assert_allclose(ours, ddim(best_denoiser, OFFSET, noise, steps), atol=1e-5)


@pytest.mark.parametrize("schedule", [OFFSET, CosineSchedule()], ids=repr)
def test_angles_fall_from_noise_to_image_evenly_in_time_or_log_snr(schedule):
    by_time = solver_angles(schedule, 9, "time")
    by_log_snr = solver_angles(schedule, 9, "log_snr")
    # Both schedules turn at a constant speed, so even in time is even in the angle.
    np.testing.assert_allclose(np.diff(by_time[1:-1], n=2), 0, atol=1e-6)
    np.testing.assert_allclose(np.diff(np.log(np.tan(by_log_snr)), n=2), 0, atol=1e-9)
    for angles in (by_time, by_log_snr):
        ends = [np.float64(schedule(np.float32(time))[0]) for time in (1, 0)]
        np.testing.assert_allclose(np.sin(angles[[0, -1]]), np.clip(ends, 1e-3, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "steps"), [(CHAIN, 52), (CHAIN, 60), (CosineSchedule(), 1600)], ids=repr
)
@pytest.mark.parametrize("sampler", [heun, adams_bashforth, dpm_solver])
def test_coinciding_angles_are_refused_in_one_line(sampler, schedule, steps):
    steps = 2 * steps - 1 if sampler is heun else steps  # heun lays half as many angles
    with pytest.raises(ValueError, match=r"angles .*fewer steps, or spacing='log_snr'") as error:
        sampler(best_denoiser, schedule, standard_noise(2), steps, spacing="time")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sampler", [heun, adams_bashforth, dpm_solver])
def test_as_many_steps_as_a_chain_has_are_solved(sampler):
    for steps, spacing in ((51, "time"), (52, "log_snr")):
        images = sampler(best_denoiser, CHAIN, standard_noise(2), steps, spacing=spacing)
        assert np.isfinite(np.asarray(images)).all()
