"""A study's own copies of the notebooks: running them changes nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat

from helpers import storage
from helpers.notebook import find_notebook
from helpers.schema import STAGES
from helpers.study import Study

NOTEBOOKS = (*STAGES, "explore")
_MADE_FROM = "segfair_made_from"  # in a copy's metadata: the hash of what it was made from


def fill_notebooks(study: Study, overrides: dict[str, Any]) -> Path:
    """Write the notebooks to ``lab/`` in the study's folder, its parameters filled in.

    A copy from before, with whatever was written and run in it, stays as long as notebook and
    parameters are those that it was made from; else it is kept as ``<name>.former.ipynb``.

    Raises a SegfairError: the folder cannot be written, or a notebook is not there.
    """
    folder = study.folder / "lab"
    for name in NOTEBOOKS:
        source = find_notebook(study, name)
        notebook = nbformat.read(source, as_version=4)
        cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        cell.source = f"params = {str(study.source)!r}\noverrides = {overrides!r}"
        made_from = notebook.metadata[_MADE_FROM] = storage.hash_value([source.read_text("utf-8"), cell.source])
        copy = folder / source.name
        if copy.exists():
            if nbformat.read(copy, as_version=4).metadata.get(_MADE_FROM) == made_from:
                continue
            copy.replace(copy.with_suffix(".former.ipynb"))
        storage.write_text(nbformat.writes(notebook), copy)
    return folder
