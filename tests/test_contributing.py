"""The recipes of CONTRIBUTING.md, taken from the page and run: a model, a metric, a dataset."""

from __future__ import annotations

import re
import sys
import types

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

from helpers import cohort, inference
from helpers.cohort.sources import SOURCES, Source
from helpers.errors import SegfairError
from helpers.fairness import disparity
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


def test_add_a_metric(recipes, monkeypatch):
    measure, direction, example = recipes["Add a metric"]
    monkeypatch.setattr(disparity, "HIGHER_IS_BETTER", dict(disparity.HIGHER_IS_BETTER))
    place = {"HIGHER_IS_BETTER": disparity.HIGHER_IS_BETTER}
    exec(measure + direction + example, place)
    place["test_volume_ratio"]()
    found = disparity.measure_disparities(
        np.array([[0.9], [0.8]]), np.array([[5], [5]]), ["volume_ratio"], np.array([0]), np.array([1])
    )
    assert found["gap"][0] == pytest.approx(0.1)


def test_the_places_that_a_metric_needs_are_where_the_page_says():
    from typing import get_args

    from helpers import metrics
    from helpers.parameters import MetricName

    assert set(get_args(MetricName)) == set(disparity.HIGHER_IS_BETTER) <= set(metrics.MEASURES)
    assert set(metrics.MEASURES) <= set(metrics.MaskComparison.__dataclass_fields__)
    assert all(set(values) <= set(metrics.MEASURES) for values in metrics.EMPTY_CASES.values())


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
