"""Few masks, many scans: prediction-powered means and gaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from scipy import stats

from helpers import cohort, fairness, inference, performance, provenance, volumes
from helpers.errors import SegfairError
from helpers.parameters import Fairness
from helpers.performance.proxies import choose_partners, measure_proxies
from helpers.report import build_report
from helpers.statistics.prediction_powered import PoweredMeans
from helpers.study import load_study

SETTINGS = Fairness(metrics=["dice"], min_group=10, bootstrap=400)


def draw(masks=20, others=180, columns=1, noise=0.01, gap=0.03, seed=0, bias=0.0):
    """Return scores of all, of the masked alone, proxies and codes of two groups."""
    rng = np.random.default_rng(seed)
    codes = np.repeat([0, 1], masks + others)
    scores = 0.85 - gap * (codes == 1)[:, None] + rng.normal(0, 0.04, (len(codes), columns))
    proxy = scores + bias * (codes == 1)[:, None] + rng.normal(0, noise, scores.shape)
    masked = np.tile(np.arange(masks + others) < masks, 2)
    return scores, np.where(masked[:, None], scores, np.nan), proxy, codes


def test_the_mean_is_the_regression_estimator_of_survey_sampling():
    """ȳ + b (f̄ of all − f̄ of the masked) with one slope: Cochran 1977, section 7.3."""
    _, measured, proxy, codes = draw(columns=3)
    found = PoweredMeans(measured, proxy, codes, 2)
    known = np.isfinite(measured[:, 0])
    for column in range(3):
        y, f = measured[:, column], proxy[:, column]
        mine = [known & (codes == g) for g in (0, 1)]
        residuals = [(y[part] - y[part].mean(), f[part] - f[part].mean()) for part in mine]
        slope = sum((a * b).sum() for a, b in residuals) / sum((b * b).sum() for _, b in residuals)
        assert found.slope[column] == pytest.approx(slope)
        for g in (0, 1):
            expected = y[mine[g]].mean() + slope * (f[codes == g].mean() - f[mine[g]].mean())
            assert found.means[g, column] == pytest.approx(expected)
    assert found.measured.tolist() == [[20] * 3] * 2 and found.people.tolist() == [[200] * 3] * 2


def test_a_proxy_of_everybody_masked_changes_nothing_and_none_is_none():
    scores, _, proxy, codes = draw(others=0, masks=30)
    found = PoweredMeans(scores, proxy, codes, 2)
    assert found.means[:, 0] == pytest.approx([scores[:30].mean(), scores[30:].mean()])
    constant = PoweredMeans(scores, np.full_like(proxy, 0.5), codes, 2)
    assert constant.slope[0] == 0 and constant.means[:, 0] == pytest.approx(found.means[:, 0])
    with pytest.raises(SegfairError, match="of the same subjects and columns"):
        PoweredMeans(scores, proxy[:-1], codes, 2)


@pytest.mark.parametrize(("noise", "bias"), [(0.01, 0.0), (10.0, 0.0), (0.01, -0.1)], ids=["good", "useless", "biased"])
def test_intervals_hold_the_truth_whatever_the_proxy(noise, bias):
    """400 cohorts as 400 columns: 95 %, give or take what 400 cohorts can tell."""
    _, measured, proxy, codes = draw(columns=400, noise=noise, bias=bias)
    found = PoweredMeans(measured, proxy, codes, 2)
    resamples = found.resample(300, 1, "sex")
    drawn = found.draw_means(resamples)
    places = np.zeros(400, int)
    gaps, interval = found.find_gaps(drawn, places, places + 1, np.ones(400), resamples)
    assert abs(gaps.mean() - 0.03) < 0.002
    held = np.mean((interval.low <= 0.03) & (interval.high >= 0.03))
    assert 0.92 <= held <= 0.975
    low, high = found.find_intervals(drawn, resamples)
    assert 0.92 <= np.mean((low[0] <= 0.85) & (high[0] >= 0.85)) <= 0.975
    plain = 2 * 0.04 * np.sqrt(2 / 20) * stats.t.ppf(0.975, 38)
    saved = np.median(interval.high - interval.low) / plain
    assert saved < 0.6 if noise < 1 else 0.9 < saved < 1.15
    worth = np.median(found.worth)
    assert worth > 60 if noise < 1 else 17 < worth < 23


def make_tables(masked=None, gap=0.05, seed=0, **world):
    scores, measured, proxy, codes = draw(masks=25, others=175, gap=gap, seed=seed, **world)
    if masked is not None:
        measured = np.where(masked(scores, codes)[:, None], scores, np.nan)
    names = [f"p{place:03d}" for place in range(len(codes))]
    people = pd.DataFrame({"subject": names, "scan": names, "number": np.arange(len(names)) + 1})
    people["group_sex"] = pd.Categorical(np.where(codes == 0, "male", "female"), ["female", "male"])
    rows = people[["subject", "scan", "number"]].assign(
        model="m", organ="liver", dice=measured[:, 0], dice_proxy=proxy[:, 0]
    )
    return rows, people, scores[:, 0]


def test_a_planted_gap_is_found_with_masks_of_few():
    """25 masks a group show nothing of 0.02 by themselves; with 175 proxies they do."""
    metrics, people, scores = make_tables(gap=0.02, seed=3)
    found = fairness.compare_few_masks(metrics, people, SETTINGS, ["sex"], 1)
    [row] = found.gaps.to_dict("records")
    truth = scores[:200].mean() - scores[200:].mean()
    assert (row["people"], row["masks"], row["worst_group"]) == (400, 50, "female")
    assert row["gap_low"] < truth < row["gap_high"] and row["p"] < 0.01
    assert row["gap_masked_low"] < 0 < row["gap_masked_high"]
    assert row["gap_high"] - row["gap_low"] < 0.6 * (row["gap_masked_high"] - row["gap_masked_low"])
    assert row["worth"] > 150 and row["correlation"] > 0.9
    means = found.means.set_index("group")
    assert means.loc["male", ["people", "masks"]].tolist() == [200, 25]
    assert means.loc["male", "ci_low"] < scores[:200].mean() < means.loc["male", "ci_high"]
    assert (found.randomness["p_adjusted"] > 0.05).all() and row["note"] == ""
    # Its resamples take people for independent.
    [row] = fairness.compare_few_masks(metrics, people, SETTINGS, ["sex"], 1, clustered=True).gaps.to_dict("records")
    assert row["verdict"] == "" and np.isnan(row["p"]) and np.isnan(row["p_adjusted"])
    assert row["note"] == "intervals take people for independent, who come in clusters: no verdict"


def test_masks_of_the_easy_cases_are_no_random_part_and_bring_no_verdict():
    metrics, people, _ = make_tables(masked=lambda scores, codes: (scores[:, 0] > 0.87) | (np.arange(400) % 40 == 0))
    found = fairness.compare_few_masks(metrics, people, SETTINGS, ["sex"], 1)
    assert (found.randomness["p_adjusted"] < 0.001).any()
    [row] = found.gaps.to_dict("records")
    assert row["verdict"] == "" and "no random part" in row["note"]


def test_groups_with_too_few_masks_have_no_numbers():
    metrics, people, _ = make_tables()
    metrics.loc[metrics.index[5:25], "dice"] = np.nan  # five men are left with a mask
    found = fairness.compare_few_masks(metrics, people, SETTINGS, ["sex"], 1)
    assert found.gaps.empty
    men = found.means.set_index("group").loc["male"]
    assert men["suppressed"] and np.isnan(men["mean"])


def test_scores_with_a_proxy_are_audited_where_the_study_says_that_masks_are_random(tmp_path):
    metrics, people, _ = make_tables(gap=0.04)
    metrics.drop(columns=["subject", "number"]).to_csv(tmp_path / "scores.csv", index=False)
    people.rename(columns={"group_sex": "sex"}).drop(columns="subject").to_csv(tmp_path / "people.csv", index=False)
    section = {
        "source": "scores",
        "path": "people.csv",
        "columns": {"subject": "scan"},
        "scores": {"path": "scores.csv"},
        "attributes": {"sex": None},
    }
    fair = {"metrics": ["dice"], "bootstrap": 200, "permutations": 200}

    def run(**more):
        study = {"name": "few", "outputs": str(tmp_path / "outputs"), "cohort": section | more, "fairness": fair}
        (tmp_path / "few.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        loaded = load_study(tmp_path / "few.yaml")
        cohort.build_cohort(loaded)
        performance.measure_performance(loaded)
        return loaded, performance.write_audit(loaded)

    study, found = run(masked="random")
    statuses = study.read("statuses").set_index("status")["scans"]
    assert statuses.to_dict() == {"ok": 50, "no_reference": 350}
    gaps = study.read("few_masks_gaps")
    assert gaps["masks"].tolist() == [50] and gaps["people"].tolist() == [400]
    assert not any("masked: random" in note for note in found.notes)
    provenance.write_snapshot(study)
    page = build_report(study.folder).read_text(encoding="utf-8")
    assert "50 of 400 people have an expert’s mask" in page and "What the proxies add to the masks" in page
    study, found = run()
    assert any("masked: random" in note for note in found.notes)
    assert not study.path("few_masks").exists()


@pytest.fixture
def masks(tmp_path):
    """Sixty CTs, each with masks of two models; every third has an expert's mask too.

    The model draws fewer slices of a woman's liver than of a man's; the other model sees the truth.
    """
    rng = np.random.default_rng(5)
    rows = []
    for kind in ("ct", "expert", "net", "second"):
        (tmp_path / kind).mkdir()
    for place in range(60):
        sex, lost = ("female", "male")[place % 2], int(rng.integers(1, 4)) + 3 * (place % 2 == 0)
        truth = np.zeros((24, 8, 8), np.uint8)
        truth[2:22, 2:6, 2:6] = 1
        net, second = truth.copy(), truth.copy()
        net[22 - lost : 22] = 0
        second[2 : 2 + int(rng.integers(0, 2))] = 0
        drawn = {"ct": truth.astype(np.int16) * 50 - 1000 * (truth == 0), "net": net, "second": second}
        if place % 3 == 0:
            drawn["expert"] = truth
        for kind, voxels in drawn.items():
            image = sitk.GetImageFromArray(voxels.astype(np.int16))
            sitk.WriteImage(image, str(tmp_path / kind / f"p{place:02d}.nii.gz"))
        reference = f"expert/p{place:02d}.nii.gz" if place % 3 == 0 else ""
        rows.append(f"p{place:02d},{sex},CT,ct/p{place:02d}.nii.gz,{reference}")
    (tmp_path / "people.csv").write_text("\n".join(["subject,sex,modality,image,reference", *rows]), encoding="utf-8")

    def load(**cohort_keys):
        study = {
            "name": "few",
            "outputs": str(tmp_path / "outputs"),
            "cohort": {
                "source": "table",
                "path": "people.csv",
                "organs": {"liver": {"labels": [1]}},
                "attributes": {"sex": {"categories": ["female", "male"]}},
            }
            | cohort_keys,
            "models": [
                {"name": name, "kind": "precomputed", "path": f"{name}/{{scan}}.nii.gz"} for name in ("net", "second")
            ],
            "fairness": {"metrics": ["dice"], "bootstrap": 200, "permutations": 200, "min_group": 5},
            "compute": {"workers": 0},
        }
        (tmp_path / "few.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
        return load_study(tmp_path / "few.yaml")

    return load


def test_scans_without_a_reference_are_predicted_and_count_by_agreement(masks):
    study = masks(masked="random")
    found = cohort.check_cohort(study)
    assert not found.problems and any("counts by its proxy alone" in remark for remark in found.remarks)
    people = cohort.build_cohort(study)
    assert people.table["included"].sum() == 20 and len(study.read_proxied()) == 40
    made = inference.run_inference(study)
    assert len(made) == 120 and (made["status"] == "ok").all()
    metrics = performance.measure_performance(study)
    assert metrics["scan"].nunique() == 20, "without a reference nothing is scored"
    proxies = measure_proxies(study)
    net = proxies[proxies["model"] == "net"].set_index("scan")["dice_proxy"]
    assert len(net) == 60
    shared = [volumes.read_volume(study.prediction_path(model, "p01")) for model in ("net", "second")]
    one, other = (sitk.GetArrayFromImage(image) for image in shared)
    assert net["p01"] == pytest.approx(2 * (one & other).sum() / (one.sum() + other.sum()))
    performance.write_audit(study)
    gaps = study.read("few_masks_gaps").set_index(["model", "organ"])
    row = gaps.loc[("net", "liver")]
    assert (row["people"], row["masks"], row["worst_group"]) == (60, 20, "female")
    assert row["gap_low"] > 0 and row["gap_high"] - row["gap_low"] < row["gap_masked_high"] - row["gap_masked_low"]
    provenance.write_snapshot(study)
    page = build_report(study.folder).read_text(encoding="utf-8")
    assert "20 of 60 people have an expert’s mask" in page


def test_without_the_statement_scans_without_a_reference_are_out(masks):
    study = masks()
    people = cohort.build_cohort(study)
    assert set(people.table.loc[~people.table["included"], "reason"]) == {
        "reference is missing: give the path of the expert's mask"
    }
    assert study.read_proxied().empty and len(inference.run_inference(study)) == 40


def test_a_proxy_must_be_an_automatic_model_of_the_study(masks):
    study = masks(masked="random")
    wrong = load_study(study.source, {"fairness.proxy": "nobody"})
    with pytest.raises(SegfairError, match=r"nobody is no automatic model of this study \(net, second\)"):
        choose_partners(wrong)
    alone = load_study(study.source, {"models": [{"name": "net", "kind": "precomputed", "path": "net/{scan}.nii.gz"}]})
    with pytest.raises(SegfairError, match="name at least two automatic models"):
        choose_partners(alone)
    assert choose_partners(load_study(study.source, {"fairness.proxy": "second"})) == {"net": ["second"]}


def test_few_masks_do_not_show_that_nobody_fails():
    """The proxies make the interval short, but of 25 people none happened to fail."""
    metrics, people, _ = make_tables(gap=0.0, seed=2)
    [row] = fairness.compare_few_masks(metrics, people, SETTINGS, ["sex"], 1).gaps.to_dict("records")
    assert -0.02 < row["gap_low"] < row["gap_high"] < 0.02
    assert row["verdict"] == "inconclusive"
