"""Any other program as a model: what it is given, what it may do wrong, and what is done again."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

from helpers import inference, models, volumes
from helpers.errors import SegfairError
from helpers.study import Study
from tests.test_dicom import write_series
from tests.test_docs import list_blocks
from tests.test_inference import SHAPE, SPACING, make_study, read_labels, stamp_files
from tests.tiny_nnunet import SPACING_ZYX_MM, draw_body, tiny_nnunet

__all__ = ["make_study", "tiny_nnunet"]  # fixtures of theirs

# Labels 5 where the image is bright; what is done with it is each test's own.
PROGRAM = """
import array, gzip, os, struct, sys, time
source, target = sys.argv[1:3]
def draw(source, target):  # NIfTI by hand, which starts sooner than any library
    raw = gzip.open(source).read()
    head, kind = bytearray(raw[:352]), {4: "h", 16: "f", 64: "d"}[struct.unpack_from("<h", raw, 70)[0]]
    struct.pack_into("<hh", head, 70, 2, 8)
    mask = bytes(5 * (value > 0) for value in array.array(kind, raw[352:]))
    with (gzip.open if target.endswith(".gz") else open)(target, "wb") as file:
        file.write(bytes(head) + mask)
"""
READ = """
import SimpleITK as sitk
draw(source, target)
mask = sitk.ReadImage(target)
"""
WRITE = "draw(source, target)"
EACH = """
for name in sorted(os.listdir(source)):
    draw(os.path.join(source, name), os.path.join(target, name))
