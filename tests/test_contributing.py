"""The recipes of CONTRIBUTING.md, taken from the page and run: a model, a metric, a dataset."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import textwrap
import types

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

from helpers import cohort, inference
from helpers.cohort.sources import SOURCES, Source
from helpers.errors import SegfairError
from helpers.models import KINDS, Kind
from helpers.study import load_study

from .test_cohort import save


@pytest.fixture(scope="module")
def recipes(repository) -> dict[str, list[str]]:
    """The python blocks under each heading."""
    text = (repository / "CONTRIBUTING.md").read_text("utf-8")
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)[1:]
    return {
        title: re.findall(r"^```python\n(.*?)^```", body, re.MULTILINE | re.DOTALL)
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


def make_study(folder, source: str, path: str, model: dict):
    parameters = {
        "name": "recipe",
        "cohort": {
            "source": source,
            "path": path,
            "organs": {"liver": {"labels": [1]}},
            "attributes": {"sex": None, "age": None},
        },
        "models": [model],
        "compute": {"workers": 0},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return load_study(folder / "recipe.yaml")


def write_scan(folder, name: str, *, masks: str, scans: str) -> np.ndarray:
    mask = np.zeros((6, 20, 22), np.uint8)
    mask[1:5, 5:15, 6:16] = 1
    mask[1:5, 5:8, 6:9] = 0
    save(mask, folder / masks / f"{name}.nii.gz")
    save(np.where(mask == 1, 100, -50).astype(np.int16), folder / scans / f"{name}.nii.gz")
    return mask


def test_add_a_model(recipes, tmp_path, monkeypatch):
    module_text, entry = recipes["Add a model"]
    module = types.ModuleType("helpers.models.threshold")
    exec(module_text, module.__dict__)
    monkeypatch.setitem(sys.modules, "helpers.models.threshold", module)
    kind = eval(entry, {"Kind": Kind})
    monkeypatch.setitem(KINDS, kind.name, kind)
    mask = write_scan(tmp_path, "p1", masks="masks", scans="images")
    row = {"subject": "p1", "sex": "female", "age": 50, "modality": "CT", "image": "images/p1.nii.gz"}
    pd.DataFrame([row | {"reference": "masks/p1.nii.gz"}]).to_csv(tmp_path / "people.csv", index=False)
    prompt = {"type": "box", "jitter": 0}
    study = make_study(tmp_path, "table", "people.csv", {"name": "bright", "kind": "threshold", "prompt": prompt})
    cohort.build_cohort(study)
    table = inference.run_inference(study)
    assert table["status"].tolist() == ["ok"] and table["prompts"].tolist() == [4]
    drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(study.prediction_path("bright", "p1"))))
    assert np.array_equal(drawn, mask)


# Where the page says that each piece goes: before what, in which file, between what.
PLACES = [
    ("vocabulary/measures.py", re.compile(r"^ {8}Measure\(\n {12}\"dice\",", re.MULTILINE), "{},\n"),
    (
        "metrics/masks.py",
        re.compile(r"^ {8}precision=common / in_prediction,$", re.MULTILINE),
        "volume_log_ratio={},\n",
    ),
    ("metrics/masks.py", re.compile(r'^ {4}status: str = "ok"', re.MULTILINE), "{}\n"),
]
# Everyone's organ is a box; the model cuts slices off it: of women's two, of men's one.
STUDY = """
import sys
from pathlib import Path
from helpers import cohort, inference, performance, provenance
from helpers.report import build_report
from helpers.study import load_study

