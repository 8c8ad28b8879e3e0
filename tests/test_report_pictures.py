"""Pictures of scans in the report: whose, when, and what they may tell."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from helpers import volumes
from helpers.errors import VolumeError
from helpers.figures.planes import draw_planes
from helpers.inference import OrganPlane
from helpers.report import compose_report, render_report
from helpers.report.blocks import ReportFinding
from helpers.report.outputs import read_outputs
from helpers.report.sections.pictures import picture_people
from helpers.study import choose_place
from tests import report_study as study
from tests.small_volumes import make_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study whose women have scans at hand, half of them in folders of a large study."""
    folder = tmp_path_factory.mktemp("pictures")
    cohort, metrics, fairness = study.make_whole()
    labels = np.zeros((8, 12, 12), np.uint8)
    labels[2:6, 3:9, 3:9] = 1
    for place, scan in enumerate(cohort[cohort["sex"] == "female"]["scan"]):
        volumes.write_volume(make_image(labels), folder / "masks" / f"{scan}.nii.gz")
        mask = choose_place(folder / "predictions/sam_demo", f"{scan}.nii.gz", many=place % 2 == 0)
        volumes.write_volume(make_image(np.roll(labels, 1, axis=2)), mask)
    there = cohort.assign(reference=[str(folder / "masks" / f"{scan}.nii.gz") for scan in cohort["scan"]], image="")
    return study.write_study(
        folder, cohort=there, metrics=metrics, fairness=fairness, parameters=declare(public=True), run=study.make_run()
    )


def declare(**changes):
    parameters = study.make_parameters()
    parameters["cohort"] |= changes
    return parameters


def list_findings(report):
    return [block for block in report["answers"].blocks if isinstance(block, ReportFinding)]


def test_a_finding_shows_the_typical_and_the_worst_person_and_nobodys_name(folder):
    report = compose_report(folder)
    found = list_findings(report)
    captions = [picture.caption for picture in found[0].pictures]
    assert [re.sub(r"[\d.]+$", "", caption) for caption in captions] == [
        "Liver, typical of women, Dice ", "Liver, worst of women, Dice ",
    ]  # fmt: skip
    cohort, metrics, _ = study.make_whole()
    women = cohort[cohort["included"] & (cohort["sex"] == "female")]["number"]
    mine = metrics[metrics["number"].isin(women) & (metrics["model"] == "sam_demo") & (metrics["organ"] == "liver")]
    assert captions[1].endswith(f"{mine['dice'].min():.3f}")
    assert abs(float(captions[0].rpartition(" ")[2]) - mine["dice"].median()) < 0.01
    for picture in found[0].pictures:
        assert set(re.findall(r">([^<]+)</text>", picture.svg)) == set("RLAPSI"), "no text but the sides"
        assert len(picture.svg) < 50_000
    page = render_report(report)
    assert page.count('<svg class="planes"') >= 2 and "SCAN_" not in page and "PATIENT" not in page


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, False),
        ({"cohort": {"public": True}}, True),
        ({"cohort": {"public": True}, "report": {"pictures": False}}, False),
        ({"report": {"pictures": True}}, True),
    ],
)
def test_pictures_are_shown_where_the_scans_are_declared_public_or_where_asked(folder, changes, shown):
    outputs = read_outputs(folder)
    told = outputs.parameters.model_dump(exclude_unset=True)
    told["cohort"].pop("public")
    told["cohort"] |= changes.get("cohort", {})
    told |= {key: value for key, value in changes.items() if key != "cohort"}
    assert type(outputs.parameters).model_validate(told).shows_scans is shown


def test_the_demo_shows_pictures_because_phantoms_are_nobody(repository):
    from helpers.study import load_study

    assert load_study(repository / "params" / "demo.yaml").parameters.shows_scans


def test_a_hidden_group_has_no_picture_and_a_broken_scan_is_said_to_be_one(folder):
    outputs = read_outputs(folder)
    row = outputs.found[0]
    assert len(picture_people(outputs, row)) == 2
    assert picture_people(replace(outputs, small={"sex": {"female"}}), row) == ()

    def fail(*_):
        raise VolumeError("/data/secret_place/x.nii.gz: cannot be read")

    broken = picture_people(replace(outputs, load_planes=fail), row)
    assert [one.svg for one in broken] == ["", ""]
    assert all("cannot be read any more" in one.caption and "secret" not in one.caption for one in broken)


@pytest.mark.parametrize("shape", [(60, 200), (200, 60), (100, 100)])
def test_the_letters_of_the_sides_can_be_read_in_print(shape):
    """Pictures are printed at most 25 mm high and 87 mm wide; letters have 7 points at least."""
    planes = [OrganPlane(name, np.zeros(shape, np.uint8), (1.0, 1.0), (), ()) for name in ("axial", "coronal")]
    svg = draw_planes(planes)
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    scale = min(87 / width, 25 / height) * 72 / 25.4
    assert 7 <= float(re.search(r"--printed: ([\d.]+)px", svg)[1]) * scale < 12


def test_a_large_plane_is_made_small_and_carries_no_metadata():
    noise = np.random.default_rng(1).integers(0, 255, (500, 600)).astype(np.uint8)
    turns = np.linspace(0, 2 * np.pi, 400)
    line = np.stack([200 + 100 * np.cos(turns), 150 + 90 * np.sin(turns)], axis=1)
    planes = [OrganPlane(name, noise, (0.7, 0.7), (line,), (line,)) for name in ("axial", "coronal", "sagittal")]
    svg = draw_planes(planes)
    assert len(svg) < 100_000
    pictures = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", svg)]
    assert [max(one.size) for one in pictures] == [224] * 3 and not any(one.getexif() for one in pictures)
