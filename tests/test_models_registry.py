"""The registry: what a parameter file can name, and everything that is wrong with it, said at
once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.errors import SegfairError
from helpers.models import KINDS, check_model, hash_checkpoint, list_templates, make_spec, registry
from helpers.models.registry import Kind, load_segmenter
from helpers.study import Study, load_study


def make_study(tmp_path: Path, model: dict, **cohort: object) -> Study:
    parameters = {
        "name": "small",
        "cohort": {
            "source": "table",
            "path": "data/participants.tsv",
            "organs": {"liver": {"labels": [1]}},
            "attributes": {"sex": {"categories": ["female", "male"]}},
            **cohort,
        },
        "models": [model],
    }
    path = tmp_path / "params" / "small.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return load_study(path)


def check(tmp_path: Path, **model: object) -> list[str]:
    study = make_study(tmp_path, {"name": "m", **model})
    return check_model(study.parameters.models[0], study)


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "prompt_only"},
        {"kind": "sam_demo"},
        {"kind": "nnunet_demo"},
        {"kind": "precomputed", "path": "masks/{scan}.nii.gz"},
        {"kind": "precomputed", "path": "${HOME}/{subject}/{scan}"},
    ],
)
def test_a_right_model_has_no_problem(tmp_path: Path, model: dict) -> None:
    assert check(tmp_path, **model) == []


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            {"kind": "sammy"},
            f"models.m.kind must be one of {', '.join(KINDS)}; got 'sammy'",
        ),
        ({"kind": "precomputed"}, "models.m.path is missing"),
        ({"kind": "precomputed", "path": "masks/mask.nii.gz"}, "must hold {scan} or {subject}"),
        ({"kind": "precomputed", "path": "masks/{case}.nii.gz"}, "must hold {scan} or {subject}"),
        ({"kind": "precomputed", "path": "masks/{scan.nii.gz"}, "must hold {scan} or {subject}"),
        ({"kind": "precomputed", "path": "${SEGFAIR_NONESUCH}/{scan}.nii.gz"}, "SEGFAIR_NONESUCH"),
        ({"kind": "prompt_only", "path": "{scan}.nii.gz"}, "reads no masks"),
        ({"kind": "prompt_only", "checkpoint": "a.pth"}, "takes none"),
        ({"kind": "sam_demo", "variant": "vit_b"}, "has no variants"),
        ({"kind": "sam"}, "run `segfair checkpoints fetch sam_vit_b`, or download https://"),
        ({"kind": "sam", "variant": "vit_l"}, "sam_vit_l_0b3195.pth"),
        ({"kind": "medsam"}, "run `segfair checkpoints fetch medsam`"),
        ({"kind": "sam_demo", "prompt": {"type": "points"}}, "models.m.prompt.type: sam_demo takes box, box3d; got"),
    ],
)
def test_a_wrong_model_has_one_problem_that_says_what_to_do(tmp_path: Path, model: dict, says: str) -> None:
    problems = check(tmp_path, **model)
    assert len(problems) == 1
    assert says in problems[0]
    assert "\n" not in problems[0]


@pytest.fixture(autouse=True)
def checkpoints_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGFAIR_CHECKPOINTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_a_missing_checkpoint_names_the_exact_place(tmp_path: Path) -> None:
    (problem,) = check(tmp_path, kind="sam", variant="vit_h", checkpoint="mine/sam.pth")
    assert str(tmp_path / "mine" / "sam.pth") in problem
    assert "sam_vit_h" in problem
    (problem,) = check(tmp_path, kind="sam", variant="vit_h")
    assert str(tmp_path / "weights" / "sam_vit_h_4b8939.pth") in problem


def test_a_fetched_checkpoint_is_found_and_a_fine_tuned_one_tells_its_own_architecture(
    tmp_path: Path, checkpoints_folder: Path
) -> None:
    checkpoints_folder.mkdir()
    (checkpoints_folder / "medsam_vit_b.pth").write_bytes(b"weights")
    (tmp_path / "mine.pth").write_bytes(b"weights")
    study = make_study(tmp_path, {"name": "m", "kind": "medsam"})
    assert make_spec(study.parameters.models[0], study).checkpoint == checkpoints_folder / "medsam_vit_b.pth"
    study = make_study(tmp_path, {"name": "m", "kind": "sam", "checkpoint": "mine.pth"})
    spec = make_spec(study.parameters.models[0], study)
    assert (spec.checkpoint, spec.variant) == (tmp_path / "mine.pth", None)


def test_an_empty_checkpoint_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "sam.pth").touch()
    (problem,) = check(tmp_path, kind="sam", checkpoint="sam.pth")
    assert "is empty" in problem


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    problems = check(tmp_path, kind="sam", variant="vit_x", path="{scan}.nii.gz")
    assert [problem.split(" ")[0] for problem in problems] == [
        "models.m.path:",
        "models.m.variant:",
        "models.m:",
    ]


def test_make_spec_refuses_what_check_finds(tmp_path: Path) -> None:
    study = make_study(tmp_path, {"name": "m", "kind": "sam"})
    with pytest.raises(SegfairError, match="its weights are not here"):
        make_spec(study.parameters.models[0], study)


def test_paths_of_masks_are_relative_to_the_participants_table(tmp_path: Path) -> None:
    study = make_study(tmp_path, {"name": "m", "kind": "precomputed", "path": "a/{scan}.nii.gz"})
    (tmp_path / "data").mkdir()
    assert make_spec(study.parameters.models[0], study).template == str(tmp_path / "data" / "a" / "{scan}.nii.gz")
    phantoms = make_study(tmp_path, {"name": "m", "kind": "prompt_only"}, source="phantoms", path=None)
    assert phantoms.table_folder == phantoms.folder / "phantoms"
    folder = make_study(tmp_path, {"name": "m", "kind": "prompt_only"}, source="totalsegmentator", path="data")
    assert folder.table_folder == tmp_path / "data"
    absolute = make_study(tmp_path, {"name": "m", "kind": "precomputed", "path": "/elsewhere/{scan}.nii.gz"})
    assert make_spec(absolute.parameters.models[0], absolute).template == "/elsewhere/{scan}.nii.gz"


def test_places_of_masks_are_listed_where_they_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for model, expected in (
        ({"kind": "precomputed", "path": "a/{scan}.nii.gz"}, {"m": str(tmp_path / "data" / "a" / "{scan}.nii.gz")}),
        ({"kind": "precomputed", "path": "a/{case}.nii.gz"}, {}),
        ({"kind": "precomputed"}, {}),
        ({"kind": "prompt_only"}, {}),
        ({"kind": "nonsense", "path": "a/{scan}.nii.gz"}, {}),
    ):
        assert list_templates(make_study(tmp_path, {"name": "m", **model})) == expected


def test_the_hash_of_a_checkpoint_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"abc")
    # The published test vector of SHA-256.
    assert hash_checkpoint(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"abcd")
    assert hash_checkpoint(path) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_listing_the_kinds_imports_no_torch() -> None:
    code = "import sys, helpers.models; sys.exit('torch' in sys.modules or 'segment_anything' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_new_family_is_a_module_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "helpers_models_everything.py"
    module.write_text(
        "import numpy as np\n"
        "from helpers.models import Segmentation\n"
        "class Everything:\n"
        "    device, precision = 'cpu', ''\n"
        "    def segment(self, case):\n"
        "        return Segmentation(np.ones(case.shape, np.uint8), case.shape[0], 0)\n"
        "def load(spec):\n"
        "    return Everything()\n",
        encoding="utf-8",
    )
    from helpers import models

    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    monkeypatch.setitem(
        KINDS, "everything", Kind("everything", "all of it", "helpers_models_everything", needs_image=False)
    )
    study = make_study(tmp_path, {"name": "m", "kind": "everything"})
    assert check_model(study.parameters.models[0], study) == []
    segmenter = load_segmenter(make_spec(study.parameters.models[0], study))
    assert segmenter.device == "cpu"


def test_every_kind_has_a_module_with_a_loader() -> None:
    from importlib import import_module

    for name, kind in registry.KINDS.items():
        assert kind.name == name
        assert callable(import_module(f"helpers.models.{kind.module}").load)


def test_a_model_that_cannot_be_loaded_is_said_in_a_sentence(tmp_path, monkeypatch):
    study = make_study(tmp_path, {"name": "m", "kind": "prompt_only"})
    (model,) = study.parameters.models
    assert registry.try_model(model, study) == []

    def fail(spec):
        raise ValueError("no such\nlayer")

    monkeypatch.setattr(registry, "load_segmenter", fail)
    assert registry.try_model(model, study) == [
        "models.m: it cannot be loaded (ValueError: no such layer): get its files again from their source"
    ]


def test_what_of_an_image_fails_a_scan_is_named_for_each_model_that_looks_at_one(tmp_path):
    study = make_study(tmp_path, {"name": "m", "kind": "sam_demo"})
    assert list(registry.list_refused(study)["m"]) == ["image_missing"]
    study = make_study(tmp_path, {"name": "m", "kind": "nnunet_demo"})
    assert list(registry.list_refused(study)["m"]) == ["image_missing", "image_not_finite", "image_flat"]
    assert registry.list_refused(make_study(tmp_path, {"name": "m", "kind": "prompt_only"})) == {}
