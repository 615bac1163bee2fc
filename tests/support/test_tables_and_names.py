"""Tables, and names that are read without importing Keras."""

import importlib

import pytest
from processes import python

from diffusion.support.registry import names_in
from diffusion.support.tables import lay_out


def test_a_table_is_aligned_as_text_and_as_markdown():
    rows = [("what", "n"), ("a long name", "1"), ("b", "10")]
    assert lay_out(rows, right={1}) == ["what          n", "a long name   1", "b            10"]
    assert lay_out(rows, markdown=True, right={1})[1] == "| --- | ---: |"


@pytest.mark.slow
def test_names_are_read_without_importing_keras():
    code = (
        "import sys; from diffusion.support.registry import names_in; "
        "print(names_in('samplers', 'SAMPLERS')[:2], 'keras' in sys.modules)"
    )
    assert python("-c", code) == "('ddim', 'ddpm') False\n"


@pytest.mark.parametrize(
    ("module", "registry"),
    [
        ("samplers", "SAMPLERS"),
        ("flow", "SPACINGS"),
        ("objectives", "OBJECTIVES"),
        ("objectives", "WEIGHTINGS"),
        ("evaluation.encoder", "ENCODERS"),
    ],
)
def test_the_names_read_are_those_of_the_registry(module, registry):
    imported = importlib.import_module(f"diffusion.{module}")
    assert names_in(module, registry) == tuple(getattr(imported, registry))


@pytest.mark.parametrize("registry", ["NONE", "np", "SAMPLING"])
def test_a_registry_that_does_not_exist_is_refused(registry):
    with pytest.raises(LookupError, match=registry):
        names_in("samplers", registry)
