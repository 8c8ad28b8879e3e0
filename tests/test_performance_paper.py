"""The table that papers print: every kind of cell derived again by pandas and scipy, and LaTeX that
adds up."""

from __future__ import annotations

import re
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from helpers import fairness, performance, storage
from helpers.figures.paper_table import show_paper_table
from helpers.parameters import Fairness, FusionModel, Model
from helpers.performance.paper import PaperTable, describe_paper, escape_latex, print_paper, write_latex
from helpers.report.scrubbing import Scrubber
from helpers.schema import TABLES
from helpers.study import Study, load_study
from helpers.vocabulary.words import ALL_MODELS

SITES = ["A & B_1", "100 % <C>", "few"]
SETTINGS = Fairness(min_group=10, margin={"dice": 0.02, "hd95_mm": 1.0, "nsd": 0.02, "boundary_error_mm": 0.5})
ATTRIBUTES = ["sex", "site"]


def make_tables(people: int = 60, *, few: int = 4, modalities=("CT", "MR")) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Everybody has a scan of each modality and two in CT; nobody's lung is seen in MR."""
    rng = np.random.default_rng(7)
    modalities = ["CT", *modalities]
    person = np.repeat(np.arange(people), len(modalities))
    cohort = pd.DataFrame(
        {
            "subject": [f"p{one}" for one in person],
            "scan": [f"s{place}" for place in range(len(person))],
            "number": np.arange(1, len(person) + 1),
            "modality": modalities * people,
            "included": True,
            "group_sex": pd.Categorical(np.where(person % 2, "male", "female"), ["female", "male"], ordered=True),
            "group_site": pd.Categorical(
                np.where(person < few, "few", np.where(person % 3, SITES[0], SITES[1])), SITES, ordered=True
            ),
        }
    )
    parts = []
    for model, organ in [(model, organ) for model in ("sam", "net_1") for organ in ("liver", "spleen", "lung")]:
        seen = (organ != "lung") | (cohort["modality"] == "CT").to_numpy()
        worse = 0.03 * (organ == "liver") * (person % 2) + 0.001 * person
        dice = np.clip(0.9 - worse + rng.normal(0, 0.01, len(person)), 0, 1)
        size = rng.uniform(100, 300, len(person))
        values = {
            "dice": dice,
            "hd95_mm": rng.gamma(4, 1, len(person)),
            "volume_error_ml": rng.normal(0, 20, len(person)),
        }
        part = cohort[["subject", "scan", "number"]].assign(
            model=model, organ=organ, volume_ref_ml=np.where(seen, size, 0)
        )
        parts.append(part.assign(**{name: np.where(seen, value, np.nan) for name, value in values.items()}))
    metrics = pd.concat(parts, ignore_index=True)
    # A missed organ: Dice 0 and no distance.
    missed = (metrics["model"] == "sam") & (metrics["organ"] == "spleen") & (metrics["subject"] == "p9")
    metrics.loc[missed, ["dice", "hd95_mm"]] = [0.0, np.nan]
    return metrics, cohort


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_tables()


@pytest.fixture(scope="module")
def paper(tables) -> pd.DataFrame:
    return fairness.tabulate_paper(*tables, SETTINGS, ATTRIBUTES)


def find(paper: pd.DataFrame, modality: str, metric: str, organ: str, model: str, attribute="", group="") -> pd.Series:
    wanted = (modality, metric, organ, model, attribute, group)
    keys = paper[["modality", "metric", "organ", "model", "attribute", "group"]].itertuples(index=False, name=None)
    [place] = [number for number, key in enumerate(keys) if key == wanted]
    return paper.iloc[place]