"""
Write = Callable[..., dict]


@pytest.fixture
def write_model(tmp_path: Path) -> Write:
    """Write a program and return the model that starts it, for two organs under one label."""

    def write(then: str, words: str = "{image} {output}", **keys: object) -> dict:
        script = tmp_path / "tools" / "seg.py"
        script.parent.mkdir(exist_ok=True)
        script.write_text(PROGRAM + then, encoding="utf-8")
        organs = {"liver": {"labels": [5], "side": "right"}, "spleen": {"labels": [5], "side": "left"}}
        command = f"'{sys.executable}' tools/seg.py {words}"
        return {"name": "theirs", "kind": "command", "command": command, "organs": organs} | keys

    return write


def run(study: Study) -> pd.DataFrame:
    return inference.run_inference(study)


def read_error(study: Study) -> str:
    """Run one scan, which must fail, and return why."""
    pd.read_parquet(study.path("cohort")).head(1).to_parquet(study.path("cohort"))
    table = run(study)
    assert table["status"].tolist() == ["failed"]
    assert not study.prediction_path("theirs", "a1").exists()
    return str(table["error"].iloc[0])


def test_each_scan_is_handed_over_and_its_mask_read(make_study, write_model, tmp_path) -> None:
    then = "print(sys.argv[3:], sorted(os.listdir(os.path.dirname(source))))\n" + WRITE
    study = make_study([write_model(then, "{image} {output} {scan} {modality} {device} {threads}")])
    table = run(study)
    assert table["status"].tolist() == ["ok"] * 3
    for scan in ("a1", "b2", "c3"):  # b2 is stored in another axis order
        predicted = study.prediction_path("theirs", scan)
        reference = tmp_path / "data" / f"{scan}_mask.nii.gz"
        assert not volumes.read_grid(predicted).differences(volumes.read_grid(reference))
        np.testing.assert_array_equal(read_labels(predicted), read_labels(reference))
    log = (predicted.parent / "logs" / "scan0003.log").read_text("utf-8")
    cores = models.load_segmenter(models.make_spec(study.parameters.models[0], study))
    assert cores.device == "cpu" and table["device"].tolist() == ["cpu"] * 3
    # No name of a scan, a person or a file of theirs reaches the program.
    assert log.startswith("['scan0003', 'CT', 'cpu', '") and log.strip().endswith("['scan0003.nii.gz']")
    assert not (predicted.parent / "batch").exists()


def test_a_dicom_series_is_handed_over_as_one_volume(make_study, write_model, tmp_path) -> None:
    study = make_study([write_model(WRITE, orientation="RAS")])
    table = pd.read_parquet(study.path("cohort"))
    scan = sitk.ReadImage(str(tmp_path / "data" / "a1_image.nii.gz"))
    write_series(sitk.Cast(scan, sitk.sitkInt16), tmp_path / "data" / "series")
    table.loc[table["scan"] == "a1", "image"] = str(tmp_path / "data" / "series")
    table.to_parquet(study.path("cohort"))
    assert run(study)["status"].tolist() == ["ok"] * 3
    reference = read_labels(tmp_path / "data" / "a1_mask.nii.gz")
    np.testing.assert_array_equal(read_labels(study.prediction_path("theirs", "a1")), reference)


@pytest.mark.parametrize(
    ("then", "says"),
    [
        ("sys.exit('cannot find the weights')", r"ended with exit code 1: cannot find the weights \(its log: pre"),
        ("os.kill(os.getpid(), 9)", r"was killed \(signal 9\), most likely because memory ran out"),
        ("pass", r"left no usable mask: it wrote none \(its log: predictions/theirs/logs/scan0001.log\)"),
        ("target = target[:-3]\n" + WRITE + "\nos.truncate(target, os.path.getsize(target) // 2)",
         r"left no usable mask: scan0001\.nii: cannot be read, it may be truncated or damaged \(its log"),
        ("open(target, 'w').write('mask')", r"left no usable mask: scan0001\.nii\.gz: is not an image"),
        (READ + "sitk.WriteImage(mask[1:], target)",
         r"left no usable mask: the mask of theirs is not on the reference's grid \(size .*: resample it to "
         r"the reference with nearest neighbours, or allow it by `resample: nearest` \(its log"),
        (READ + "sitk.WriteImage(sitk.Cast(mask, sitk.sitkFloat32) / 2, target)", "must hold whole numbers"),
        ("for name in 'ab': draw(source, os.path.join(os.path.dirname(target), name + '.nii'))",
         r"it wrote 2 files, none of them scan0001\.nii\.gz"),
    ],
)  # fmt: skip
def test_what_a_program_does_wrong_is_one_sentence(make_study, write_model, then, says) -> None:
    error = read_error(make_study([write_model(then)]))
    assert re.search(says, error), error


def test_one_broken_scan_fails_alone(make_study, write_model) -> None:
    table = run(make_study([write_model("if 'scan0002' in source: sys.exit('too long')\n" + WRITE)]))
    assert table["status"].tolist() == ["ok", "failed", "ok"]
    assert "exit code 1: too long" in table["error"].iloc[1]


def test_a_program_that_hangs_is_ended(make_study, write_model) -> None:
    model = write_model("print('waiting', flush=True)\ntime.sleep(600)", timeout_minutes=0.03)
    assert "was ended after 0.03 minutes" in read_error(make_study([model]))


def test_labels_that_no_organ_names_are_refused_where_the_model_has_none_of_its_own(make_study, write_model) -> None:
    model = write_model(WRITE)
    del model["organs"]
    says = "the mask of theirs holds labels that no organ names (5): say under models.theirs.organs where it has its"
    assert says in read_error(make_study([model]))
    assert run(make_study([model], **{"cohort.ignore_labels": "all"}))["status"].tolist() == ["ok"]


@pytest.mark.parametrize(
    ("words", "write"),
    [
        ("{image} {outputs}", "draw(source, target + '/liver.nii.gz')"),
        ("{image} {output}", "os.mkdir(target)\ndraw(source, target + '/liver.nii.gz')"),
    ],
)
def test_a_folder_with_a_file_per_organ_is_read(make_study, write_model, words, write) -> None:
    model = write_model(write, words, organs={"liver": {"files": ["liver"]}, "spleen": {"files": ["spleen"]}})
    study = make_study([model])
    assert run(study)["status"].tolist() == ["ok"] * 3
    organs = inference.read_organs(study).set_index(["scan", "organ"])["not_drawn"]
    assert organs["a1", "spleen"] == "the folder has no mask file of it" and organs["a1", "liver"] == ""


def test_the_only_image_in_the_folder_is_the_mask_whatever_its_name(make_study, write_model) -> None:
    then = "os.makedirs(target + '/image')\ndraw(source, target + '/image/image_trans.nii.gz')"
    assert run(make_study([write_model(then, "{image} {outputs}")]))["status"].tolist() == ["ok"] * 3


def test_one_start_for_all_scans_and_only_for_those_that_are_not_done(make_study, write_model, tmp_path) -> None:
    then = "print(sorted(os.listdir(source)), flush=True)" + EACH + "open(os.path.join(target, 'plans.json'), 'w')"
    study = make_study([write_model(then, "{images} {outputs}", batch=True)])
    table = run(study)
    assert table["status"].tolist() == ["ok"] * 3
    assert (table["seconds"] > 0).all()
    folder = study.prediction_path("theirs", "x").parent
    assert (folder / "logs" / "batch.log").read_text("utf-8").strip() == str([f"scan000{n}.nii.gz" for n in (1, 2, 3)])
    np.testing.assert_array_equal(
        read_labels(study.prediction_path("theirs", "b2")), read_labels(tmp_path / "data" / "b2_mask.nii.gz")
    )
    before = stamp_files(study, "theirs")
    study.prediction_path("theirs", "b2").unlink()
    assert run(study)["reused"].tolist() == [True, False, True]
    assert (folder / "logs" / "batch.log").read_text("utf-8").strip() == "['scan0002.nii.gz']"
    after = stamp_files(study, "theirs")
    assert {name for name in before if after[name] != before[name]} == {"b2.nii.gz"}
    assert not (folder / "batch").exists()


def test_a_failed_start_for_all_keeps_the_masks_that_are_there(make_study, write_model) -> None:
    then = EACH.rstrip() + "\n    if name == 'case_scan0002_0000.nii.gz': sys.exit('out of memory')"
    then = then.replace("target, name", "target, name.replace('_0000', '').replace('case_', '')")
    keys = {"batch": True, "image_name": "case_{scan}_0000.nii.gz"}
    study = make_study([write_model(then, "{images} {outputs}", **keys)])
    table = run(study)
    assert table["status"].tolist() == ["ok", "ok", "failed"]
    assert (
        table["error"]
        .iloc[2]
        .endswith("ended with exit code 1: out of memory (its log: predictions/theirs/logs/batch.log)")
    )
    # What failed is alone in the next start, which goes well.
    assert run(study)["status"].tolist() == ["ok", "ok", "ok"]


def test_a_scan_whose_image_cannot_be_read_is_not_in_the_batch(make_study, write_model, tmp_path) -> None:
    (tmp_path / "data" / "c3_image.nii.gz").write_bytes(b"no image")
    table = run(make_study([write_model(EACH, "{images} {outputs}", batch=True)]))
    assert table["status"].tolist() == ["ok", "ok", "failed"]
    assert "c3_image.nii.gz: is not an image that can be opened" in table["error"].iloc[2]


def test_masks_on_another_grid_are_brought_to_the_references_where_asked(make_study, write_model, tmp_path) -> None:
    coarse = """
