"""What is read from an output folder, and what is forgotten on the way."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from helpers.errors import SegfairError
from helpers.report import suppression
from helpers.report.outputs import read_outputs
from helpers.report.scrubbing import Scrubber
from helpers.schema import TABLES
from tests import report_study as study


@pytest.mark.parametrize(
    ("message", "clean"),
    [
        ("/home/anna/scans/x.nii.gz: cannot be opened", "the file: cannot be opened"),
        ("cannot open '/home/anna/my scans/x 1.nii.gz'", "cannot open the file"),
        (r"C:\Users\anna\x.dcm is truncated", "the file is truncated"),
        ("~/scans/x.nii.gz is 4D", "the file is 4D"),
        ("../masks/x is missing", "the file is missing"),
        ("s3://bucket/key is missing", "the file is missing"),
        ("scan SCAN_7 is truncated", "scan 012 is truncated"),
        ("SCAN_7_left and P-1 differ", "scan 012_left and the person differ"),
        ("subject 42 twice, 42 mm apart", "scan 003 twice, 42 mm apart"),
        ("written by anna@host.example", "written by [address]"),
        ("born 1980-05-09 or 19800509", "born [date] or [date]"),
        ("CT.nii.gz differs\nfrom its mask", "the file differs from its mask"),
        ("bmi 12.5 kg/m² is outside the plausible 15 to 60", "bmi … kg/m² is outside the plausible 15 to 60"),
        ("origin differs by 10 mm, spacing (1.0, 1.0, 3.0)", "origin differs by 10 mm, spacing (1.0, 1.0, 3.0)"),
        (np.nan, ""),
        (None, ""),
    ],
)
def test_messages_lose_ids_paths_addresses_and_dates(message, clean):
    scrub = Scrubber({"SCAN_7": 12, "42": 3}, ["P-1"], [])
    assert scrub(message) == clean


def test_a_message_takes_as_long_whether_it_may_name_few_scans_or_many():
    def scrub(scans: int) -> tuple[float, list[str]]:
        names = [f"case_{number:06d}" for number in range(1, scans + 1)]
        clean = Scrubber(dict(zip(names, range(1, scans + 1), strict=True)), [], [f"/srv/{name}.nii" for name in names])
        began = time.process_time()
        said = [clean(f"case_{number:06d} and /srv/case_{number:06d}.nii differ") for number in range(1, 41)]
        return time.process_time() - began, said

    few, many = scrub(40), scrub(8000)
    assert few[1] == many[1] and many[1][-1] == "scan 040 and the file differ"
    assert many[0] < 10 * max(few[0], 1e-3)


def test_known_paths_go_even_where_no_rule_sees_them():
    scrub = Scrubber({}, [], ["/srv/Study Of Smith/mask one"])
    assert "Smith" not in scrub("cannot open /srv/Study Of Smith/mask one today")
    assert "mask one" not in scrub("mask one is empty")


def test_a_file_in_a_known_folder_is_a_file():
    scrub = Scrubber(folders=["/srv/mine"])
    assert scrub("in /srv/mine/a/b.nii.gz, and /srv/mine") == "in the file, and the folder"


def test_outputs_carry_numbers_instead_of_names(tmp_path):
    outputs = read_outputs(study.write_whole_study(tmp_path))
    for table in (outputs.cohort, outputs.metrics, outputs.exclusions, outputs.inference):
        assert not {"subject", "scan", "reference", "image"} & set(table)
        text = table.to_csv()
        assert "PATIENT" not in text and "SCAN_" not in text and "secret_place" not in text
    assert outputs.metrics["person"].nunique() == 60 and outputs.metrics["number"].nunique() == 61
    assert outputs.cohort["person"].iloc[0] == outputs.cohort["person"].iloc[-1], "one person has two scans"
    assert outputs.problems == ()


def test_small_groups_are_taken_out_of_every_table(tmp_path):
    cohort = study.make_cohort(60, few="male")
    metrics = study.make_metrics(cohort)
    # As if an earlier stage had forgotten to suppress: every group is compared from two people on.
    fairness = study.make_fairness(metrics, cohort, min_group=2)
    folder = study.write_study(
        tmp_path, cohort=cohort, metrics=metrics, fairness=fairness, maps=study.make_maps(cohort), run=study.make_run()
    )
    outputs = read_outputs(folder)
    assert outputs.small == {"sex": {"male"}, "bmi": set()}
    male = outputs.groups[(outputs.groups["attribute"] == "sex") & (outputs.groups["group"] == "male")]
    assert len(male) and male["suppressed"].all() and male[["n", "mean", "median", "ci_high"]].isna().all(axis=None)
    by_sex = outputs.disparity[outputs.disparity["attribute"] == "sex"]
    assert len(by_sex) and by_sex[["gap", "p_adjusted", "n", "expected_gap"]].isna().all(axis=None)
    assert by_sex["worst_group"].isna().all()
    by_bmi = outputs.disparity[outputs.disparity["attribute"] == "bmi"]
    assert by_bmi["gap"].notna().all()
    assert outputs.spatial_summary.empty
    assert (
        outputs.maps[["difference", "error_male", "error_female"]].isna().all(axis=None)  # his from hers and all
    )


def test_a_group_that_is_small_for_one_organ_alone_is_suppressed_there(tmp_path):
    cohort = study.make_cohort(60)
    metrics = study.make_metrics(cohort)
    lost = (metrics["organ"] == "liver") & metrics["scan"].isin(cohort.loc[cohort["sex"] == "male", "scan"].iloc[5:])
    metrics.loc[lost, ["dice", "nsd", "hd95_mm", "boundary_error_mm"]] = np.nan
    folder = study.write_study(
        tmp_path, cohort=cohort, metrics=metrics, fairness=study.make_fairness(metrics, cohort, min_group=2)
    )
    outputs = read_outputs(folder)
    gaps = outputs.disparity[outputs.disparity["attribute"] == "sex"].groupby("organ")["gap"]
    assert gaps.count().to_dict() == {"all": 12, "kidney_left": 12, "liver": 0}


def test_group_names_that_look_like_numbers_stay_names(tmp_path):
    cohort = study.make_cohort(40, sexes=("1", "2"))
    metrics = study.make_metrics(cohort)
    parameters = study.make_parameters()
    parameters["cohort"]["attributes"]["sex"] = {"categories": ["1", "2"]}
    folder = study.write_study(
        tmp_path, cohort=cohort, metrics=metrics, fairness=study.make_fairness(metrics, cohort), parameters=parameters
    )
    outputs = read_outputs(folder)
    assert set(outputs.groups.loc[outputs.groups["attribute"] == "sex", "group"]) == {"1", "2"}
    assert outputs.disparity.loc[outputs.disparity["attribute"] == "sex", "gap"].notna().all()


def test_a_damaged_table_is_told_and_the_rest_is_read(tmp_path):
    folder = study.write_whole_study(tmp_path)
    (folder / "metrics.parquet").write_bytes(b"no parquet")
    (folder / "fairness" / "groups.csv").write_text("", encoding="utf-8")
    outputs = read_outputs(folder)
    assert outputs.metrics is None and outputs.cohort is not None and outputs.groups.empty
    assert outputs.problems[0].startswith("metrics.parquet cannot be read")


def test_absent_stages_are_none(tmp_path):
    outputs = read_outputs(study.write_study(tmp_path))
    assert outputs.cohort is None and outputs.metrics is None and outputs.maps is None and outputs.inference is None
    assert outputs.included.empty and outputs.run == {}


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(SegfairError, match=r"no study\.yaml.*outputs/demo"):
        read_outputs(tmp_path)


def test_missing_ids_of_excluded_scans_do_no_harm(tmp_path):
    cohort = study.make_cohort(20)
    cohort.loc[20, ["scan", "subject"]] = None
    outputs = read_outputs(study.write_study(tmp_path, cohort=cohort))
    assert pd.isna(outputs.cohort["person"].iloc[20])
    assert "nan" not in " ".join(outputs.cohort["reason"])


def test_every_table_of_the_audit_that_names_a_small_group_loses_it(tmp_path):
    cohort = study.make_cohort(60, few="male")
    metrics = study.make_metrics(cohort)
    fairness = study.make_fairness(metrics, cohort, min_group=3)
    outputs = read_outputs(study.write_study(tmp_path, cohort=cohort, metrics=metrics, fairness=fairness))
    assert (fairness.matching["group_a"] == "male").any() or (fairness.matching["group_b"] == "male").any()
    for table in (outputs.pairs, outputs.matching):
        assert not (table[["group_a", "group_b"]] == "male").any(axis=None)
    cells = outputs.intersections[outputs.intersections["sex"] == "male"]
    assert len(cells) and cells["suppressed"].all() and cells[["mean", "pooled", "low", "high"]].isna().all(axis=None)
    assert set(cells["n"]) == {"<10"}
    by_sex = outputs.model_gaps[outputs.model_gaps["attribute"] == "sex"]
    assert len(by_sex) and by_sex[["difference", "gap_a", "n"]].isna().all(axis=None)
    assert outputs.model_gaps.loc[outputs.model_gaps["attribute"] == "bmi", "difference"].notna().any()


def test_columns_of_maps_that_belong_to_a_small_group_are_emptied():
    cohort = study.make_cohort(60, few="male")
    maps, summary = study.make_maps(cohort)
    maps = maps.assign(absolute_male=1.0, miss_male=0.5, absolute_female=1.0, p_fwer=0.01, absolute_difference=1.0)
    tables = dict.fromkeys(TABLES) | {"cohort": cohort, "maps": maps, "spatial_summary": summary}
    suppression.suppress_small(tables, ["sex"], 10, suppression.find_small_groups(cohort, 10), set())
    gone = ["error_male", "absolute_male", "miss_male", "p_fwer", "absolute_difference", "difference"]
    assert tables["maps"][gone].isna().all(axis=None)
    assert tables["maps"][["absolute_female", "error_female", "x"]].notna().all(axis=None)


def test_tables_without_verdicts_are_told(tmp_path):
    cohort, metrics, fairness = study.make_whole(60, None)
    folder = study.write_study(tmp_path, cohort=cohort, metrics=metrics, fairness=fairness)
    table = pd.read_csv(folder / "fairness" / "disparity.csv").drop(columns="verdict")
    table.to_csv(folder / "fairness" / "disparity.csv", index=False)
    assert "has no verdicts" in read_outputs(folder).problems[0]


def test_markup_is_scrubbed_and_its_tags_are_kept():
    scrub = Scrubber({"SCAN_7": 12}, ["P-1"], ["/srv/masks/a b.nii.gz"])
    page = '<style>td { a: url("x/y/z") }</style><td class="SCAN_7">P-1 &amp; SCAN_7<br>/home/anna/x.nii.gz</td> 3 < 4'
    assert scrub.clean_markup(page) == (
        '<style>td { a: url("x/y/z") }</style><td class="SCAN_7">the person &amp; scan 012<br>the file</td> 3 < 4'
    )
    assert scrub.clean("line 1\n  SCAN_7  kept\n") == "line 1\n  scan 012  kept\n"


def test_the_names_of_machine_and_user_are_scrubbed(monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "ward7-pc.example")
    monkeypatch.setattr("getpass.getuser", lambda: "annalena")
    assert (
        Scrubber()("written on WARD7-PC by annalena, ward7-pc.example")
        == "written on [machine] by [machine], [machine]"
    )
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    assert Scrubber()("the root of the tree") == "the root of the tree"


def test_slopes_rest_on_as_many_people_as_a_group_needs():
    slopes = pd.DataFrame(
        {
            "model": "m", "organ": "liver", "attribute": "age", "vertex": [0, 1], "x": 1.0, "y": 2.0, "z": 3.0,
            "step": 10.0, "unit": "years",
            "slope": [0.4, 0.5], "p_fwer": [0.01, 0.02], "n": [12, 9],
        }
    )  # fmt: skip
    shown = suppression.suppress_slopes(slopes, 10)
    assert shown["slope"].tolist()[0] == 0.4 and shown.loc[1, ["slope", "p_fwer", "n"]].isna().all()
    assert shown.loc[1, "unit"] == "years" and slopes["slope"].notna().all()


def test_people_with_scans_in_two_groups_count_once_in_that_of_their_first():
    included = pd.DataFrame(
        {
            "person": [1, 1, 2, 3, 3], "number": [2, 1, 3, 4, 5],
            "group_age": pd.Categorical(["old", "young", "old", None, "old"], ["young", "old"]),
        }
    )  # fmt: skip
    assert suppression.count_people(included, "group_age", "person") == {"young": 1, "old": 2}


@pytest.mark.parametrize("name", ["demo", "mine", "liver", "ours"])
def test_the_name_of_a_study_is_no_secret_and_changes_no_other_word(tmp_path, name):
    folder = tmp_path / name
    scrub = Scrubber(
        {}, ["anna"], [str(tmp_path / "masks" / "liver.nii.gz"), str(tmp_path / "series" / "ours")], [str(folder)]
    )
    text = "sam_demo, demographics, determined: the liver, drawn by ours_v2 and my-ours"
    assert scrub(text) == text
    assert str(tmp_path) not in scrub(f"cannot read {folder}/metrics.parquet") and "liver.nii" not in scrub(
        "liver.nii.gz is broken"
    )
    assert scrub("ours: cannot be read") == "the file: cannot be read", (
        "a folder of DICOM slices that was given as an image"
    )
    assert scrub("see spatial/liver/quality.csv") == "see spatial/liver/quality.csv"
    assert scrub("see data/liver/quality.csv") == "see the file"
