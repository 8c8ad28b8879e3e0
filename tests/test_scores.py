"""Ready-made scores: how tables are read, what their cells mean, and what is refused."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from helpers import cohort, fairness, performance
from helpers.errors import ParameterError, SegfairError
from helpers.fairness.missing import compare_missing
from helpers.figures.fairness_gaps import plot_gap_forest
from helpers.figures.panels import MANY_MODELS
from helpers.figures.verdict_matrix import draw_verdicts
from helpers.parameters import Fairness
from helpers.report import build_report
from helpers.study import load_study
from helpers.vocabulary.measures import find_measure, list_scores, use_measures

PEOPLE = "scan,sex,age\na,female,50\nb,male,60\nc,female,70\n"


@pytest.fixture
def make(tmp_path):
    """Write tables and a parameter file, and load the study."""

    def write(tables, *, people=PEOPLE, metrics=("dice",), margin=None, attributes=None, **scores):
        for name, text in tables.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / "people.csv").write_text(people, encoding="utf-8")
        organs = scores.pop("organs", None)
        section = {
            "source": "scores",
            "path": "people.csv",
            "scores": {"path": next(iter(tables)), **scores},
            "columns": {"subject": "scan"},
            "attributes": attributes or {"sex": None, "age": None},
        }
        if organs is not None:
            section["organs"] = organs
        fair = {"metrics": list(metrics), "bootstrap": 200, "min_group": 2}
        fair["margin"] = margin or {name: 0.02 for name in metrics if isinstance(name, str)}
        study = {"name": "small", "cohort": section, "fairness": fair}
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        return load_study(tmp_path / "small.yaml")

    return write


def read(study):
    """Return the scores by scan, model and organ."""
    return cohort.read_scores(study).rows.set_index(["scan", "model", "organ"]).sort_index()


def measure(study):
    """Run 01 and the reading of 03; return the rows by scan, model and organ."""
    cohort.build_cohort(study)
    return performance.measure_performance(study).set_index(["scan", "model", "organ"]).sort_index()


# How tables are read


def test_a_table_with_a_column_per_organ_is_named_after_its_metric(make):
    rows = read(make({"dsc.csv": "name,liver,spleen\na,0.9,0.8\nb,0.7,\n"}))
    assert rows["dice"].dropna().to_dict() == {
        ("a", "model", "liver"): 0.9, ("a", "model", "spleen"): 0.8, ("b", "model", "liver"): 0.7,
    }  # fmt: skip
    with pytest.raises(SegfairError, match="no column is a metric"):
        read(make({"table.csv": "name,liver,spleen\na,0.9,0.8\n"}))


def test_long_and_wide_tables_give_the_same_rows(make):
    long = make(
        {"long.csv": "Case,Method,Structure,DSC,Surface Dice\na,A 1,liver,0.9,0.8\nb,A 1,liver,0.7,0.6\n"},
        metrics=("dice", "nsd"),
    )
    expected = read(long)
    assert expected.loc[("a", "A 1", "liver")].to_dict() == {"dice": 0.9, "nsd": 0.8}
    wide = make(
        {"wide.csv": "scan,model,liver_dice,nsd liver\na,A 1,0.9,0.8\nb,A 1,0.7,0.6\n"}, metrics=("dice", "nsd")
    )
    pd.testing.assert_frame_equal(read(wide), expected)
    files = make(
        {
            "{model}/{metric}.csv": "",
            "A 1/dice_score.csv": "name,liver\na,0.9\nb,0.7\n",
            "A 1/NSD.csv": "name,liver\na,0.8\nb,0.6\n",
        },
        metrics=("dice", "nsd"),
    )
    (files.root / "{model}" / "{metric}.csv").unlink()
    pd.testing.assert_frame_equal(read(files)[["dice", "nsd"]], expected)
    tidy = make(
        {
            "tidy.csv": "scan,model,organ,metric,value\na,A 1,liver,DSC,0.9\nb,A 1,liver,DSC,0.7\n"
            "a,A 1,liver,NSD,0.8\nb,A 1,liver,NSD,0.6\n"
        },
        metrics=("dice", "nsd"),
    )
    pd.testing.assert_frame_equal(read(tidy), expected)


def test_a_table_without_model_and_organ_is_of_one_of_each(make):
    assert read(make({"s.csv": "scan,dice\na,0.9\n"})).index.tolist() == [("a", "model", "organ")]
    assert read(make({"s.csv": "scan,dice\na,0.9\n"}, organs=["liver"])).index.tolist() == [("a", "model", "liver")]


def test_columns_of_people_and_means_are_no_organs(make):
    study = make({"{metric}.csv": "", "dice.csv": "subject,name,age,mean,liver\na,x,50,0.5,0.9\n"})
    (study.root / "{metric}.csv").unlink()
    assert read(study).index.tolist() == [("a", "model", "liver")]
    assert "mean" in cohort.read_scores(study).notes[0]


def test_models_and_organs_are_renamed_and_kept(make):
    table = "scan,model,organ,dice\na,m1,li,0.9\na,m1,sp,0.8\na,m2,li,0.7\n"
    values = {"model": {"m1": "One"}, "organ": {"li": "liver"}}
    study = make({"s.csv": table}, values=values, models=["One"], organs=["liver"])
    assert read(study).index.tolist() == [("a", "One", "liver")]
    with pytest.raises(
        SegfairError, match=r"cohort\.scores\.models names Two, which no table of scores has; they have m1"
    ):
        read(make({"s.csv": table}, models=["Two"]))


def test_runs_are_averaged_and_said(make):
    study = make({"s.csv": "scan,seed,dice\na,1,0.8\na,2,0.6\nb,1,0.5\n"})
    assert read(study)["dice"].tolist() == pytest.approx([0.7, 0.5])
    assert cohort.read_scores(study).notes == ["scores are means over 2 runs; 1 score rests on fewer"]


def test_scans_are_joined_by_key_and_the_rest_is_told(make):
    study = make({"s.csv": "scan,dice\na.nii.gz,0.9\nb,0.8\nz,0.1\n"})
    found = cohort.build_cohort(study)
    assert found.table.set_index("scan")["included"].to_dict() == {"a": True, "b": True, "c": False}
    assert found.exclusions["reason"].tolist() == ["no model has a score for this scan"]
    assert found.notes[0] == "1 scan of the scores (z) is not in the table of people: no part in the study"
    with pytest.raises(SegfairError, match=r"no scan of the scores \(x\) is in the table of people \(a, b, c\)"):
        cohort.build_cohort(make({"s.csv": "scan,dice\nx,0.9\n"}))


# What is refused


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("scan,dice\na,93\nb,88\n", r"dice 93 \(scan 'a'.*outside 0 to 1, in 2 of 2.*cohort.scores.percent: \[dice\]"),
        ("scan,dice\na,-1\nb,0.8\n", r"dice -1 .*outside 0 to 1, in 1 of 2 scores: correct them"),
        (
            "scan,dice\na,0.9\na,0.8\n",
            r"two rows for scan 'a', model 'model', organ 'organ': keep one, or",
        ),
        ("scan,dice\na,good\n", r"'good' for dice \(scan 'a', .*not a number"),
        ("scan,dice,model\na,0.9,A\nb,0.8,\n", "1 scores without a model"),
        ("dice\n0.9\n", "no column names the scan; it has dice"),
        ("scan,colour\na,red\n", "no column is a metric; it has scan, colour"),
        ("scan,iou\na,0.9\n", r"hold no dice: list what they hold under fairness.metrics \(iou\)"),
    ],
)
def test_tables_that_would_end_in_a_wrong_number_are_refused(make, table, said):
    study = make({"s.csv": table})
    with pytest.raises(SegfairError, match=said) as caught:
        read(study)
    assert "again" not in str(caught.value)
    assert any(re.search(said, problem) for problem in cohort.check_cohort(study).problems)


def test_percent_is_converted_by_declaration(make):
    assert read(make({"s.csv": "scan,DSC\na,93\nb,88\n"}, percent=["DSC"]))["dice"].tolist() == [0.93, 0.88]


def test_stages_of_masks_have_nothing_to_do(make):
    study = make({"s.csv": "scan,dice\na,0.9\n"})
    assert study.say_idle("02_inference") == (
        "02_inference has nothing to do: study 'small' has ready-made scores, no masks"
    )
    assert study.say_idle("04_spatial") and not study.say_idle("03_performance")


def test_parameters_say_what_fits_scores(make, tmp_path):
    study = make({"s.csv": "scan,dice\na,0.9\n"})
    given = yaml.safe_load(study.source.read_text(encoding="utf-8"))
    for change, said in (
        ({"models": [{"name": "a", "kind": "precomputed"}]}, "`models` has no use with ready-made scores"),
        ({"cohort": given["cohort"] | {"organs": {"liver": {"labels": [1]}}}}, "organs.liver: scores have no labels"),
        ({"cohort": given["cohort"] | {"source": "table"}}, "`scores` has no use when source is 'table'"),
    ):
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(given | change), encoding="utf-8")
        with pytest.raises(ParameterError, match=said):
            load_study(tmp_path / "wrong.yaml")


# What an empty cell and a 0 mean

CELLS = (
    "scan,model,organ,dice\n"
    # a: liver in every model; the spleen's 0 stands against two models that leave it empty.
    "a,A,liver,0.9\na,B,liver,0.9\na,C,liver,\n"
    "a,A,spleen,0\na,B,spleen,\na,C,spleen,\n"
    # b: A missed the spleen, which B found; C has no row of the scan.
    "b,A,liver,0.9\nb,B,liver,0.8\nb,A,spleen,0\nb,B,spleen,0.7\n"
    "c,A,liver,0.9\nc,B,liver,0.9\nc,C,liver,0.9\nc,A,spleen,0.5\nc,B,spleen,0.5\nc,C,spleen,0.5\n"
)


def test_a_zero_a_missing_score_and_an_absent_organ_are_told_apart(make):
    found = measure(make({"s.csv": CELLS}))
    expected = {
        ("a", "A", "liver"): "ok",
        ("a", "C", "liver"): "score_missing",
        ("a", "A", "spleen"): "zero_unconfirmed",
        ("a", "B", "spleen"): "not_scored",
        ("a", "C", "spleen"): "not_scored",
        ("b", "A", "spleen"): "scored_zero",
        ("b", "C", "spleen"): "score_missing",
        ("b", "C", "liver"): "score_missing",
    }
    assert {key: found.loc[key, "status"] for key in expected} == expected
    assert np.isnan(found.loc[("a", "A", "spleen"), "dice"]) and found.loc[("b", "A", "spleen"), "dice"] == 0


def test_empty_zero_makes_listed_empty_cells_misses(make):
    found = measure(make({"s.csv": CELLS}, empty="zero"))
    assert found.loc[("a", "C", "liver"), ["status", "dice"]].tolist() == ["empty_as_zero", 0.0]
    assert found.loc[("a", "A", "spleen"), ["status", "dice"]].tolist() == ["scored_zero", 0.0]
    assert found.loc[("b", "C", "liver"), "status"] == "score_missing"  # no row of the scan at all


def test_one_model_alone_keeps_its_zeros(make):
    found = measure(make({"s.csv": "scan,liver_dice,spleen_dice\na,0.9,0\nb,0.9,\n"}))
    assert found["status"].tolist() == ["ok", "scored_zero", "ok", "not_scored"]


def test_sizes_bring_the_size_free_error(make):
    study = make(
        {
            "s.csv": "scan,model,liver_dice\na,A,0.9\nb,A,0.8\n",
            "sizes.csv": "scan,organ,volume_ref_ml,surface_ref_cm2\na,liver,1500,700\nb,liver,1200,650\n",
        },
        metrics=("dice", "boundary_error_mm"),
        margin={"dice": 0.02, "boundary_error_mm": 0.5},
    )
    text = study.source.read_text(encoding="utf-8").replace("path: s.csv", "path: [s.csv, sizes.csv]")
    study.source.write_text(text, encoding="utf-8")
    found = measure(load_study(study.source))
    # 2V(1 − Dice)/S in cm, as mm
    expected = [2 * 1500 * 0.1 / 700 * 10, 2 * 1200 * 0.2 / 650 * 10]
    assert found["boundary_error_mm"].tolist() == pytest.approx(expected)
    mean = np.mean(expected)
    assert found["dice_expected"].tolist() == pytest.approx(
        [1 - mean * 700 / (2 * 1500) / 10, 1 - mean * 650 / (2 * 1200) / 10]
    )


# Who lacks scores


def test_missing_scores_are_counted_and_tested_per_group():
    people = pd.DataFrame(
        {
            "subject": [f"p{place}" for place in range(200)],
            "scan": [f"p{place}" for place in range(200)],
            "number": range(200),
            "group_cancer": pd.Categorical(["yes"] * 100 + ["no"] * 100, ["no", "yes"], ordered=True),
        }
    )
    lacking = [place % 100 < (61 if place < 100 else 31) for place in range(200)]
    metrics = pd.DataFrame({"subject": people["subject"], "scan": people["scan"], "model": "A", "organ": "liver"})
    metrics["status"] = np.where(lacking, "score_missing", "ok")
    found = compare_missing(metrics, people, Fairness(), ["cancer"]).set_index("group")
    assert found["missing"].to_dict() == {"no": 31, "yes": 61}
    assert found["p"].iloc[0] == pytest.approx(stats.fisher_exact([[61, 39], [31, 69]]).pvalue)
    # An organ that cannot be scored is nobody's lack.
    metrics["status"] = np.where(lacking, "not_scored", "ok")
    assert compare_missing(metrics, people, Fairness(), ["cancer"]).empty


# A study from end to end, and metrics of its own


def simulate(rng, *, extra=""):
    """Return tables of 60 people and their scores: women worse by 0.1, half missing in B."""
    sex = np.array(["female", "male"] * 30)
    people = pd.DataFrame({"scan": [f"p{i:02d}" for i in range(60)], "sex": sex, "age": rng.integers(20, 90, 60)})
    rows = []
    for model in ("net one", "B"):
        for organ in ("liver", "spleen"):
            dice = 0.85 - 0.1 * (sex == "female") + rng.normal(0, 0.02, 60)
            missing = (model == "B") & (sex == "female") & (np.arange(60) % 4 == 0)
            table = people[["scan"]].assign(model=model, organ=organ, dice=np.where(missing, np.nan, dice))
            rows.append(table.assign(cldice=100 * dice) if extra else table)
    return people.to_csv(index=False), pd.concat(rows).to_csv(index=False)


def test_a_study_of_scores_reaches_a_report_that_says_what_scores_cannot_tell(make, rng):
    people, scores = simulate(rng)
    study = make({"s.csv": scores}, people=people)
    from helpers import provenance

    provenance.write_snapshot(study)
    measure(study)
    audit = performance.write_audit(study)
    found = audit.disparity.set_index(["model", "organ", "attribute"]).loc[("net one", "liver", "sex")]
    table = pd.read_csv(study.root / "s.csv").merge(pd.read_csv(study.root / "people.csv"))
    here = table[(table["model"] == "net one") & (table["organ"] == "liver")]
    means = here.groupby("sex")["dice"].mean()
    assert found["gap"] == pytest.approx(means["male"] - means["female"])
    sexes = [here.loc[here["sex"] == sex, "dice"] for sex in ("male", "female")]
    welch = stats.ttest_ind(*sexes, equal_var=False).pvalue
    assert welch <= found["p"] < 0.01, "beyond the permutations never surer than Welch's test"
    assert "expected_gap" not in audit.disparity and "boundary_error_mm" not in study.read("metrics")
    page = build_report(study.folder).read_text(encoding="utf-8")
    for said in (
        "net one and B are known by ready-made scores alone.",
        "Where in an organ a model errs, how far outlines are off in mm and whether organ size explains a gap in Dice",
        "B lacks 30 of 120 scores, in 15 scans: missing from its results, not counted as zero.",
        "a score of some organ is missing for 15 of 30 women (50 %), and for 0 of 30 men (0 %",
        "Ready-made scores were audited with segfair",
    ):
        assert said in page, said
    for untrue in ("02_inference", "04_spatial", "Masks were compared", "Boundary error", "None of these was mapped"):
        assert untrue not in page, untrue


def test_a_declared_metric_works_wherever_one_of_ours_does(make, rng):
    people, scores = simulate(rng, extra="cldice")
    declared = {
        "name": "cldice",
        "title": "clDice",
        "higher_is_better": True,
        "range": [0, 100],
        "unit": "%",
        "margin": 2,
    }
    study = make({"s.csv": scores}, people=people, metrics=("dice", declared), margin={"dice": 0.02})
    from helpers import provenance

    provenance.write_snapshot(study)
    assert study.parameters.fairness.metrics == ["dice", "cldice"] and study.parameters.fairness.margin["cldice"] == 2
    measure(study)
    disparity = performance.write_audit(study).disparity
    row = disparity[(disparity["metric"] == "cldice") & (disparity["attribute"] == "sex")].iloc[0]
    assert row["verdict"] == "disparity" and row["margin"] == 2 and row["worst_group"] == "female"
    page = build_report(study.folder).read_text(encoding="utf-8")
    assert "clDice (%, higher is better)" in page and "2.00 % for clDice" in page


def test_declared_metrics_do_not_leak_between_studies(make):
    one = Fairness(metrics=[{"name": "cldice", "higher_is_better": True, "range": [0, 1], "margin": 0.02}])
    other = Fairness(metrics=[{"name": "cldice", "higher_is_better": False, "unit": "mm", "margin": 2}])
    with use_measures(one.measures):
        assert find_measure("cldice").higher_is_better and "cldice" in list_scores()
        with use_measures(other.measures):
            assert find_measure("cldice").worse == "higher" and find_measure("cldice").unit == "mm"
        assert find_measure("cldice").bounds == (0.0, 1.0)
    assert "cldice" not in list_scores()
    with pytest.raises(SegfairError, match="metrics must be among"):
        find_measure("cldice")
    with pytest.raises(ValueError, match="is a name of segfair's own"):
        Fairness(metrics=[{"name": "dice", "higher_is_better": True, "margin": 1}])


# Touchstone: 19 public models, 743 scans, 9 organs


@pytest.fixture(scope="module")
def touchstone(tmp_path_factory, repository):
    study = load_study(
        repository / "params" / "touchstone.yaml",
        {
            "outputs": str(tmp_path_factory.mktemp("touchstone")),
            "fairness.bootstrap": 100,
            "fairness.permutations": 100,
        },
    )
    if not study.find_score_files(study.parameters.cohort.scores.path[0]):
        pytest.skip("the Touchstone benchmark's scores are not at hand: set SEGFAIR_DATA to their folder")
    cohort.build_cohort(study)
    performance.measure_performance(study)
    return study


def test_touchstone_has_the_benchmarks_numbers(touchstone):
    """Every number from the benchmark's own files by plain pandas and scipy."""
    folder = touchstone.resolve("${SEGFAIR_DATA}/touchstone_totalsegmentator")
    people = pd.read_csv(folder / "metaTotalSeg.csv", sep=";", encoding="utf-8-sig").set_index("image_id")
    files = {path.parent.name: pd.read_csv(path, index_col="name") for path in sorted(folder.glob("*/dsc.csv"))}
    assert len(files) == 19
    any_score = pd.concat([table.notna().any(axis=1) for table in files.values()]).groupby(level=0).any()
    included = touchstone.read_included()
    assert set(included["scan"]) == set(any_score[any_score].index) and len(included) == 616
    metrics = touchstone.read("metrics")
    own = metrics[(metrics["model"] == "UNETR") & (metrics["organ"] == "kidney_left")].set_index("scan")["dice"]
    theirs = files["MONAI_UNETR"]["kidney_left"]
    np.testing.assert_array_equal(own, theirs.reindex(own.index))
    settings = touchstone.parameters.fairness.model_copy(update={"metrics": ["dice"]})
    part = metrics[metrics["organ"].isin(["kidney_left"]) & metrics["model"].isin(["UNETR", "STU-Net H"])]
    found = fairness.run_audit(part, included, settings, ["sex", "age"], 1).disparity.set_index(["model", "attribute"])
    for model, table in (("UNETR", files["MONAI_UNETR"]), ("STU-Net H", files["nnU-Net_STU-Net_H"])):
        score = table["kidney_left"].dropna()
        sexes = [score[people["gender"].reindex(score.index) == sex] for sex in ("m", "f")]
        means = [sex.mean() for sex in sexes]
        assert found.loc[(model, "sex"), "gap"] == pytest.approx(abs(means[0] - means[1]))
        p = stats.permutation_test(
            sexes,
            lambda one, other, axis: stats.ttest_ind(one, other, equal_var=False, axis=axis).statistic,
            permutation_type="independent",
            n_resamples=999,
            axis=0,
            rng=1,
            vectorized=True,
        ).pvalue
        assert found.loc[(model, "sex"), "p"] == pytest.approx(p, abs=0.16)  # of 100 permutations
        ages = pd.cut(people["age"].reindex(score.index), [0, 50, 65, 80, 121], right=False)
        groups = [score[ages == age] for age in ages.cat.categories]
        assert found.loc[(model, "age"), "gap"] == pytest.approx(np.ptp([group.mean() for group in groups]))


