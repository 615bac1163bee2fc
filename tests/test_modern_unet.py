"""The modern U-Net has the size that is documented; `test_networks` has what networks share."""

import pytest

from diffusion.modern_unet import build_modern_unet


def test_the_default_network_has_the_documented_size_and_a_row_for_each_name_and_for_none():
    plain, named = (build_modern_unet(num_classes=number) for number in (0, 102))
    assert plain.count_params() == 5_437_507
    rows, width = named.get_layer("label_embedding").embeddings.shape
    assert rows == 103 and named.count_params() == plain.count_params() + rows * width


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        (20, {"widths": (8, 8, 8)}, r"a multiple of 8 for widths \(8, 8, 8\).* of 2, got 20"),
        (18, {"widths": (8, 8)}, "a multiple of 4 .*got 18"),
        (6, {"widths": (8,), "patch_size": 4}, "a multiple of 4 .*patches of 4, got 6"),
        (8, {"widths": (8,), "embedding_dims": 7}, "7"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_line(size, options, words):
    with pytest.raises(ValueError, match=words) as error:
        build_modern_unet(size, **options)
    assert "\n" not in str(error.value)
