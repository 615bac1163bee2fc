"""The README keeps its promises: what it links to is there, and its map is complete."""

import re

import nbformat
import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_what_the_readme_links_to_is_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 20
    for link in links:
        assert (ROOT / link).exists(), link
    for path in re.findall(
        r"`((?:diffusion|scripts|notebooks|docs|data|models)/[\w./-]+\.\w+)`", README
    ):
        assert (ROOT / path).exists(), path


def test_the_readme_has_no_gaps_left_to_fill():
    assert not re.findall(r"@[A-Z_]+@|TODO|TBD", README)


@pytest.mark.parametrize("kind", ["listing", "figure"])
def test_the_map_names_every_listing_and_figure_and_where_it_is(kind):
    start = README.index(f"| {kind} |")
    table = README[start : README.index("\n\n", start)]
    rows = re.findall(r"^\| (8-\d+) \|.*\((notebooks/\w+\.ipynb)\)", table, re.MULTILINE)
    numbers = range(1, 13) if kind == "listing" else range(2, 17)
    assert [number for number, _ in rows] == [f"8-{number}" for number in numbers]
    for number, path in rows:
        notebook = nbformat.read(ROOT / path, as_version=4)
        text = "".join(cell.source for cell in notebook.cells)
        if kind == "figure":
            assert f'fig_8_{int(number[2:]):02d}"' in text


def test_no_document_holds_half_a_merge():
    documents = [*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/*.md")]
    assert len(documents) > 5
    for path in documents:
        assert not re.search(r"^(<<<<<<<|>>>>>>>) ", path.read_text(), re.MULTILINE), path
