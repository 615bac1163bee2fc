"""Training: resumed, it ends where a run that was never stopped ends."""

import shutil

import numpy as np
import pytest
from conftest import assert_same_state

from diffusion.support.files import folder_lock
from diffusion.training.config import get_preset
from diffusion.training.loop import build, halve, load_model, resized, train


@pytest.mark.slow
def test_max_steps_stops_midway_and_resume_ends_the_same(trained, tiny, painted, tmp_path):
    options = {"sample_every": 0, "verbose": 0}
    stopped = train(tiny, painted, tmp_path, max_steps=8, **options)  # an epoch has six
    assert int(stopped.model.optimizer.iterations) == 8 and not stopped.interrupted
    resumed = train(tiny, painted, tmp_path, resume=True, **options)
    assert_same_state(resumed.model, load_model(trained.folder))


def test_an_existing_model_is_not_overwritten_and_a_finished_run_only_loaded(
    trained, tiny, painted
):
    file = trained.folder / "model.keras"
    before = file.stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="--resume"):
        train(tiny, painted, trained.folder, verbose=0)
    assert train(tiny, painted, trained.folder, resume=True, verbose=0).record["steps"] == 12
    assert file.stat().st_mtime_ns == before


def test_the_start_follows_from_the_seed():
    one, same, other = (build(get_preset("tiny", seed=seed), 1) for seed in (1, 1, 2))
    for a, b in zip(one.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(one.get_weights()[0] - other.get_weights()[0]).max() > 1e-3


def test_two_processes_do_not_train_in_one_folder(tiny, painted, tmp_path):
    refused = pytest.raises(FileExistsError, match="another process is training")
    with folder_lock(tmp_path / "run"), refused:
        train(tiny, painted, tmp_path / "run", verbose=0)


def test_a_folder_that_cannot_be_written_is_named_before_any_work(tiny, painted, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        train(tiny, painted, tmp_path / "file" / "run", verbose=0)


@pytest.mark.parametrize("option", [{"sample_every": -1}, {"max_steps": 0}, {"max_steps": 2.5}])
def test_numbers_out_of_range_are_refused(option, tiny, painted, tmp_path):
    with pytest.raises(ValueError, match=next(iter(option))):
        train(tiny, painted, tmp_path, **option)


@pytest.mark.slow
def test_a_model_of_the_readers_own_is_trained(tiny, painted, tmp_path):
    own = build(get_preset("tiny", widths=(12, 16), schedule="cosine"), 6)
    run = train(tiny, painted, tmp_path, model=own, max_steps=1, sample_every=0, verbose=0)
    assert run.model is own
    assert type(load_model(tmp_path).schedule).__name__ == "CosineSchedule"


@pytest.mark.slow
def test_more_epochs_than_before_go_on_from_the_end(trained, painted, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "run")
    run = train(get_preset("tiny", epochs=3), painted, tmp_path / "run", resume=True, verbose=0)
    assert [entry["steps"] for entry in run.record["history"]] == [6, 12, 18]
    assert run.record["seconds"] > trained.record["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("network", ["unet", "modern_unet", "transformer", "light_unet"])
def test_a_run_with_labels_that_stops_midway_ends_as_one_that_never_stopped(
    network, painted, tmp_path
):
    config = get_preset("tiny", epochs=3, half_size_epochs=1, labels=True, network=network)
    options = {"sample_every": 0, "verbose": 0}
    for max_steps in (3, 9, None):  # within an epoch of each size
        stopped = train(
            config, painted, tmp_path / "a", resume=True, max_steps=max_steps, **options
        )
    straight = train(config, painted, tmp_path / "b", **options)
    assert_same_state(stopped.model, straight.model)
    assert stopped.model.class_names == painted.class_names


@pytest.mark.slow
def test_a_run_can_start_from_the_weights_of_another_at_another_size(trained, painted, tmp_path):
    config = get_preset("tiny", learning_rate=1e-9, epochs=2, half_size_epochs=1)
    options = {"start_from": trained.folder, "sample_every": 0, "verbose": 0}
    run = train(config, painted, tmp_path / "a", max_steps=1, **options)
    assert run.model.image_size == 8 and run.record["started_from"] == trained.folder.name
    pairs = zip(run.model.network.weights, trained.model.ema_network.weights, strict=True)
    for weight, before in pairs:
        if "moving" not in weight.path:  # statistics of batches follow the new images
            np.testing.assert_allclose(weight, before, atol=1e-6)
    same = run.model.normalizer.get_weights(), trained.model.normalizer.get_weights()
    np.testing.assert_array_equal(same[0][0], same[1][0])
    # A checkpoint takes precedence: what was learnt since is not lost.
    resumed = train(config, painted, tmp_path / "a", resume=True, max_steps=2, **options)
    assert resumed.record["steps"] == 2
    named = get_preset("tiny", labels=True)
    with pytest.raises(
        ValueError, match=r"another network \(.* parameters, here .*\): use the preset"
    ):
        train(named, painted, tmp_path / "b", **options)


@pytest.mark.slow
def test_half_size_epochs_come_first_and_what_was_learnt_carries_over(painted, tmp_path):
    config = get_preset("tiny", epochs=3, half_size_epochs=2)
    # Stopped midway through the half-size epochs, at their end, and midway through the last.
    for max_steps in (8, 12, 15, None):
        options = {"max_steps": max_steps, "sample_every": 0, "verbose": 0}
        stopped = train(config, painted, tmp_path / "stopped", resume=True, **options)
        assert stopped.model.image_size == (8 if max_steps in (8, 12) else 16)
        if max_steps == 12:
            bigger = resized(stopped.model, config, 16)
            assert bigger.image_size == 16
            assert_same_state(bigger, stopped.model)
    straight = train(config, painted, tmp_path / "straight", sample_every=0, verbose=0)
    assert_same_state(stopped.model, straight.model)


def test_halving_averages_two_by_two_pixels():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("uint8")
    expected = images.reshape(3, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(halve(images), expected, atol=0.5)
    assert halve(images).dtype == np.uint8


def test_the_caption_says_what_data_how_many_steps_and_how_long(trained):
    assert "48 painted flowers, 16x16" in trained.caption
    assert "12 steps of 8 pictures in" in trained.caption


def test_a_decaying_learning_rate_ends_near_zero(painted):
    model = build(get_preset("tiny", decay_learning_rate=True), total_steps=200)
    rates = [float(model.optimizer._learning_rate(step)) for step in (0, 20, 110, 200)]
    assert rates[0] < 1e-4 and abs(rates[1] - 1e-3) < 1e-5 and rates[3] < 1e-6 < rates[2] < 1e-3


@pytest.mark.parametrize(
    ("labels", "names", "words"),
    [
        (False, ("rose", "lily"), "the model has labels: use .*labels=True"),
        (True, (), "the model has no labels: use .*labels=False"),
        (True, ("rose", "lily"), "'rose' there is '.*' here: use the same data"),
    ],
)
def test_a_model_with_other_names_than_the_flowers_is_refused(
    labels, names, words, painted, tmp_path
):
    own = build(get_preset("tiny", labels=bool(names)), 6, class_names=names)
    with pytest.raises(ValueError, match=words):
        train(get_preset("tiny", labels=labels), painted, tmp_path, model=own, verbose=0)


def test_long_gradients_are_shortened_to_the_norm_asked_for(painted):
    model = build(get_preset("tiny", gradient_norm=0.5), 1)
    assert model.optimizer.global_clipnorm == 0.5
    assert build(get_preset("tiny"), 1).optimizer.global_clipnorm is None
    model.optimizer.build(model.trainable_variables)
    other = resized(model, get_preset("tiny", gradient_norm=0.5), 8)
    assert other.optimizer.global_clipnorm == 0.5


def test_names_that_do_not_exist_are_refused():
    words = r"network 'u_net'.*unet, modern_unet, transformer, light_unet"
    with pytest.raises(ValueError, match=words):
        build(get_preset("tiny", network="u_net"), 1)
    with pytest.raises(ValueError, match=r"two class_names or more, got \['unknown'\]"):
        build(get_preset("tiny", labels=True), 1, class_names=["unknown"])
    with pytest.raises(ValueError, match=r"schedule 'cosin'.*offset_cosine"):
        build(get_preset("tiny", schedule="cosin"), 1)
    with pytest.raises(ValueError, match=r"precision 'half'.*mixed_bfloat16"):
        build(get_preset("tiny", precision="half"), 1)


def test_another_resolution_keeps_all_that_training_follows(painted):
    config = get_preset("tiny", labels=True)
    model = build(config, 1, 8, painted.class_names)
    model.optimizer.build(model.trainable_variables)
    model.ema, model.ema_warmup, model.label_dropout = 0.5, False, 0.3
    bigger = resized(model, config, 16)
    assert (bigger.ema, bigger.ema_warmup, bigger.label_dropout) == (0.5, False, 0.3)


def test_a_network_that_the_code_no_longer_builds_is_refused_before_it_is_resized():
    model = build(get_preset("tiny"), 1, 8)
    with pytest.raises(ValueError, match="unet of this configuration has other weights"):
        resized(model, get_preset("tiny", widths=(8, 24)), 16)