study = load_study(sys.argv[1])
provenance.write_snapshot(study)
cohort.build_cohort(study)
inference.run_inference(study)
performance.measure_performance(study)
performance.write_audit(study)
build_report(study.folder)
"""


@pytest.mark.slow
def test_add_a_metric(recipes, tmp_path, repository):
    """The recipe as it stands on the page, on a copy of the package: from masks to the report's
    sentence."""
    shutil.copytree(repository / "src" / "helpers", tmp_path / "src" / "helpers")
    for piece, (name, anchor, frame) in zip(recipes["Add a metric"], PLACES, strict=True):
        path = tmp_path / "src" / "helpers" / name
        text = path.read_text(encoding="utf-8")
        place = anchor.search(text)
        assert place, f"{name} has no longer what the page says"
        indent = re.match(" *", place.group()).group()
        path.write_text(
            text[: place.start()] + textwrap.indent(frame.format(piece.strip()), indent) + text[place.start() :],
            "utf-8",
        )
    rows = []
    for number in range(30):
        sex = "female" if number < 15 else "male"
        mask = np.zeros((12, 20, 22), np.uint8)
        mask[1:11, 5 : 14 + number % 3, 6:16] = 1
        save(mask, tmp_path / "masks" / f"p{number}.nii.gz")
        mask[1 : 3 if sex == "female" else 2] = 0
        save(mask, tmp_path / "drawn" / f"p{number}.nii.gz")
        row = {"subject": f"p{number}", "sex": sex, "age": 40 + number % 7, "modality": "CT"}
        rows.append(row | {"reference": f"masks/p{number}.nii.gz"})
    pd.DataFrame(rows).to_csv(tmp_path / "people.csv", index=False)
    parameters = {
        "name": "recipe",
        "cohort": {
            "source": "table",
            "path": "people.csv",
            "organs": {"liver": {"labels": [1]}},
            "attributes": {"sex": None},
        },
        "models": [{"name": "cut", "kind": "precomputed", "path": "drawn/{scan}.nii.gz"}],
        "fairness": {"metrics": ["volume_log_ratio"], "bootstrap": 200},
        "compute": {"workers": 0},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(parameters), encoding="utf-8")
    (tmp_path / "study.py").write_text(STUDY, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(tmp_path / "study.py"), str(tmp_path / "recipe.yaml")],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "outputs" / "recipe"
    measured = pd.read_parquet(folder / "metrics.parquet").set_index("subject")["volume_log_ratio"]
    # Two of ten slices less, and one of ten.
    assert measured["p0"] == pytest.approx(-np.log(0.8)) and measured["p29"] == pytest.approx(-np.log(0.9))
    (gap,) = pd.read_csv(folder / "fairness" / "disparity.csv").query("organ == 'liver'").to_dict("records")
    assert (gap["worst_group"], gap["best_group"], gap["verdict"]) == ("female", "male", "disparity")
    assert gap["gap"] == pytest.approx(np.log(0.9 / 0.8))
    page = re.sub(r"<script.*?</script>|<[^>]+>", " ", (folder / "report.html").read_text("utf-8"), flags=re.DOTALL)
    said = " ".join(html.unescape(page).split())
    assert "Volume log-ratio is 0.118 higher for women (0.223) than for men (0.105)" in said
    assert "lower for “female”" not in said
    assert "How far the two volumes are apart" in said, "the glossary holds the record's meaning"


def test_add_a_dataset(recipes, tmp_path, monkeypatch):
    module_text, entry = recipes["Add a dataset"]
    place: dict = {"Source": Source, "__name__": "two_folders"}
    exec(module_text, place)
    monkeypatch.setitem(SOURCES, "two_folders", eval(entry, place))
    for name in ("b", "a"):
        write_scan(tmp_path / "data", name, masks="masks", scans="scans")
    (tmp_path / "data" / "people.csv").write_text("id,gender,years\nb,w,61\nc,m,1\na,m,\n", encoding="utf-8")
    study = make_study(tmp_path, "two_folders", "data", {"name": "ellipse", "kind": "prompt_only"})
    table = cohort.build_cohort(study).table.set_index("scan")
    assert table["included"].all() and table["sex"].to_dict() == {"a": "male", "b": "female"}
    assert table.loc["b", "age"] == 61 and np.isnan(table.loc["a", "age"])
    for mask in (tmp_path / "data" / "masks").iterdir():
        mask.unlink()
    with pytest.raises(SegfairError, match="holds no masks"):
        cohort.build_cohort(study)