def average(tables, modality: str, metric: str, organ: str, model: str, attribute: str = "sex") -> pd.Series:
    """People's values by plain pandas, indexed by group."""
    metrics, cohort = tables
    joined = metrics.merge(cohort[["scan", "modality", f"group_{attribute}"]], on="scan")
    part = joined[(joined["modality"] == modality) & (joined["organ"] == organ) & (joined["model"] == model)].copy()
    part["volume_error_relative"] = part["volume_error_ml"].abs() / part["volume_ref_ml"]
    by_person = part.groupby(["subject", f"group_{attribute}"], observed=True)[metric].mean().dropna()
    return by_person.droplevel("subject")


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("metric", ["dice", "hd95_mm", "volume_error_relative"])
@pytest.mark.parametrize("organ", ["liver", "spleen"])
def test_means_and_p_are_those_of_pandas_and_scipy(tables, paper, modality, metric, organ):
    values = average(tables, modality, metric, organ, "sam")
    for group in ("female", "male"):
        row = find(paper, modality, metric, organ, "sam", "sex", group)
        assert row["n"] == len(values[group])
        assert row[["mean", "sd"]].tolist() == pytest.approx([values[group].mean(), values[group].std()])
        worst = values[group].sort_values(ascending=metric == "dice").iloc[: int(np.ceil(len(values[group]) / 20))]
        assert row["worst"] == pytest.approx(worst.mean())
    row = find(paper, modality, metric, organ, "sam", "sex")
    assert row["n"] == len(values)
    assert row["anova_p"] == pytest.approx(stats.f_oneway(values["female"], values["male"]).pvalue)


def test_a_missed_organ_counts_in_dice_alone(paper):
    assert find(paper, "CT", "dice", "spleen", "sam", "sex", "male")["n"] == 30
    assert find(paper, "CT", "hd95_mm", "spleen", "sam", "sex", "male")["n"] == 29


@pytest.mark.parametrize(("people", "worst"), [(40, 2), (41, 3), (19, 1)])
def test_the_worst_are_rounded_up_to_whole_people(people, worst):
    found = make_tables(people, few=0, modalities=())
    values = average(found, "CT", "hd95_mm", "liver", "sam")
    row = find(fairness.tabulate_paper(*found, SETTINGS, ATTRIBUTES), "CT", "hd95_mm", "liver", "sam")
    assert row["worst"] == pytest.approx(values.nlargest(worst).mean())


def test_spread_over_organs_is_that_of_their_means(tables, paper):
    means = [average(tables, "CT", "dice", organ, "net_1")["male"].mean() for organ in ("liver", "spleen", "lung")]
    row = find(paper, "CT", "dice", "all", "net_1", "sex", "male")
    assert row["sd_organs"] == pytest.approx(np.std(means, ddof=1))
    assert row["mean"] == pytest.approx(np.mean(means))
    assert paper.loc[paper["organ"] != "all", "sd_organs"].isna().all()


def test_not_significant_stands_beside_what_is_shown_equivalent():
    """Three organs: a difference, none shown with few people, and none to be feared."""
    # So many that failures which nobody has seen could not move a mean by the margin.
    cohort = pd.DataFrame({"subject": [f"p{i}" for i in range(600)], "scan": [f"s{i}" for i in range(600)]})
    cohort = cohort.assign(number=range(1, 601), modality="CT", group_sex=["female", "male"] * 300)
    rng, sex = np.random.default_rng(3), np.arange(600) % 2
    organs = {"differs": 0.9 - 0.1 * sex, "open": 0.0 * sex + 0.8, "same": 0.0 * sex + 0.9}
    spread = {"differs": 0.01, "open": 0.15, "same": 0.005}
    parts = [
        cohort[["subject", "scan"]].assign(model="m", organ=organ, dice=dice + rng.normal(0, spread[organ], 600))
        for organ, dice in organs.items()
    ]
    metrics = pd.concat(parts).assign(hd95_mm=np.nan, volume_error_ml=0.0, volume_ref_ml=1.0)
    paper = fairness.tabulate_paper(metrics, cohort, SETTINGS, ["sex"])
    significant, inside = [], []
    for organ in organs:
        values = metrics.loc[metrics["organ"] == organ, "dice"].to_numpy()
        test = stats.ttest_ind(values[sex == 0], values[sex == 1], equal_var=False)
        low, high = test.confidence_interval(0.90)  # two one-sided tests at 0.05
        inside.append(low > -0.02 and high < 0.02)
        significant.append(stats.f_oneway(values[sex == 0], values[sex == 1]).pvalue <= 0.05)
    assert (significant, inside) == ([True, False, False], [False, False, True]), "as meant"
    row = find(paper, "CT", "dice", "all", "m", "sex")
    assert row[["organs", "not_significant", "equivalent"]].tolist() == pytest.approx([3, 2 / 3, 1 / 3])
    printed = print_paper(paper, 10)
    told = printed[printed["organ"] == "not significant / equivalent"].set_index("measure")["sex: ANOVA p"]
    assert told.to_dict() == {"Dice": "2 / 1 of 3", "95 % Hausdorff distance (mm)": "–"}
    without = fairness.tabulate_paper(metrics, cohort, SETTINGS.model_copy(update={"margin": {}}), ["sex"])
    assert np.isnan(find(without, "CT", "dice", "all", "m", "sex")["equivalent"]), "nothing is shown without a margin"
    told = print_paper(without, 10)
    assert "2 / – of 3" in set(told["sex: ANOVA p"])


