"""Presets: the chapter's numbers, and refusals that name the value."""

import pytest

from diffusion.training.config import PRESETS, get_preset


def test_book_has_the_chapters_numbers():
    book = get_preset("book")
    assert (book.image_size, book.batch_size, book.repeats, book.fit) == (64, 64, 5, "stretch")
    assert (book.widths, book.block_depth, book.embedding_dims) == ((32, 64, 96, 128), 2, 32)
    assert (book.learning_rate, book.weight_decay, book.decay_learning_rate) == (1e-3, 1e-4, False)
    assert (book.ema, book.ema_warmup, book.epochs, book.sampling_steps) == (0.999, False, 50, 20)
    assert book.schedule == "offset_cosine" and not book.flip


def test_changes_leave_the_preset_alone_and_fewer_epochs_keep_the_share_of_half_size_ones():
    assert get_preset("quick", epochs=3).epochs == 3
    assert get_preset("quick").epochs == PRESETS["quick"].epochs != 3
    assert get_preset("laptop", epochs=6).half_size_epochs == 4
    assert get_preset("laptop", epochs=6, half_size_epochs=1).half_size_epochs == 1


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("qick", {}, "qick.*book, quick"),
        ("quick", {"epoch": 3}, "epoch.*epochs"),
        ("quick", {"epochs": 0}, "epochs.*0"),
        ("quick", {"batch_size": -1}, "batch_size.*-1"),
        ("quick", {"half_size_epochs": 7}, "half_size_epochs.*7"),
        ("quick", {"ema": 1.0}, "ema.*1.0"),
        ("quick", {"learning_rate": 0}, "learning_rate.*0"),
        ("quick", {"label_dropout": 1.0}, "label_dropout.*1.0"),
        ("quick", {"label_dropout": -0.1}, "label_dropout.*-0.1"),
        ("quick", {"gradient_norm": -1.0}, "gradient_norm.*-1.0"),
    ],
)
def test_what_does_not_exist_or_fit_is_named(name, changes, words):
    with pytest.raises(ValueError, match=words):
        get_preset(name, **changes)
