"""`nnunet_demo`: the shipped network is an ordinary nnU-Net, finds the organs of people it has not
seen, and can be made again."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from packaging.requirements import Requirement

from helpers import volumes
from helpers.demo import train_nnunet
from helpers.demo.anatomy import ORGANS, Person, draw_phantom
from helpers.demo.torsos import draw_torso
from helpers.demo.train_nnunet import NnunetRecipe, compute_loss, draw_example, draw_people
from helpers.models import ScanCase, check_model, describe_model, load_segmenter, make_spec, registry
from helpers.models import nnunet_demo as shipped
from helpers.models.nnunet_folder import CHECKPOINT, read_trained
from helpers.parameters import Phantoms
from helpers.study import load_study
from tests.offline import one_thread  # noqa: F401
from tests.test_models_nnunet import make_study, measure_dice, predict_officially

IDS = {name: 10 + place for place, name in enumerate(ORGANS)}  # not the network's own
COHORT = {name: {"labels": [label]} for name, label in IDS.items()}
# Dice of the worst scan of four was 0.88 for the lungs, 0.81, 0.58, 0.62 and 0.42 for the others.
FLOORS = {
    "liver": 0.7, "kidney_right": 0.45, "kidney_left": 0.45, "spleen": 0.45, "lung_right": 0.75, "lung_left": 0.75,
    "aorta": 0.3,
}  # fmt: skip
TINY = NnunetRecipe(steps=2, people=1, patch_zyx=(16, 32, 32), warmup=1)


def load(tmp_path: Path, **keys: Any) -> Any:
    study = make_study(tmp_path, {"name": "auto", "kind": "nnunet_demo", **keys}, organs=COHORT)
    return load_segmenter(make_spec(study.parameters.models[0], study))


def draw(modality: str, seed: int, spacing_mm: tuple[float, float, float] = (3.5, 3.5, 6.0)) -> Any:
    """Draw a phantom of nobody's study: its image and mask as stored."""
    sex = ("female", "male")[seed % 2]
    person = Person("held", "held", sex, 30.0 + 10 * (seed % 5), 22.0 + 2 * (seed % 5), modality, 90_000 + seed)
    return draw_phantom(person, Phantoms(spacing_mm=spacing_mm), IDS)


def make_case(stored: sitk.Image) -> ScanCase:
    axial = volumes.to_axial(stored)
    grid = volumes.get_grid(axial)
    image = sitk.GetArrayFromImage(axial)
    return ScanCase("s1", "p1", "CT", grid, IDS, image=image, stored=volumes.get_grid(stored))


# Seed 5 gives one of the phantoms that are not stored as LPS.
@pytest.mark.parametrize(("modality", "seed"), [("CT", 1), ("MR", 5)])
def test_the_official_predictor_reads_the_folder_and_draws_the_same(tmp_path: Path, modality: str, seed: int) -> None:
    image, _ = draw(modality, seed, (5.0, 5.0, 8.0))
    assert (volumes.get_grid(volumes.to_axial(image)) != volumes.get_grid(image)) == (seed % 5 == 0)
    sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    official, _ = predict_officially(shipped.FOLDER, tmp_path / "scan.nii.gz", ("all",), mirroring=True, step=1.0)
    theirs = sitk.GetArrayFromImage(volumes.to_axial(official))
    ours = load(tmp_path).segment(make_case(image)).labels
    assert len(np.unique(theirs)) == 1 + len(ORGANS)
    np.testing.assert_array_equal(ours, np.where(theirs > 0, theirs + 9, 0))


@pytest.mark.parametrize(("modality", "seeds"), [("CT", (11, 12)), ("MR", (13, 14))])
def test_every_organ_of_people_not_seen_is_found(tmp_path: Path, modality: str, seeds: tuple[int, ...]) -> None:
    segmenter = load(tmp_path)
    for seed in seeds:
        image, mask = draw(modality, seed)
        found = segmenter.segment(make_case(image)).labels
        wanted = sitk.GetArrayFromImage(volumes.to_axial(mask))
        dice = {name: measure_dice(found, wanted, label) for name, label in IDS.items()}
        assert all(value > FLOORS[name] for name, value in dice.items()), f"{modality} {seed}: {dice}"