def test_touchstone_names_the_models_that_lack_scans(touchstone):
    metrics = touchstone.read("metrics")
    lacking = metrics[metrics["status"] == "score_missing"].groupby("model")["scan"].nunique()
    assert lacking.to_dict() == {"STU-Net H": 87, "STU-Net L": 87}
    assert set(metrics["status"]) == {"ok", "scored_zero", "score_missing", "not_scored"}


# From two tables to a parameter file


def test_audit_writes_a_parameter_file_that_runs(tmp_path, rng, monkeypatch):
    people, scores = simulate(rng)
    (tmp_path / "scores.csv").write_text(scores, encoding="utf-8")
    table = pd.read_csv(io.StringIO(people)).rename(columns={"sex": "Gender", "age": "years"})
    table["Gender"] = table["Gender"].map({"female": "F", "male": "m"})
    table.assign(site=["A", "B", "B"] * 20).to_csv(tmp_path / "people.csv", index=False)
    path = cohort.write_audit_file(
        str(tmp_path / "scores.csv"), tmp_path / "people.csv", ["sex", "years", "site"], folder=tmp_path
    )
    study = load_study(path)
    assert study.parameters.cohort.attributes["site"].categories == ["B", "A"]
    assert len(study.parameters.cohort.attributes["years"].bins) == 4
    assert study.parameters.fairness.metrics == ["dice"]
    found = cohort.build_cohort(study).table
    assert found["group_sex"].value_counts().to_dict() == {"female": 30, "male": 30}
    assert found["group_years"].value_counts().min() >= 15 and found["group_years"].notna().all()
    # A file that was edited is not overwritten.
    again = {"scores": str(tmp_path / "scores.csv"), "people": tmp_path / "people.csv", "folder": tmp_path}
    assert cohort.write_audit_file(attributes=["sex", "years", "site"], **again) == path
    with pytest.raises(SegfairError, match=r"scores\.yaml is there already and says something else"):
        cohort.write_audit_file(attributes=["sex"], **again)