def test_all_pairs_of_groups_must_lie_within_the_margin(rng):
    cohort = pd.DataFrame({"subject": [f"p{i}" for i in range(900)], "scan": [f"s{i}" for i in range(900)]})
    cohort = cohort.assign(number=range(1, 901), modality="MR", group_age=["20–29", "30–39", "40–49"] * 300)
    parts = []
    for organ, shift in (("liver", [0, 0.018, 0.036]), ("spleen", [0, 0, 0])):
        dice = 0.9 - np.tile(shift, 300) + rng.normal(0, 0.003, 900)
        parts.append(cohort[["subject", "scan"]].assign(model="m", organ=organ, dice=dice))
        groups = [dice[place::3] for place in range(3)]
        intervals = [
            stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.90) for a, b in combinations(groups, 2)
        ]
        assert all(one.low > -0.02 and one.high < 0.02 for one in intervals) == (organ == "spleen")
    metrics = pd.concat(parts).assign(hd95_mm=1.0, volume_error_ml=0.0, volume_ref_ml=1.0)
    paper = fairness.tabulate_paper(metrics, cohort, SETTINGS, ["age"])
    assert find(paper, "MR", "dice", "all", "m", "age")["equivalent"] == 0.5


def test_with_one_modality_the_p_is_that_of_the_audit():
    metrics, cohort = make_tables(modalities=())
    settings = Fairness(metrics=["dice", "hd95_mm"], min_group=10, bootstrap=100)
    audit = fairness.run_audit(metrics, cohort, settings, ATTRIBUTES, 1)
    paper = fairness.tabulate_paper(metrics, cohort, settings, ATTRIBUTES)
    keys = ["model", "organ", "metric", "attribute"]
    both = audit.disparity.merge(paper[paper["group"] == ""], on=keys, suffixes=("", "_paper"), validate="one_to_one")
    assert len(both) == (audit.disparity["model"] != ALL_MODELS).sum() and both["anova_p"].notna().all()
    np.testing.assert_allclose(both["anova_p_paper"], both["anova_p"], rtol=1e-12)
    keys += ["group"]
    both = audit.groups.merge(paper, on=keys, suffixes=("", "_paper"), validate="one_to_one")
    np.testing.assert_allclose(both["mean_paper"], both["mean"], rtol=1e-12)
    assert (both["n"] == both["n_paper"]).all() and (both["suppressed"] == both["suppressed_paper"]).all()


def test_an_organ_that_nobody_has_in_a_modality_is_not_listed(paper):
    assert set(paper.loc[paper["modality"] == "MR", "organ"]) == {"liver", "spleen", "all"}
    assert set(paper.loc[paper["modality"] == "CT", "organ"]) == {"liver", "spleen", "lung", "all"}


