"""Networks are measured against ceilings of the same run. No timings are asserted here."""

import pytest

from benchmarks import networks
from benchmarks.recipes import Recipe
from diffusion.evaluation.costs import layer_costs, multiply_adds
from diffusion.light_unet import build_light_unet
from diffusion.modern_unet import build_modern_unet
from diffusion.training.config import get_preset


def test_the_roofline_is_the_lower_of_both_ceilings():
    ceilings = networks.Ceilings(flops=100.0, bandwidth=10.0)
    assert ceilings.reached([1.0, 10.0, 50.0]).tolist() == [10.0, 100.0, 100.0]


@pytest.mark.parametrize("build", [build_light_unet, build_modern_unet])
def test_every_layer_of_a_network_is_timed_by_itself(build):
    network = build(16, (8, 16), 1, 8, "mixed_bfloat16")
    rows = networks.measure_layers(network, batch_size=2, rounds=1, seconds=0)
    assert [cost for cost, _ in rows] == layer_costs(network)
    assert all(0 < seconds < 10 for _, seconds in rows)


def test_the_command_prints_steps_and_their_share_of_the_ceiling(monkeypatch, capsys):
    small = {"widths": (8, 16), "embedding_dims": 8, "block_depth": 1}
    recipe = Recipe("small", get_preset("named", network="light_unet", **small))
    monkeypatch.setattr(networks, "RECIPES", {"small": recipe})
    ceilings = {"flops": 1e9, "bandwidth": 1e9}
    monkeypatch.setattr(networks, "measure_ceilings", lambda _: networks.Ceilings(**ceilings))
    options = "--image-size 16 --batch-size 2 --rounds 1 --precisions float32 --recipes small"
    monkeypatch.setattr("sys.argv", ["networks", *options.split()])
    assert networks.main() == 0
    head, row, last = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["recipe", "precision"]
    assert row.split()[:2] == ["small", "float32"]
    assert last == "ceiling in float32: 1 GFLOP/s"


def test_a_steps_share_is_that_of_three_evaluations_of_the_batch(monkeypatch):
    small = {"widths": (8, 16), "embedding_dims": 8, "block_depth": 1}
    recipe = Recipe("small", get_preset("named", network="light_unet", **small))
    monkeypatch.setattr(networks, "RECIPES", {"small": recipe})
    monkeypatch.setattr(networks, "measure_ceilings", lambda _: networks.Ceilings(1e9, 1e9))
    monkeypatch.setattr(networks, "step_case", lambda model, batch_size: lambda count: 0.5 * count)
    (row,) = networks.measure_steps(["small"], 16, "float32", 4, 1, 0.0)
    model = networks.build_recipe(recipe, 16, "float32")
    assert row["parameters"] == model.network.count_params() and row["seconds"] == 0.5
    flop = 2 * 3 * multiply_adds(model.network) * 4
    assert row["flops"] == pytest.approx(flop / 0.5) == row["share"] * 1e9