spacing = [2 * mask.GetSpacing()[0], *mask.GetSpacing()[1:]]
size = [mask.GetWidth() // 2, *mask.GetSize()[1:]]
origin = [mask.GetOrigin()[0] + mask.GetSpacing()[0] / 2, *mask.GetOrigin()[1:]]
sitk.WriteImage(sitk.Resample(mask, size, sitk.Transform(), sitk.sitkNearestNeighbor, origin, spacing), target)
"""
    keys = {"resample": "nearest", "depends_on": ["tools/seg.py"]}
    study = make_study([write_model(READ + coarse, **keys)])
    table = run(study)
    assert table["status"].tolist() == ["ok"] * 3 and table["resampled"].all()
    predicted, reference = (
        read_labels(path) for path in (study.prediction_path("theirs", "a1"), tmp_path / "data" / "a1_mask.nii.gz")
    )
    assert predicted.shape == SHAPE and np.mean(predicted == reference) > 0.97
    moved = READ + "mask.SetOrigin([0, 0, 0])\nsitk.WriteImage(mask, target)"
    assert "is moved against the reference by up to 100.0 mm" in read_error(make_study([write_model(moved, **keys)]))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            {"command": "nowhere {image} {output}"},
            "command: there is no program 'nowhere' that can be started: install",
        ),
        (
            {"command": "sh {image} {outpt}"},
            "{outpt} is no placeholder of a command without batch: it may hold {image}",
        ),
        ({"command": "sh {output}"}, "a command without batch must hold {image} or {folder}"),
        ({"command": "sh {image}"}, "a command without batch must hold {output} or {outputs} or {folder}"),
        ({"command": "sh {image} {output}", "batch": True}, "{image} is no placeholder of a command with batch: true"),
        ({"command": "sh '{image} {output}"}, "cannot be taken apart into words"),
        ({"command": "${NO_SUCH}/sh {image} {output}"}, "${NO_SUCH} in '${NO_SUCH}/sh' is not set"),
        ({"image_name": "image.nii.gz"}, "image_name: must hold {scan} and end in .nii.gz"),
        ({"image_name": "{scan}"}, "image_name: must hold {scan} and end in .nii.gz"),
        ({"depends_on": ["weights.pth"]}, "depends_on: there is no file"),
        ({"version_command": "nowhere --version"}, "version_command: there is no program 'nowhere'"),
        ({"organs": {"liver": {"labels": ["Liver"]}}}, "organs.liver.labels must be ids"),
        ({"path": "{scan}.nii.gz"}, "path: command reads no masks"),
    ],
)
def test_check_names_what_is_wrong(make_study, keys, says) -> None:
    model = {"name": "theirs", "kind": "command", "command": "sh -c 'echo' {image} {output}"} | keys
    study = make_study([model])
    problems = models.check_model(study.parameters.models[0], study)
    assert any(says in problem for problem in problems), problems
    with pytest.raises(SegfairError):
        run(study)


def test_check_finds_nothing_wrong_and_starts_nothing_but_the_version(make_study, write_model, tmp_path) -> None:
    study = make_study([write_model("open('started', 'w')")])
    model = study.parameters.models[0]
    assert models.check_model(model, study) == []
    assert models.describe_model(model, study) == [
        f"models.theirs: nothing tells one version of {Path(sys.executable).name} from another: name its weights under "
        "depends_on, or give a version_command, else masks of an older one are kept"
    ]
    assert not (tmp_path / "started").exists()
    study = make_study([write_model(WRITE, version_command="sh -c 'echo no licence; exit 2'")])
    with pytest.raises(SegfairError, match=r"models\.theirs\.version_command: sh ended with exit code 2: no licence"):
        models.describe_model(study.parameters.models[0], study)


def test_what_the_program_depends_on_decides_what_is_done_again(make_study, write_model, tmp_path) -> None:
    weights = tmp_path / "weights" / "fold_0" / "a.pth"
    weights.parent.mkdir(parents=True)
    weights.write_text("1", encoding="utf-8")
    version = tmp_path / "version"
    version.write_text("1.0", encoding="utf-8")
    keys = {"depends_on": ["tools/seg.py", "weights"], "version_command": "cat version"}

    def count(**more: object) -> int:
        return int((~run(make_study([write_model(WRITE, **keys, **more)]))["reused"]).sum())

    assert count() == 3
    assert count(timeout_minutes=5) == 0
    weights.write_text("2", encoding="utf-8")
    assert count() == 3
    version.write_text("1.1", encoding="utf-8")
    assert count() == 3
    assert count(environment={"A": "1"}) == 3
    assert count(environment={"A": "1"}) == 0


def test_a_card_is_asked_for_by_number_and_refused_where_there_is_none(make_study, write_model, monkeypatch) -> None:
    words = "{image} {output} {gpu} {device}"
    then = "print(sys.argv[3:], repr(os.environ.get('CUDA_VISIBLE_DEVICES')))\n" + WRITE
    says = "models.theirs.command: {gpu} asks for a graphics card, and there is none here for compute.device cpu"
    assert read_error(make_study([write_model(then, words)])) == says
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # as a worker's own
    monkeypatch.setattr("helpers.models.command.list_cards", lambda device: ["3"])
    study = make_study([write_model(then, words)], **{"compute.device": "auto"})
    assert run(study)["device"].tolist() == ["cuda"]
    log = study.prediction_path("theirs", "x").parent / "logs" / "scan0001.log"
    assert log.read_text("utf-8").strip() == "['3', 'cuda'] '3'"


def test_spacing_reaches_the_program(make_study, write_model) -> None:
    study = make_study([write_model(READ + "print(mask.GetSpacing())")])
    run(study)
    log = study.prediction_path("theirs", "x").parent / "logs" / "scan0002.log"
    assert log.read_text("utf-8").strip() == str(SPACING)


@pytest.mark.slow
def test_nnunets_own_command_and_ours_draw_the_same(make_study, tiny_nnunet, tmp_path) -> None:
    """The guide's line, really run; the other kind runs the folder itself."""
    program = Path(sys.executable).parent / "nnUNetv2_predict_from_modelfolder"
    if not program.is_file():
        pytest.skip("nnunetv2 is not installed")
    theirs = {
        "name": "theirs",
        "kind": "command",
        "command": f"'{program}' -i {{images}} -o {{outputs}} -m '{tiny_nnunet}' -f 0 -device {{device}} --disable_tta",
        "batch": True,
        "image_name": "{scan}_0000.nii.gz",
        "depends_on": [str(tiny_nnunet)],
        "environment": {"nnUNet_def_n_proc": "1"},
    }
    ours = {"name": "ours", "kind": "nnunet", "folder": str(tiny_nnunet), "folds": [0], "mirroring": False}
    study = make_study([theirs, ours])
    for array, what in zip(draw_body(np.random.default_rng(5)), ("image", "mask"), strict=True):
        body = sitk.GetImageFromArray(array)
        body.SetSpacing(SPACING_ZYX_MM[::-1])
        body.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # it is drawn as RAS
        volumes.write_volume(body, tmp_path / "data" / f"a1_{what}.nii.gz")
    pd.read_parquet(study.path("cohort")).head(1).to_parquet(study.path("cohort"))
    table = run(study)
    assert table["status"].tolist() == ["ok"] * 2
    assert table["seconds"][0] > 1  # the start counts
    drawn = [read_labels(study.prediction_path(name, "a1")) for name in ("theirs", "ours")]
    assert set(np.unique(drawn[0])) == {0, 1, 2}
    np.testing.assert_array_equal(*drawn)


def test_the_examples_of_the_guide_pass_the_check(make_study, repository) -> None:
    """But for what is not on this machine."""
    blocks = list_blocks((repository / "docs" / "MODELS.md").read_text("utf-8"), "yaml")
    named = [model for block in blocks for model in yaml.safe_load(block)["models"] if model["kind"] == "command"]
    assert len(named) == 5
    organs = {f"cohort.organs.{name}": {"labels": [9]} for name in ("kidney_right", "kidney_left")}
    study = make_study(named, **organs)
    for model in study.parameters.models:
        faults = models.check_model(model, study)
        assert all("there is no program" in fault or "there is no file" in fault for fault in faults), faults