def test_small_groups_and_what_would_tell_of_them_are_hidden(tables, paper):
    few = paper[paper["group"] == "few"]
    assert len(few) and few["suppressed"].all()
    assert few[["mean", "sd", "median", "q1", "q3", "worst", "sd_organs"]].isna().all(axis=None)
    everyone = paper[(paper["attribute"] == "")]
    assert everyone[["mean", "sd", "sd_organs"]].isna().all(axis=None), "it would tell the mean of the few"
    assert everyone["worst"].notna().all()
    values = average(tables, "CT", "dice", "liver", "sam", "site")
    row = find(paper, "CT", "dice", "liver", "sam", "site")
    assert row["n"] == 56 and row["anova_p"] == pytest.approx(stats.f_oneway(values[SITES[0]], values[SITES[1]]).pvalue)
    values = average(tables, "CT", "dice", "liver", "sam")
    row = find(paper, "CT", "dice", "liver", "sam")
    assert row[["q1", "median", "q3"]].tolist() == pytest.approx(values.quantile([0.25, 0.5, 0.75]).tolist())
    printed = print_paper(paper, 10)
    cell = printed[(printed["measure"] == "Dice") & (printed["organ"] == "liver")].iloc[0]
    assert cell["everyone"] == f"{row['median']:.3f} ({row['q1']:.3f} to {row['q3']:.3f})"
    assert set(printed["site: few"]) == {"< 10", "–", ""}
    without = fairness.tabulate_paper(*make_tables(few=0), SETTINGS, ATTRIBUTES)
    shown = find(without, "CT", "dice", "liver", "sam")
    values = average(make_tables(few=0), "CT", "dice", "liver", "sam")
    assert shown[["mean", "sd"]].tolist() == pytest.approx([values.mean(), values.std()])


def test_a_modality_of_few_people_shows_nobody(tables):
    metrics, cohort = make_tables(9, few=0)
    paper = fairness.tabulate_paper(metrics, cohort, SETTINGS, ATTRIBUTES)
    assert paper["suppressed"].sum() == (paper["group"].ne("") | paper["attribute"].eq("")).sum()
    assert paper[["mean", "sd", "median", "q1", "q3", "worst", "sd_organs", "anova_p"]].isna().all(axis=None)
    printed = print_paper(paper, 10)
    assert not printed.iloc[:, 4:].map(lambda cell: bool(re.search(r"0\.\d|±", cell))).any(axis=None)
    read_rows(write_latex(PaperTable(printed, "told")))


def test_where_nothing_was_measured_the_files_are_there_and_empty(study):
    nothing = study.read("metrics").assign(dice=np.nan)
    storage.write_table(nothing, study.path("metrics"))
    table = performance.write_paper(study)
    assert table.printed.empty and study.read("paper").empty and study.read("paper_table").empty
    columns, rows = read_rows(study.path("paper_table").with_suffix(".tex").read_text(encoding="utf-8"))
    assert {sum(span for span, _ in row) for row in rows} == {columns}


def test_cells_are_printed_as_papers_have_them(tables):
    paper = fairness.tabulate_paper(*make_tables(few=0), SETTINGS, ATTRIBUTES)
    printed = print_paper(paper, 10)
    assert all(any(column.holds(name) for column in TABLES["paper_table"].columns) for name in printed)
    assert printed.columns.tolist() == [
        *("modality", "measure", "organ", "model", "everyone", "worst 5 %", "sex: female", "sex: male", "sex: ANOVA p"),
        *(f"site: {name}" for name in [*SITES, "ANOVA p"]),
    ]
    assert printed[["modality", "measure"]].drop_duplicates().to_numpy().tolist() == [
        [modality, measure]
        for modality in ("CT", "MR")
        for measure in ("people", "Dice", "95 % Hausdorff distance (mm)", "Volume error (%)")
    ]
    row = find(paper, "CT", "dice", "liver", "sam", "sex", "male")
    cell = printed[(printed["measure"] == "Dice") & (printed["organ"] == "liver")].iloc[0]
    assert cell["sex: male"] == f"{row['mean']:.3f} ± {row['sd']:.3f}" and cell["sex: ANOVA p"] == "< 0.001"
    row = find(paper, "CT", "volume_error_relative", "liver", "sam")
    cell = printed[(printed["measure"] == "Volume error (%)") & (printed["organ"] == "liver")].iloc[0]
    assert cell["everyone"] == f"{100 * row['mean']:.1f} ± {100 * row['sd']:.1f}"
    assert cell["worst 5 %"] == f"{100 * row['worst']:.1f}"
    assert printed.iloc[0][["everyone", "sex: female", "site: few"]].tolist() == ["60", "30", "< 10"]