def test_audit_refuses_what_it_would_have_to_guess(tmp_path):
    (tmp_path / "people.csv").write_text("scan,sex\na,F\n", encoding="utf-8")
    with pytest.raises(SegfairError, match="is a folder: write which part of its paths is what"):
        cohort.write_audit_file(str(tmp_path), tmp_path / "people.csv", ["sex"], folder=tmp_path)
    (tmp_path / "s.csv").write_text("scan,dice\na,0.9\n", encoding="utf-8")
    with pytest.raises(SegfairError, match="has no column 'height'; it has scan, sex"):
        cohort.write_audit_file(str(tmp_path / "s.csv"), tmp_path / "people.csv", ["height"], folder=tmp_path)


# Many models


def test_many_models_stay_one_screen():
    keys = [(f"net {place}", organ) for place in range(MANY_MODELS + 1) for organ in ("liver", "spleen")]
    gaps = pd.DataFrame(keys, columns=["model", "organ"]).assign(metric="dice", attribute="sex", n=60, margin=0.02)
    gaps = gaps.assign(
        gap=0.05, gap_low=0.03, gap_high=0.07, best_group="male", worst_group="female", verdict="disparity"
    )
    gaps = gaps.assign(p=np.linspace(0.001, 0.01, len(gaps)), p_adjusted=0.01, detectable=0.02, note="")
    page = draw_verdicts(gaps, "dice", alpha=0.05).html
    assert page.count('class="scroll overview"') == 1 and page.count("▲ 0.050") == len(gaps)
    twice = pd.concat([gaps, gaps.assign(attribute="age")])
    summed = draw_verdicts(twice, "dice", alpha=0.05).html
    assert summed[: summed.index("<details>")].count("▲ 2 of 2") == 2 * (MANY_MODELS + 1)
    figure = plot_gap_forest(pd.concat([gaps.assign(attribute=name) for name in ("sex", "age", "site")]), "dice")
    assert len(figure.data[0].x) == 30  # the surest alone
    assert "the surest 30 of 42 comparisons" in figure.layout.annotations[0].text
    unmeasured = plot_gap_forest(gaps, "boundary_error_mm")
    assert "This study did not measure it." in unmeasured.to_json()
