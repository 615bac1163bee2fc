"""Small things that the command lines share: tables, ranges, names read without Keras."""

import argparse
import subprocess
import sys

import pytest
from conftest import ROOT

from diffusion.support.registry import names_in
from diffusion.support.tables import lay_out

sys.path.insert(0, str(ROOT / "scripts"))
import command


def test_a_table_is_aligned_as_text_and_as_markdown():
    rows = [("what", "n"), ("a long name", "1"), ("b", "10")]
    assert lay_out(rows, right={1}) == ["what          n", "a long name   1", "b            10"]
    assert lay_out(rows, markdown=True, right={1})[1] == "| --- | ---: |"


def test_names_are_read_without_importing_keras():
    code = (
        "import sys; from diffusion.support.registry import names_in; "
        "print(names_in('samplers', 'SAMPLERS')[:2], 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "('ddim', 'ddpm') False\n", done.stderr


@pytest.mark.parametrize(
    ("module", "registry"),
    [("samplers", "SAMPLERS"), ("objectives", "OBJECTIVES"), ("objectives", "WEIGHTINGS")],
)
def test_the_names_read_are_those_of_the_registry(module, registry):
    imported = __import__(f"diffusion.{module}", fromlist=[registry])
    assert names_in(module, registry) == tuple(getattr(imported, registry))


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", ""])
def test_a_number_out_of_range_is_named(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"at least 1.*got"):
        command.number(least=1)(text)


def test_numbers_within_their_range_pass():
    assert command.number(least=1, most=3)("3") == 3
    assert command.number(float, above=0, most=1)("0.5") == 0.5
    with pytest.raises(argparse.ArgumentTypeError, match="above 0"):
        command.number(float, above=0)("nan")
    with pytest.raises(argparse.ArgumentTypeError):
        command.SEED(str(2**32))