def test_the_caption_says_what_the_numbers_cannot_tell():
    prompted = Model(name="sam", kind="sam", variant="vit_b")
    automatic = Model(name="net", kind="precomputed", path="{scan}.nii.gz", prompted=False)
    fused = FusionModel(name="both", kind="fusion", of=["sam", "net"])
    told = describe_paper(SETTINGS, [prompted, automatic, fused])
    assert "Where few people are studied, everything is “not significant”" in told
    assert "within the margin (Dice 0.020 and 95 % Hausdorff distance 1.00 mm)" in told
    assert "both is made of sam and net." in told and "do not rank one against the other" in told
    assert Scrubber().clean(told) == told, "nothing in it looks like a path"
    assert not re.search("rank|made of", describe_paper(SETTINGS, [prompted]))


def read_rows(latex: str) -> tuple[int, list[list[tuple[int, str]]]]:
    """Read a longtable as strictly as TeX does; return its columns, and per row (span, text)."""
    source = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    depth, opened, formula = 0, [], False
    token = re.compile(r"\\(?:begin|end)\{\w+\}|\\[A-Za-z]+|\\.|.", re.DOTALL)
    for found in token.findall(source):
        if match := re.fullmatch(r"\\(begin|end)\{(\w+)\}", found):
            if match[1] == "begin":
                opened.append(match[2])
            else:
                assert opened.pop() == match[2]
        elif found == "$":
            formula = not formula
        elif found in "{}":
            assert not formula
            depth += 1 if found == "{" else -1
            assert depth >= 0
        else:
            assert found not in ("#", "%", "~~"), found
            assert formula or found not in ("_", "^", "<", ">", "|"), f"{found!r} outside of a formula"
            assert found.isascii(), f"{found!r} is not in every font"
    assert (depth, opened, formula) == (0, [], False)
    [spec] = re.findall(r"\\begin\{longtable\}\{@\{\}([lrc]+)@\{\}\}", source)
    body = re.split(r"\\label\{[\w:]+\}\\\\\n", source)[1].split(r"\end{longtable}")[0]
    rules = r"\\(?:toprule|midrule|bottomrule|addlinespace|endfirsthead|endhead|endfoot)\b|\\cmidrule\(lr\)\{\d+-\d+\}"
    *rows, rest = re.split(r"\\\\\*?", body)
    assert not re.sub(rules, "", rest).strip(), "a row that is not ended"
    return len(spec), [
        [_read_cell(cell.strip()) for cell in re.split(r"(?<!\\)&", re.sub(rules, "", row))] for row in rows
    ]


def _read_cell(cell: str) -> tuple[int, str]:
    spanning = re.fullmatch(r"\\multicolumn\{(\d+)\}\{(?:@\{\})?[lrc]\}\{(.*)\}", cell)
    return (int(spanning[1]), spanning[2]) if spanning else (1, cell)


