"""Two studies of the same people: gaps before and after."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from typer.testing import CliRunner

from helpers import cli, fairness, performance, storage
from helpers.cohort import build_cohort
from helpers.errors import SegfairError
from helpers.parameters import Fairness
from helpers.study import load_study
from tests.test_fairness_groups import make_cohort, make_metrics

SETTINGS = Fairness(metrics=["dice"], min_group=5, bootstrap=400, permutations=500)
SEXES = ["female", "male"] * 40


def make_scores(loss=0.0, seed=0, people=80):
    """Return Dice of people, the women's lower by `loss`."""
    rng = np.random.default_rng(seed)
    return np.clip(0.85 + rng.normal(0, 0.02, people) - loss * (np.array(SEXES[:people]) == "female"), 0, 1)


def compare(before, after, cohort=None, pairs=(("m", "m"),)):
    tables = [
        (make_metrics(make_cohort(sex=SEXES), liver=list(one)), make_cohort(sex=SEXES)) for one in (before, after)
    ]
    if cohort is not None:
        tables[1] = (tables[1][0], cohort)
    return fairness.compare_studies(*tables, list(pairs), SETTINGS, ["sex"], 3)


def test_a_planted_loss_is_a_new_disparity_and_its_gain_a_gone_one():
    """The interval of the change is that of the people's own differences, as Welch's t has it."""
    before, after = make_scores(), make_scores(0.05)
    after += np.random.default_rng(1).normal(0, 0.005, 80)
    found = compare(before, after)
    [row] = found.gaps.to_dict("records")
    assert (row["change"], row["worst_group_after"], row["n"]) == ("new", "female", 80)
    assert row["verdict_after"] == "disparity" and row["verdict_before"] != "disparity"
    change = after - before
    expected = stats.ttest_ind(change[1::2], change[::2], equal_var=False).confidence_interval()
    sign = 1 if row["worst_group_before"] == "female" else np.nan  # else the gaps are of other directions
    assert row["low"] * sign == pytest.approx(expected.low, abs=0.001)
    assert row["high"] * sign == pytest.approx(expected.high, abs=0.001)
    women = found.groups.set_index("group").loc["female"]
    assert women["change"] == pytest.approx(change[::2].mean())
    assert women["low"] < -0.045 and women["high"] > -0.055 and women["high"] - women["low"] < 0.01
    back = compare(after, before)
    assert list(back.gaps["change"]) == ["gone"]
    assert back.gaps["difference"][0] == pytest.approx(-row["difference"])


def test_the_same_scores_twice_change_nothing():
    found = compare(make_scores(0.03), make_scores(0.03))
    [row] = found.gaps.to_dict("records")
    assert (row["change"], row["difference"], row["p_adjusted"]) == ("", 0.0, 1.0)
    assert found.notes == []


def test_only_what_both_studies_have_is_compared_and_the_rest_is_told():
    before, after = make_scores(), make_scores(seed=1)
    after[:4] = np.nan
    changed = make_cohort(sex=SEXES)
    changed.loc[[10, 11], "group_sex"] = ["male", "female"]
    found = compare(before, after, changed.iloc[:-6])
    assert found.gaps["n"].tolist() == [80 - 4 - 2 - 6]
    assert found.notes == [
        "74 scans are in both studies; left out: 6 only before, 0 only after",
        "2 scans are in another sex group after: they are left out there",
        "4 scores that only the study before has are left out",
    ]
    with pytest.raises(SegfairError, match="no scan in common"):
        compare(before, after, make_cohort(sex=SEXES).assign(scan="other"))
    others = make_cohort(sex=["f", "m"] * 40)
    with pytest.raises(SegfairError, match=r"no group of sex in common \(female, male; f, m\)"):
        compare(before, after, others)


@pytest.fixture
def studies(tmp_path):
    """Write two studies of ready-made scores, run until their scores are read; their files."""

    def write(name, scores, model="m"):
        people = pd.DataFrame({"scan": [f"p{place:02d}" for place in range(80)], "sex": SEXES})
        people.to_csv(tmp_path / "people.csv", index=False)
        people.assign(model=model, organ="liver", dice=scores).drop(columns="sex").to_csv(
            tmp_path / f"{name}.csv", index=False
        )
        study = {
            "name": name,
            "outputs": str(tmp_path / "outputs"),
            "cohort": {
                "source": "scores",
                "path": "people.csv",
                "columns": {"subject": "scan"},
                "scores": {"path": f"{name}.csv"},
                "attributes": {"sex": None},
            },
            "fairness": {"metrics": ["dice"], "bootstrap": 200, "permutations": 500},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        study = load_study(tmp_path / f"{name}.yaml")
        build_cohort(study)
        storage.write_text(study.source.read_text(encoding="utf-8"), study.folder / "study.yaml")
        performance.measure_performance(study)
        return study

    return write


def test_the_command_says_what_changed_and_ends_with_4_where_a_disparity_is_new(studies):
    before, after = studies("v1", make_scores()), studies("v2", make_scores(0.06))
    said = CliRunner().invoke(cli.app, ["compare", str(before.source), str(after.folder)])
    assert said.exit_code == 4, said.output
    assert said.output.startswith("new disparity: m, liver, Dice, sex: from 0.0"), said.output
    assert "worst off: female" in said.output and "compared_with_v1" in said.output
    table = pd.read_csv(after.folder / "compared_with_v1" / "gaps.csv")
    assert table["change"].tolist() == ["new"]
    calm = CliRunner().invoke(cli.app, ["compare", str(after.source), str(before.source)])
    same = CliRunner().invoke(cli.app, ["compare", str(after.source), str(after.source)])
    assert same.exit_code == 0 and same.output.startswith("1 of 1 gaps: no change found"), same.output
    assert calm.exit_code == 0 and calm.output.startswith("disparity gone: "), calm.output


def test_models_of_other_names_are_paired_or_asked_for(studies):
    before, after = studies("v1", make_scores(), "old"), studies("v2", make_scores(seed=2), "new")
    found, _, _ = performance.compare_folders(before.folder, after.folder)
    assert found.gaps[["model_before", "model_after"]].to_numpy().tolist() == [["old", "new"]]
    with pytest.raises(SegfairError, match="--pair new=old: write old=new, with old one of old and new one of new"):
        performance.compare_folders(before.folder, after.folder, ["new=old"])
    several = studies("v3", make_scores(), "b")
    table = pd.read_csv(several.root / "v3.csv")
    pd.concat([table, table.assign(model="c")]).to_csv(several.root / "v3.csv", index=False)
    build_cohort(several)
    performance.measure_performance(several)
    with pytest.raises(SegfairError, match=r"the studies have no model of one name \(old; b, c\): give --pair old=new"):
        performance.compare_folders(before.folder, several.folder)
    text = after.source.read_text(encoding="utf-8").replace("sex: null", "site: {categories: [a, b]}")
    storage.write_text(text, after.folder / "study.yaml")
    with pytest.raises(SegfairError, match="have no attribute in common: name it alike in both"):
        performance.compare_folders(before.folder, after.folder)
    with pytest.raises(SegfairError, match="is not the output folder of a study"):
        performance.compare_folders(before.folder.parent, after.folder)