def test_what_ships_is_small_and_says_how_it_was_made(repository: Path) -> None:
    files = [path for path in shipped.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3e6
    made = json.loads((shipped.FOLDER / "training.json").read_text(encoding="utf-8"))
    recipe = json.loads(json.dumps(asdict(NnunetRecipe(seed=made["recipe"]["seed"]))))
    assert made["recipe"] == recipe and made["command"] == f"run_training(seed={recipe['seed']})"
    assert made["history"][-1]["step"] == recipe["steps"]
    trained = read_trained(shipped.FOLDER)
    assert trained.dataset["numTraining"] == recipe["people"] and list(trained.labels) == list(ORGANS)
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["helpers"]
    assert {f"**/*{path.suffix}" for path in files} <= set(patterns)


def test_make_install_brings_what_the_demo_needs(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    brought = {Requirement(text).name for text in project["optional-dependencies"]["test"]}
    models = load_study(repository / "params" / "demo.yaml").parameters.models
    assert {name for model in models for name in registry.find_kind(model).requires} <= brought


def test_its_organs_are_matched_and_those_it_lacks_are_said(tmp_path: Path) -> None:
    organs = {"liver": {"labels": [1]}, "brain": {"labels": [2]}}
    study = make_study(tmp_path, {"name": "auto", "kind": "nnunet_demo"}, organs=organs)
    model = study.parameters.models[0]
    assert check_model(model, study) == []
    assert "no label called brain" in " ".join(describe_model(model, study))
    study = make_study(tmp_path, {"name": "auto", "kind": "nnunet_demo"}, organs={"brain": {"labels": [2]}})
    (problem,) = check_model(study.parameters.models[0], study)
    assert problem.startswith("models.auto.organs is needed: no label of the model is called brain")


def test_missing_weights_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = tmp_path / shipped.FOLDER.name / "fold_all" / CHECKPOINT
    monkeypatch.setitem(registry.KINDS, "nnunet_demo", replace(registry.KINDS["nnunet_demo"], weights=lost))
    monkeypatch.setattr(shipped, "NNUNET_DEMO", lost)
    study = make_study(tmp_path, {"name": "auto", "kind": "nnunet_demo"}, organs=COHORT)
    (problem,) = check_model(study.parameters.models[0], study)
    assert "the weights that ship with this package are missing" in problem and "install it again" in problem


@pytest.fixture(scope="module")
def torso() -> np.ndarray:
    return draw_torso(np.random.default_rng(3), "female", (8.0, 8.0, 8.0))


def test_an_example_lies_as_the_reader_of_the_plans_turns_it(torso: np.ndarray) -> None:
    """Towards superior, anterior and right, with parts of voxels that add up to 1."""
    size = tuple(count // 2 for count in torso.shape)
    examples = (draw_example(np.random.default_rng(seed), torso, size) for seed in range(30))
    image, target = next(example for example in examples if (example[1][1:].sum((1, 2, 3)) > 8).all())
    np.testing.assert_allclose(target.sum(axis=0), 1, atol=1e-6)
    assert abs(image.mean()) < 0.2 and 0.8 < image.std() < 1.2
    middle = [
        np.array([np.average(places, weights=part[1 + k].sum(axes)) for k in range(len(ORGANS))])
        for part in [target]
        for places, axes in ((np.arange(size[0]), (1, 2)), (np.arange(size[1]), (0, 2)), (np.arange(size[2]), (0, 1)))
    ]
    z, y, x = (dict(zip(ORGANS, axis, strict=True)) for axis in middle)
    assert z["lung_right"] > z["liver"] > z["kidney_right"]
    assert y["liver"] > y["kidney_right"]
    assert x["kidney_right"] > x["aorta"] > x["spleen"]


def test_examples_follow_their_generator_and_may_be_larger_than_the_torso(torso: np.ndarray) -> None:
    size = tuple(count // 2 + 6 for count in torso.shape)
    first, again, other = (draw_example(np.random.default_rng(seed), torso, size) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert first[0].shape == size and (first[0] == 0).sum() > 6 * size[1] * size[2]


def test_people_to_learn_from_are_other_ones_each(torso: np.ndarray) -> None:
    one, two = draw_people(NnunetRecipe(people=2), (12.0, 12.0, 12.0))
    (same,) = draw_people(NnunetRecipe(people=1), (12.0, 12.0, 12.0))
    np.testing.assert_array_equal(one, same)
    assert one.shape != two.shape or not np.array_equal(one, two)


def test_a_right_answer_has_no_loss() -> None:
    target = torch.zeros(1, 8, 4, 4, 4)
    organs = torch.arange(64).reshape(4, 4, 4) % 8
    target.scatter_(1, organs[None, None], 1.0)
    right, dice = compute_loss(50 * target, target)
    wrong, none = compute_loss(50 * target.roll(1, dims=1), target)
    assert float(right) < 1e-3 and np.isnan(dice), "an organ of eight voxels is too small for a Dice"
    assert float(wrong) > 40 and np.isnan(none)
    _, dice = compute_loss(50 * target.repeat(1, 1, 2, 1, 1), target.repeat(1, 1, 2, 1, 1))
    assert dice == pytest.approx(1)


def test_equal_recipes_agree_and_leave_a_whole_folder(tmp_path: Path) -> None:
    states = []
    for name in "ab":
        folder = tmp_path / name / shipped.FOLDER.name
        history = train_nnunet.train_nnunet(TINY, folder, save_every=1)
        assert history["step"].tolist() == [1, 2] and history["loss"].notna().all()
        assert read_trained(folder).plans == read_trained(shipped.FOLDER).plans
        states.append(torch.load(folder / "fold_all" / CHECKPOINT, weights_only=True)["network_weights"])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_the_training_notebook_runs_shortened(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(TINY, steps=8, people=2)
    monkeypatch.setattr(train_nnunet, "NnunetRecipe", lambda **keys: replace(small, **keys))
    notebook = nbformat.read(repository / "notebooks" / "extras" / "train_nnunet_demo.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    session: dict[str, Any] = {}
    for number, source in enumerate([cells[0], f"shorten, out = 4, {str(tmp_path)!r}", *cells[1:]]):
        exec(compile(source, f"cell {number}", "exec"), session)
    assert session["history"]["step"].tolist() == [2]
    assert (tmp_path / shipped.FOLDER.name / "fold_all" / CHECKPOINT).is_file()