def test_latex_is_balanced_and_every_row_has_every_column(paper):
    table = PaperTable(print_paper(paper, 10), describe_paper(SETTINGS, []))
    latex = write_latex(table)
    columns, rows = read_rows(latex)
    assert columns == len(table.printed.columns) - 2
    assert {sum(span for span, _ in row) for row in rows} == {columns}
    blocks = len(table.printed[["modality", "measure"]].drop_duplicates())
    assert len(rows) == 2 * 2 + blocks + len(table.printed), "headings of the first page and of others, blocks, rows"
    assert (
        rows[1][5:]
        == [(1, name) for name in ("male", r"ANOVA p", r"A \& B\_1", r"100 \% $<$C$>$", "few", "ANOVA p")][0:]
    )
    heads = re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", latex)
    assert heads[: len(heads) // 2] == [("5", "7"), ("8", "11")]
    assert r"net\_1" in latex and r"\textbf{CT, 95 \% Hausdorff distance (mm)}" in latex
    named = [row[0][1] for row in rows if len(row) == columns and row[0][1] not in ("", "organ")]
    assert not any(first == second for first, second in pairwise(named)), "an organ is named once"


def test_whatever_a_group_is_called_is_escaped():
    special = r"\&%$#_{}~^<>|[*±−≤≥÷²–“”"
    assert escape_latex("a_b & 50 %") == r"a\_b \& 50 \%"
    printed = pd.DataFrame(
        [["CT", "Dice", "liver", special, "0.9 ± 0.1", "0.8"]],
        columns=["modality", "measure", "organ", "model", f"x_y: {special}", "x_y: ANOVA p"],
    )
    columns, rows = read_rows(write_latex(PaperTable(printed, special)))
    assert columns == 4 and {sum(span for span, _ in row) for row in rows} == {4}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [(r"net\_1", "net_1"), (r"\%", "{%"), ("$<$", "<"), (r"\end{landscape}", ""), (r"\textbf{", r"\textbf{{")],
)
def test_the_reader_of_latex_finds_what_tex_would_stop_at(paper, right, wrong):
    latex = write_latex(PaperTable(print_paper(paper, 10), "told"))
    assert right in latex
    with pytest.raises(AssertionError):
        read_rows(latex.replace(right, wrong, 1))


def test_the_reader_of_latex_finds_a_cell_too_many(paper):
    latex = write_latex(PaperTable(print_paper(paper, 10), "told"))
    columns, rows = read_rows(latex.replace("lung & ", "lung & & ", 1))
    assert {sum(span for span, _ in row) for row in rows} == {columns, columns + 1}


@pytest.fixture
def study(tmp_path, tables) -> Study:
    parameters = {
        "name": "tiny",
        "cohort": {
            "source": "table",
            "path": "people.csv",
            "organs": {name: {"labels": [label]} for label, name in enumerate(("liver", "spleen", "lung"), start=1)},
            "attributes": {"sex": {"categories": ["female", "male"]}, "site": {"categories": SITES}},
        },
        "models": [
            {"name": name, "kind": "precomputed", "path": "{scan}.nii.gz", "prompted": name == "sam"}
            for name in ("sam", "net_1")
        ],
    }
    source = tmp_path / "params" / "tiny.yaml"
    source.parent.mkdir()
    source.write_text(yaml.safe_dump(parameters, sort_keys=False), encoding="utf-8")
    study = load_study(source)
    metrics, cohort = tables
    storage.write_table(metrics, study.path("metrics"))
    storage.write_table(cohort, study.path("cohort"))
    return study


def test_files_are_written_and_read_back(study, paper):
    table = performance.write_paper(study)
    pd.testing.assert_frame_equal(study.read("paper"), paper, check_dtype=False)
    assert study.read("paper").columns.tolist() == TABLES["paper"].names
    pd.testing.assert_frame_equal(study.read("paper_table"), table.printed, check_dtype=False)
    assert set(table.printed["model"]) == {"", "sam (prompted)", "net_1 (automatic)"}
    read_rows(study.path("paper_table").with_suffix(".tex").read_text(encoding="utf-8"))


def test_a_page_escapes_names_and_folds_what_is_not_first(paper):
    table = PaperTable(print_paper(paper, 10), "p < 0.05")
    page = show_paper_table(table)._repr_html_()
    assert "100 % &lt;C&gt;" in page and "<C>" not in page and "A &amp; B_1" in page and "p &lt; 0.05" in page
    assert page.count("<details") == 6 and page.count("<details open") == 2, "Dice of CT and of MR"
    assert 'download="paper_table.csv"' in page
    nothing = PaperTable(table.printed.iloc[:0], "")
    assert "nothing to print" in show_paper_table(nothing)._repr_html_()
