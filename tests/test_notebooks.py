"""The anatomy of every notebook: thin, stripped, parameterised, and in the order the reader
needs."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from helpers.schema import STAGES

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
EVERY = sorted(NOTEBOOKS.rglob("*.ipynb"))
STAGE_NOTEBOOKS = [NOTEBOOKS / f"{stage}.ipynb" for stage in STAGES]
BANNED_NODES = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.With, ast.Try)
PATH_WORDS = ("Path(", "os.path", "os.chdir", "sys.path", ".parent", "joinpath")


def read(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def test_there_are_five_stages_and_no_stray_copies():
    assert [path.name for path in sorted(NOTEBOOKS.glob("0*.ipynb"))] == [path.name for path in STAGE_NOTEBOOKS]


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_notebook_carries_no_outputs_and_no_machine(path):
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
        assert "papermill" not in cell.metadata
    assert "papermill" not in notebook.metadata and "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_notebook_is_thin(path):
    for cell in code_cells(path):
        assert not cell.source.lstrip().startswith(("!", "%")), cell.source
        assert not re.search(r"\.style\b(?!_| import)", cell.source.replace("figures.style", "")), (
            f"pandas' styler does not escape names, style_table does: {cell.source}"
        )
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, BANNED_NODES), (
                f"{path.name}: {type(node).__name__} belongs in a helper:\n{cell.source}"
            )
        assert not any(word in cell.source for word in PATH_WORDS), f"{path.name}: path arithmetic belongs in a helper"


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_notebook_has_one_parameters_cell(path):
    tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert code_cells(path)[0] is not None and "parameters" in code_cells(path)[0].metadata.tags


@pytest.mark.parametrize("path", STAGE_NOTEBOOKS, ids=lambda path: path.stem)
def test_stage_notebook_opens_with_its_question_and_closes_its_stage(path):
    cells = read(path).cells
    first = cells[0].source
    assert first.startswith(f"# {path.stem[:2]} · ")
    for part in ("**Question.**", "| reads |", "| writes |", "| takes |", "**What it cannot tell you.**"):
        assert part in first, f"{path.name}: the first cell lacks {part}"
    assert code_cells(path)[0].source == 'params = "params/demo.yaml"\noverrides = {}'
    assert f'open_stage("{path.stem}", params, overrides)' in code_cells(path)[1].source
    assert re.search(rf'close_stage\(\s*study,\s*"{path.stem}"', code_cells(path)[-1].source)


@pytest.mark.parametrize("path", STAGE_NOTEBOOKS, ids=lambda path: path.stem)
def test_every_result_stands_under_a_sentence(path):
    cells = read(path).cells
    for before, cell in pairwise(cells[2:]):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown" and before.source.rstrip().endswith((".", "?", "**", ".)")), (
                cell.source
            )
            assert len(ast.parse(cell.source).body) <= 3, f"{path.name}: a cell is a short call:\n{cell.source}"
