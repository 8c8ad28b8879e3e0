"""Put the report together: which sentence, table and figure stands where."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import __version__
from helpers.figures.style import METRIC_LABELS, name_for_people
from helpers.report import sentences
from helpers.report.blocks import (
    Block,
    Bullets,
    Cell,
    Figure,
    Heading,
    Matrix,
    Note,
    Panel,
    Report,
    Section,
    Table,
    Terms,
    Text,
    Tone,
)
from helpers.report.outputs import Outputs, list_groups, read_outputs
from helpers.report.sentences import Outcome

_TONES: dict[Outcome, Tone] = {
    Outcome.SHOWN: "shown",
    Outcome.SMALL: "small",
    Outcome.NOT_SHOWN: "open",
    Outcome.NOT_COMPARED: "blank",
}
_KEYS = ["model", "organ", "metric", "attribute"]
# A browser draws at most 16 WebGL scenes in one page; beyond these the table tells the rest.
_MOST_SURFACES = 8
_MOST_DOTS = 9
_HOW_SURFACE = (
    "The organ's mean shape in 3D: drag to turn it, or choose a side; R and L are the person's right and left. The menu chooses between the "
    "difference of two groups and each group by itself. Red: drawn too large (in a difference: larger in the first group named), blue: too "
    "small, white: no error; point at a place to read it in mm. Grey: no value."
)
_PACKAGES_TOLD = (
    "numpy",
    "scipy",
    "pandas",
    "pingouin",
    "SimpleITK",
    "surface-distance",
    "scikit-image",
    "segment-anything",
    "torch",
    "plotly",
)


def compose_report(folder: Path) -> Report:
    """Put together the report of an output folder, from the tables in it.

    A stage that has not been run is said so in its section.

    Parameters
    ----------
    folder : Path
        A study's output folder.

    Raises
    ------
    StageError
        It is no study's output folder.
    """
    outputs = read_outputs(Path(folder))
    composers: tuple[Callable[[Outputs], Section], ...] = (
        compose_answers,
        compose_people,
        compose_losses,
        compose_performance,
        compose_spatial,
        compose_limits,
        compose_glossary,
        compose_methods,
    )
    parameters = outputs.parameters
    return Report(
        title=parameters.title or name_for_people(parameters.name),
        subtitle=f"For whom do the segmentation models work worse? · {_read_date(outputs)} · segfair {__version__}",
        sections=tuple(compose(outputs) for compose in composers),
    )


def compose_answers(outputs: Outputs) -> Section:
    """Compose the first screen: the answers in words, and one picture."""
    parameters = outputs.parameters
    alpha, min_group = parameters.fairness.alpha, parameters.fairness.min_group
    blocks: list[Block] = []
    if _is_phantoms(outputs):
        blocks.append(
            Note(
                "This is a study of phantoms: computer-drawn bodies, not people. Its numbers show what the report can "
                "tell; they say nothing about any model in the clinic.",
                "warning",
            )
        )
    blocks += [Note(problem, "warning") for problem in outputs.problems]
    blocks += _note_stage_failures(outputs)
    included = outputs.included
    if outputs.cohort is None:
        blocks.append(
            Note("The cohort has not been read (01_cohort has not been run): there is nothing to report yet.")
        )
        return _answers(blocks)
    scans, people = len(included), included["person"].nunique() if len(included) else 0
    if scans == 0:
        blocks.append(Note(sentences.describe_exclusions(len(outputs.cohort), len(outputs.cohort)), "warning"))
        return _answers(blocks)
    models = [model.name for model in parameters.models]
    groups = " ".join(_describe_groups(outputs))
    blocks.append(
        Text(
            f"{sentences.describe_people(people, scans, models, phantoms=_is_phantoms(outputs))} {groups}",
            lead="Which models, whose scans?",
        )
    )
    disparity, metric = outputs.disparity, _main_metric(outputs)
    if outputs.metrics is None:
        blocks.append(Note("How well the models do has not been measured (03_performance has not been run)."))
        return _answers(blocks)
    if outputs.metrics.empty or outputs.metrics[[m for m in METRIC_LABELS if m in outputs.metrics]].isna().all(
        axis=None
    ):
        blocks.append(
            Note("Nothing could be measured: no model has a mask that could be compared with the expert's.", "warning")
        )
        blocks += _tell_failures(outputs)
        return _answers(blocks)
    if disparity is None or disparity.empty or disparity["gap"].isna().all():
        largest = max(
            (len(_count_groups(outputs, name)) - len(outputs.small.get(name, ())) for name in outputs.attributes),
            default=0,
        )
        blocks.append(Note(sentences.describe_no_statistics(scans, min_group, groups=largest), "warning"))
        blocks.append(_table_overall(outputs))
        return _answers(blocks)
    rows = disparity[disparity["metric"] == metric]
    levels, boundary = _list_levels(outputs, metric), _list_levels(outputs, "boundary_error_mm")
    for place, model in enumerate(models):
        said = sentences.describe_model(
            model,
            rows[rows["model"] == model],
            alpha=alpha,
            levels={key[1:]: value for key, value in levels.items() if key[0] == model},
            boundary_mm={key[1:]: value for key, value in boundary.items() if key[0] == model},
        )
        blocks.append(Text(said[0], lead="For whom does it work worse, and by how much?" if place == 0 else ""))
        if len(said) > 1:
            blocks.append(Bullets(tuple(said[1:])))
    blocks.append(_picture(outputs, rows, metric))
    blocks.append(
        Text(
            sentences.describe_certainty(disparity, alpha=alpha, correction=parameters.fairness.correction),
            lead="How sure is that?",
        )
    )
    blocks.append(
        Text(
            "That a model is fair: a difference that was not shown is not a difference that is not there. "
            "Why a group does worse, beyond organ size: see the limits."
            + (" How the model would do with a clinician's own prompts." if _prompted(outputs) else ""),
            lead="What cannot be concluded?",
        )
    )
    return _answers(blocks)


def compose_people(outputs: Outputs) -> Section:
    """Compose who was studied: counts by group, small groups as "fewer than N"."""
    section = ("people", "Who was studied", "Who")
    if outputs.cohort is None:
        return _missing(section, "The cohort has not been read: 01_cohort has not been run.")
    included = outputs.included
    if included.empty:
        return _missing(section, "Nobody: every scan was left out. The next section says why.")
    min_group = outputs.parameters.fairness.min_group
    people = included.drop_duplicates("person")
    blocks: list[Block] = []
    repeated = len(included) - len(people)
    blocks.append(
        Text(
            f"{sentences.count(len(people), 'phantom') if _is_phantoms(outputs) else sentences.count(len(people), 'person', 'people')} "
            f"with {sentences.count(len(included), 'scan')}"
            + (f" by modality ({_count_modalities(included)})" if "modality" in included else "")
            + "."
            + (" Several scans of one person count as one person in every group comparison." if repeated else "")
        )
    )
    rows = []
    for attribute in outputs.attributes:
        counts = _count_groups(outputs, attribute)
        for group, number in counts.items():
            member = people[people[f"group_{attribute}"].astype(str) == group]
            rows.append(
                {
                    "Attribute": _label_attribute(outputs, attribute),
                    "Group": group,
                    "People": _tell_count(number, min_group),
                    "Share": "" if number is None else f"{100 * number / len(people):.0f} %",
                    **{
                        label: "" if number is None or number == 0 else _mean_sd(member, column)
                        for label, column in (("Age, mean (SD), years", "age"), ("BMI, mean (SD), kg/m²", "bmi"))
                        if column in people and people[column].notna().any() and column != attribute
                    },
                }
            )
        missing = _count_missing(outputs, attribute)
        if missing:
            rows.append(
                {
                    "Attribute": _label_attribute(outputs, attribute),
                    "Group": "not recorded",
                    "People": _tell_count(missing if missing >= min_group else None, min_group),
                }
            )
    if rows:
        frame = pd.DataFrame(rows).fillna("")
        blocks.append(
            Table(
                "People in each group",
                frame,
                numeric=tuple(name for name in frame if name not in ("Attribute", "Group")),
            )
        )
        blocks.append(
            Text(
                f"Groups of fewer than {min_group} people are neither compared nor shown. Where mean age or BMI differs between groups, "
                "a gap between them may be owed to that instead."
            )
        )
    if len(outputs.attributes) and not rows:
        blocks.append(Note("No attribute has any group."))
    return _section(section, blocks)


def compose_losses(outputs: Outputs) -> Section:
    """Compose who was left out and why, what failed, and what could not be measured."""
    section = ("losses", "Who was left out, and what failed", "Left out")
    blocks: list[Block] = []
    if outputs.cohort is None:
        blocks.append(Note("Who was left out is not known: 01_cohort has not been run."))
    else:
        excluded = outputs.cohort[~outputs.cohort["included"].astype(bool)]
        blocks.append(Text(sentences.describe_exclusions(len(outputs.cohort), len(excluded))))
        if len(excluded):
            reasons = excluded["reason"] if "reason" in excluded else pd.Series("", index=excluded.index)
            blocks.append(_table_reasons("Scans left out, by reason", reasons))
    blocks += [Heading("Scans on which a model failed"), *_tell_failures(outputs)]
    if outputs.metrics is not None and "status" in outputs.metrics:
        counts = outputs.metrics.groupby(["model", "organ", "status"], sort=False, observed=True).size()
        rows = [
            {
                "Model": model,
                "Organ": sentences.name_organ(organ),
                "Scans": str(number),
                "What happened": sentences.STATUSES.get(status, name_for_people(status)),
            }
            for (model, organ, status), number in counts.items()
            if status != "ok"
        ]
        blocks.append(Heading("What could not be measured"))
        if rows:
            blocks.append(Table("Scans without an ordinary result", pd.DataFrame(rows), numeric=("Scans",)))
        else:
            blocks.append(Text("Every organ of every scan could be measured."))
    return _section(section, blocks)


def compose_performance(outputs: Outputs) -> Section:
    """Compose performance overall and per group, with the figures of the fairness room."""
    section = ("performance", "How well each model does, and for whom worse", "Performance")
    if outputs.metrics is None:
        return _missing(section, "Performance has not been measured: 03_performance has not been run.")
    blocks: list[Block] = [_table_overall(outputs)]
    disparity, groups = outputs.disparity, outputs.groups
    if disparity is None or groups is None:
        blocks.append(Note("Groups have not been compared: 03_performance has not been finished."))
        return _section(section, blocks)
    if disparity.empty or disparity["gap"].isna().all():
        blocks.append(
            Note(sentences.describe_no_statistics(len(outputs.included), outputs.parameters.fairness.min_group))
        )
        return _section(section, blocks)
    blocks += _figures_fairness(outputs)
    blocks.append(_table_gaps(outputs))
    return _section(section, blocks)


def compose_spatial(outputs: Outputs) -> Section:
    """Compose where on the organ groups differ."""
    section = ("spatial", "Where in the organ", "Where")
    if outputs.maps is None or outputs.spatial_summary is None:
        return _missing(section, "The spatial analysis has not been run (04_spatial).")
    summary = outputs.spatial_summary
    if outputs.maps.empty:
        return _missing(section, "No organ could be mapped: too few people have it, or no group is large enough.")
    if summary.empty:
        summary = pd.DataFrame(columns=["model", "organ", "attribute", "peak_difference_mm"])
    return _section(section, _figures_spatial(outputs, summary))


def compose_limits(outputs: Outputs) -> Section:
    """Compose what the report cannot tell."""
    parameters = outputs.parameters
    items = [
        "No difference shown is not proof of fairness: the interval says how large a gap may be hidden.",
        sentences.describe_confounders(outputs.attributes, parameters.cohort.confounders),
        sentences.describe_prompts(
            {model.name: None if model.kind == "precomputed" else model.prompt for model in parameters.models}
        ),
        "The expert's mask is taken for the truth. If it is less careful for one group, that shows as the model's gap.",
        f"Groups of fewer than {parameters.fairness.min_group} people are not compared: whether the models fail them is not known. Their results are not "
        "given; where one group alone is small, its number of people follows from the others'.",
        "The results hold for people like those studied, scanned as they were.",
    ]
    if outputs.maps is not None and not outputs.maps.empty:
        items.append(
            "The maps rest on an affine alignment of organs and carry no test: read regions, not single points."
        )
    if _is_phantoms(outputs):
        items.insert(0, "The scans are computer-drawn phantoms: nothing here holds for people.")
    if outputs.cohort is not None:
        total, excluded = len(outputs.cohort), int((~outputs.cohort["included"].astype(bool)).sum())
        items.append(
            sentences.describe_exclusions(total, excluded)
            + (" If they differ from the rest, so may the results." if excluded else "")
        )
    scans = len(outputs.included)
    if scans and (outputs.disparity is None or outputs.disparity.empty or outputs.disparity["gap"].isna().all()):
        items.insert(0, sentences.describe_no_statistics(scans, parameters.fairness.min_group))
    return _section(
        ("limits", "What this report cannot tell you", "Limits"), [Bullets(tuple(item for item in items if item))]
    )


def compose_glossary(outputs: Outputs) -> Section:
    """Compose the words and measures."""
    tolerances = outputs.parameters.metrics
    special = "".join(
        f", {value:g} mm for {sentences.name_organ(organ)}" for organ, value in tolerances.tolerances_mm.items()
    )
    terms = (
        ("Dice", "How much two masks overlap: 1 is identical, 0 is no overlap. One Dice point is 0.01. Small organs score lower under the same error."),
        ("Boundary error (mm)", "The shift of the whole outline, in mm, that would cause the Dice seen: 2 × volume × (1 − Dice) ÷ surface. It does not depend on organ size."),
        ("Surface Dice (NSD)", f"The share of the outlines that agree within a tolerance: here {tolerances.tolerance_mm:g} mm{special}. 1 is best."),
        ("HD95 (mm)", "95 % Hausdorff distance: 95 % of the outline is closer than this to the other outline. It tells of the worst places."),
        ("Group mean", "The mean over people, not over scans: several scans of one person are averaged first."),
        ("Gap", "The difference between the group that does best and the group that does worst on average, by one attribute."),
        ("Expected gap", "The gap in Dice that would appear if everyone had the same boundary error: the part owed to organ size."),
        ("Excess gap", "The rest of the gap: what organ size does not explain."),
        ("95 % interval", "The range of gaps the data are compatible with, from drawing people again and again (bootstrap). Its far end is a gap that cannot be ruled out."),
        ("Adjusted p", "How easily chance alone would give such a difference, corrected for the number of tests made."),
    )  # fmt: skip
    return _section(("glossary", "Words and measures", "Glossary"), [Terms(terms)])


def compose_methods(outputs: Outputs) -> Section:
    """Compose a paragraph fit to paste, and where the numbers come from."""
    parameters, run = outputs.parameters, outputs.run
    fairness = parameters.fairness
    margins = sentences.list_words(
        f"{sentences.format_size(value, metric)} for {sentences.METRIC_NAMES.get(metric, metric)}"
        for metric, value in fairness.margin.items()
        if metric in fairness.metrics
    )
    packages = {name: version for name, version in (run.get("packages") or {}).items() if version}
    told = sentences.list_words(f"{name} {packages[name]}" for name in _PACKAGES_TOLD if name in packages)
    correction = (
        f"corrected by {sentences.CORRECTIONS[fairness.correction]} over all tests of the study"
        if fairness.correction != "none"
        else "not corrected for their number"
    )
    paragraph = (
        f"Masks were compared with segfair {__version__}{f' ({told})' if told else ''}. Per person, model and organ we computed "
        f"{sentences.list_words(METRIC_LABELS[metric].partition(' (')[0] for metric in fairness.metrics)}; surface Dice used a tolerance of {parameters.metrics.tolerance_mm:g} mm. "
        f"Groups by {sentences.list_words(_label_attribute(outputs, name) for name in outputs.attributes)} with at least {fairness.min_group} people were compared. "
        f"Gaps between group means carry 95 % bootstrap intervals over people ({fairness.bootstrap} draws, seed {parameters.seed}); "
        f"p-values are {correction}, at {fairness.alpha:g}. Gaps below {margins or 'no margin'} were set beforehand as of no consequence. "
        "The part of a Dice gap owed to organ size is the gap in the Dice each person would have under the cohort's mean boundary error."
    )
    blocks: list[Block] = [Text(paragraph), _table_models(outputs), _table_bins(outputs)]
    facts = {"Report made from results of": _read_date(outputs), "segfair": __version__}
    if run.get("git_commit"):
        commit = str(run["git_commit"])
        facts["Code version (git commit)"] = commit[:9] + (" with local changes" if commit.endswith("+changes") else "")
    if run.get("parameters_hash"):
        facts["Parameters (hash)"] = str(run["parameters_hash"])[:12]
    if run.get("python"):
        facts["Python"] = str(run["python"])
    facts |= packages
    blocks += [
        Heading("Provenance"),
        Table(
            "What the numbers were made with",
            pd.DataFrame({"What": list(facts), "Which": [str(value) for value in facts.values()]}),
        ),
    ]
    return _section(("methods", "Methods and provenance", "Methods"), blocks)


def escape_for_plotly(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts and column names plotly shows as they are.

    plotly reads ``<b>``, ``<a href=…>`` and entities in any text it draws; data must not speak to it.
    """
    escaped = table.rename(columns=lambda name: escape_text(str(name)))
    for name in escaped:
        column = escaped[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            escaped[name] = column.cat.rename_categories([escape_text(str(value)) for value in column.cat.categories])
        elif not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
            escaped[name] = column.map(lambda value: escape_text(value) if isinstance(value, str) else value)
    return escaped


def escape_text(text: str) -> str:
    """Return `text` with ``& < >`` as entities, which plotly draws as the characters."""
    return html.escape(text, quote=False)


def _section(place: tuple[str, str, str], blocks: list[Block]) -> Section:
    key, title, short = place
    return Section(key, title, short, tuple(blocks))


def _missing(place: tuple[str, str, str], sentence: str) -> Section:
    return _section(place, [Note(sentence)])


def _answers(blocks: list[Block]) -> Section:
    return _section(("answers", "In short", "In short"), blocks)


def _is_phantoms(outputs: Outputs) -> bool:
    return outputs.parameters.cohort.source == "phantoms"


def _prompted(outputs: Outputs) -> bool:
    return any(model.kind != "precomputed" for model in outputs.parameters.models)


def _main_metric(outputs: Outputs) -> str:
    metrics = outputs.parameters.fairness.metrics
    return "dice" if "dice" in metrics else metrics[0]


def _note_stage_failures(outputs: Outputs) -> list[Block]:
    stages = outputs.run.get("stages") or {}
    broken = [name for name, record in stages.items() if isinstance(record, dict) and record.get("status") == "failed"]
    if not broken:
        return []
    return [
        Note(
            f"{sentences.list_words(broken)} stopped with an error: what it should have written may be missing or from an earlier run.",
            "warning",
        )
    ]


def _label_attribute(outputs: Outputs, attribute: str) -> str:
    rule = outputs.parameters.cohort.attributes.get(attribute)
    unit = rule.unit if rule is not None else {"age": "years", "bmi": "kg/m²"}.get(attribute, "")
    return f"{name_for_people(attribute)}{f' ({unit})' if unit else ''}"


def _count_groups(outputs: Outputs, attribute: str) -> dict[str, int | None]:
    """Return people per group in their order; None where fewer than min_group (and more than none)."""
    column = f"group_{attribute}"
    included = outputs.included
    if column not in included or included[column].isna().all():
        return {}
    counts = included.assign(**{column: included[column].astype(str)}).groupby(column)["person"].nunique()
    numbers = {group: int(counts.get(group, 0)) for group in list_groups(included[column])}
    return {
        group: number if number >= outputs.parameters.fairness.min_group else None for group, number in numbers.items()
    }


def _count_missing(outputs: Outputs, attribute: str) -> int:
    column = f"group_{attribute}"
    included = outputs.included
    return int(included.loc[included[column].isna(), "person"].nunique()) if column in included else 0


def _describe_groups(outputs: Outputs) -> list[str]:
    said = []
    for attribute in outputs.attributes:
        counts = _count_groups(outputs, attribute)
        rule = outputs.parameters.cohort.attributes.get(attribute)
        unit = rule.unit if rule is not None else {"age": "years", "bmi": "kg/m²"}.get(attribute, "")
        said.append(
            sentences.describe_groups(
                attribute,
                counts,
                _count_missing(outputs, attribute),
                min_group=outputs.parameters.fairness.min_group,
                unit=unit,
            )
        )
    return said


def _tell_count(number: int | None, min_group: int) -> str:
    return f"fewer than {min_group}" if number is None else str(number)


def _count_modalities(included: pd.DataFrame) -> str:
    counts = included["modality"].astype(str).value_counts(sort=False)
    return ", ".join(f"{number} {modality}" for modality, number in counts.items())


def _mean_sd(people: pd.DataFrame, column: str) -> str:
    values = people[column].dropna()
    return f"{values.mean():.1f} ({values.std():.1f})" if len(values) > 1 else ""


def _list_levels(outputs: Outputs, metric: str) -> dict[tuple[str, str, str], dict[str, float]]:
    """Return group means of a metric by (model, organ, attribute)."""
    groups = outputs.groups
    if groups is None or groups.empty:
        return {}
    rows = groups[(groups["metric"] == metric) & groups["mean"].notna()]
    return {
        key: dict(zip(part["group"].astype(str), part["mean"].astype(float), strict=True))
        for key, part in rows.groupby(["model", "organ", "attribute"], sort=False)
    }


def _picture(outputs: Outputs, rows: pd.DataFrame, metric: str) -> Matrix:
    alpha = outputs.parameters.fairness.alpha
    found = {(row["model"], row["organ"], row["attribute"]): row for row in rows.to_dict("records")}
    # All organs together come first, then the organs as the parameters name them.
    organs = [organ for organ in ("all", *outputs.parameters.cohort.organs) if organ in set(rows["organ"])]
    organs += [organ for organ in rows["organ"].unique() if organ not in organs]
    panels = []
    for model in outputs.parameters.models:
        if model.name not in set(rows["model"]):
            continue
        cells = []
        for organ in organs:
            told = [sentences.describe_cell(found.get((model.name, organ, name)), alpha) for name in outputs.attributes]
            cells.append(tuple(Cell(headline, detail, _TONES[outcome]) for outcome, headline, detail in told))
        panels.append(
            Panel(
                model.name,
                tuple(sentences.name_organ(organ) for organ in organs),
                tuple(name_for_people(name) for name in outputs.attributes),
                tuple(cells),
            )
        )
    margin = outputs.parameters.fairness.margin.get(metric)
    name = sentences.METRIC_NAMES[metric]
    return Matrix(
        caption=f"For whom each model works worse: the gap in {name} between groups, by organ and attribute",
        panels=tuple(panels),
        legend=(
            ("shown", "a difference is shown: the group named does worse, by so much"),
            *((("small", f"shown, but less than {sentences.format_size(margin, metric)}"),) if margin else ()),
            ("open", "no difference shown: the gap that cannot be ruled out"),
            ("blank", "not compared: too few people"),
        ),
        how_to_read=(
            f"One table per model. Each cell compares the groups of one attribute for one organ: it names the group with the worst mean {name}, "
            "the distance to the best group, and the p-value corrected for all tests."
            + (" One point is 0.01 Dice." if metric in sentences.SCORES else "")
        ),
    )


def _tell_failures(outputs: Outputs) -> list[Block]:
    inference = outputs.inference
    if inference is None or inference.empty:
        return [Note("The models have not been run (02_inference).")]
    blocks: list[Block] = [Bullets(tuple(sentences.describe_failures(inference)))]
    failed = inference[inference["status"] != "ok"]
    rows = [
        {"Model": model, "Reason": reason, "Scans": str(number)}
        for model, part in failed.groupby("model", sort=False)
        for reason, number in sentences.merge_reasons(part["error"])
    ]
    if rows:
        blocks.append(Table("Failures by model and reason", pd.DataFrame(rows), numeric=("Scans",)))
    return blocks


def _table_reasons(caption: str, reasons: pd.Series) -> Table:
    merged = sentences.merge_reasons(reasons)
    return Table(
        caption,
        pd.DataFrame({"Reason": [r for r, _ in merged], "Scans": [str(n) for _, n in merged]}),
        numeric=("Scans",),
    )


def _table_overall(outputs: Outputs) -> Table:
    """Return medians over people: unlike means they do not give away a group that is left out."""
    metrics = outputs.metrics if outputs.metrics is not None else pd.DataFrame()
    told = [metric for metric in dict.fromkeys(("dice", *outputs.parameters.fairness.metrics)) if metric in metrics]
    rows = []
    if len(metrics):
        by_person = (
            metrics.groupby(["model", "organ", "person"], sort=False)[told].mean().groupby(level=[0, 1], sort=False)
        )
        for (model, organ), part in by_person:
            cells = {
                "Model": model,
                "Organ": sentences.name_organ(organ),
                "People": str(int(part["dice"].notna().sum())) if "dice" in part else "",
            }
            for metric in told:
                values = part[metric].dropna()
                cells[METRIC_LABELS[metric]] = _tell_quartiles(values, metric)
            rows.append(cells)
    frame = pd.DataFrame(rows)
    return Table(
        "Each model on everyone: median over people (quarter to three quarters)",
        frame,
        numeric=tuple(name for name in frame if name not in ("Model", "Organ")),
    )


def _tell_quartiles(values: pd.Series, metric: str) -> str:
    if values.empty:
        return "not measured"
    middle = sentences.format_level(values.median(), metric)
    if len(values) < 4:
        return middle
    low, high = (sentences.format_level(values.quantile(q), metric).split(" ")[0] for q in (0.25, 0.75))
    return f"{middle} ({low} to {high})"


def _table_gaps(outputs: Outputs) -> Table:
    """Return every comparison that could be made, as numbers."""
    disparity = outputs.disparity
    rows = []
    for row in disparity.to_dict("records") if disparity is not None else []:
        metric = str(row["metric"])
        if sentences.judge_gap(row, outputs.parameters.fairness.alpha) is Outcome.NOT_COMPARED:
            continue
        rows.append(
            {
                "Model": row["model"],
                "Organ": sentences.name_organ(row["organ"]),
                "Measure": sentences.METRIC_NAMES.get(metric, metric),
                "By": name_for_people(str(row["attribute"])),
                "Worst": row["worst_group"],
                "Best": row["best_group"],
                "Gap": sentences.format_size(row["gap"], metric),
                "95 % interval": sentences.format_interval(row.get("gap_low"), row.get("gap_high"), metric),
                "Size alone": sentences.format_size(row["expected_gap"], metric)
                if pd.notna(row.get("expected_gap"))
                else "",
                "Excess (95 % interval)": (
                    f"{sentences.format_size(row['excess_gap'], metric)} ({sentences.format_interval(row.get('excess_low'), row.get('excess_high'), metric)})"
                    if pd.notna(row.get("excess_gap"))
                    else ""
                ),
                "Adjusted p": sentences.format_p(
                    row["p_adjusted"] if "p_adjusted" in row else row.get("p")
                ).removeprefix("p "),
            }
        )
    frame = pd.DataFrame(rows)
    return Table(
        "Every comparison",
        frame,
        numeric=("Gap", "95 % interval", "Size alone", "Excess (95 % interval)", "Adjusted p"),
        folded=True,
    )


def _table_models(outputs: Outputs) -> Table:
    rows = [
        {
            "Model": model.name,
            "Kind": name_for_people(model.kind),
            "Prompt, from the expert's mask": "none known"
            if model.kind == "precomputed"
            else sentences.describe_prompt(model.prompt),
        }
        for model in outputs.parameters.models
    ]
    return Table("Models", pd.DataFrame(rows))


def _table_bins(outputs: Outputs) -> Table:
    rows = [
        {
            "Attribute": _label_attribute(outputs, name),
            "Groups": sentences.list_words(_count_groups(outputs, name)) or "not known before 01_cohort has run",
        }
        for name in outputs.attributes
    ]
    return Table("Groups", pd.DataFrame(rows))


def _read_date(outputs: Outputs) -> str:
    """Return the day of the last finished stage; today where the folder does not say."""
    stages = outputs.run.get("stages") or {}
    days = [str(record.get("finished_at", ""))[:10] for record in stages.values() if isinstance(record, dict)]
    return max((day for day in days if day), default=date.today().isoformat())


def _figures_fairness(outputs: Outputs) -> list[Block]:
    """Return gaps, what size explains of them, and the people behind every difference that is shown."""
    from helpers.figures import fairness as figures

    disparity, metric = escape_for_plotly(outputs.disparity), _main_metric(outputs)
    name = sentences.METRIC_NAMES[metric]
    blocks: list[Block] = [
        Heading("How far apart the groups are"),
        Figure(
            figures.plot_gap_forest(disparity, metric),
            f"Each mark is the gap in {name} between the best and the worst group; the line is its 95 % interval, the shaded band is "
            "the margin below which a gap is of no consequence. A line that crosses zero means that no gap is shown, not that there is "
            "none: its far end is how large it may be. Among three groups or more the largest gap is above zero by chance alone.",
        ),
    ]
    if metric == "dice" and "boundary_error_mm" in set(disparity["metric"]):
        blocks.append(
            Figure(
                figures.plot_gap_forest(disparity, "boundary_error_mm"),
                "The same in millimetres: how much further off the outline is in the worst group. This does not depend on organ size. "
                "The worst group may be another one than for Dice.",
            )
        )
    if "excess_gap" in disparity and disparity["excess_gap"].notna().any():
        blocks.append(
            Figure(
                figures.plot_size_explained(disparity),
                "Circle: the gap in Dice. Diamond: the gap that organ size alone would give, if everyone had the same error at the "
                "boundary. Square: the rest, with its 95 % interval. Where the square's line crosses zero, organ size may explain the gap.",
            )
        )
    return blocks + _figures_people(outputs, metric)


def _figures_people(outputs: Outputs, metric: str) -> list[Block]:
    """Return the people of every shown difference as dots; of the largest gap where none is shown."""
    from helpers.fairness import average_subjects
    from helpers.figures.fairness import plot_group_dots

    disparity, metrics = outputs.disparity, outputs.metrics
    if disparity is None or metrics is None or metric not in metrics:
        return []
    alpha, min_group = outputs.parameters.fairness.alpha, outputs.parameters.fairness.min_group
    rows = [row for row in disparity[disparity["metric"] == metric].to_dict("records") if pd.notna(row["gap"])]
    shown = [row for row in rows if sentences.judge_gap(row, alpha) in (Outcome.SHOWN, Outcome.SMALL)]
    told = shown or [max(rows, key=lambda row: row["gap"])]
    cohort = outputs.included.assign(subject=outputs.included["person"], scan=outputs.included["number"])
    for attribute in outputs.attributes:
        column = cohort[f"group_{attribute}"]
        cohort[f"group_{attribute}"] = column.mask(column.astype(str).isin(outputs.small.get(attribute, set())))
    people, _ = average_subjects(
        metrics.assign(subject=metrics["person"], scan=metrics["number"]), cohort, outputs.attributes, [metric]
    )
    people = escape_for_plotly(people.drop(columns="subject"))
    blocks: list[Block] = [
        Heading("The people behind the differences shown" if shown else "The people behind the largest gap")
    ]
    pairs = dict.fromkeys((row["model"], row["attribute"]) for row in sorted(told, key=lambda row: -row["gap"]))
    for model, attribute in list(pairs)[:_MOST_DOTS]:
        wanted = {row["organ"] for row in told if (row["model"], row["attribute"]) == (model, attribute)} | {"all"}
        organs = [organ for organ in dict.fromkeys(people["organ"]) if organ in wanted]
        blocks.append(
            Figure(
                plot_group_dots(people, metric, attribute, model=model, organs=organs, min_group=min_group),
                "Each dot is one person, the box holds the middle half of the group, the line in it is the median. See how far the "
                "groups overlap, and whether a few people or all of them make the difference.",
            )
        )
    if len(pairs) > _MOST_DOTS:
        blocks.append(Text(f"{len(pairs) - _MOST_DOTS} more such figures are in the notebook 03_performance."))
    return blocks


def _figures_spatial(outputs: Outputs, summary: pd.DataFrame) -> list[Block]:
    """Return where groups differ on each organ, in words, then each organ's surface."""
    from helpers.spatial import describe_location

    maps = outputs.maps
    rows = []
    for row in summary[summary["peak_difference_mm"].notna()].to_dict("records"):
        part = _select_map(maps, row["model"], row["organ"])
        part = part[part["attribute"] == row["attribute"]].sort_values("vertex")
        template = outputs.templates.get(row["organ"])
        place = describe_location(
            part[["x", "y", "z"]].to_numpy(float),
            part["difference"].to_numpy(float),
            template.faces if template is not None and len(template.vertices_mm) == len(part) else None,
            positive=f"larger for “{row['group_a']}”",
            negative=f"smaller for “{row['group_a']}”",
        )
        rows.append((row, place))
    shown = _list_shown(outputs)
    rows.sort(key=lambda item: (_place(item[0]) not in shown, -abs(item[0]["peak_difference_mm"])))
    blocks: list[Block] = [
        Text(
            "At each place of a common organ shape, the error is how far the model's outline lies outside (+) or inside (−) the expert's, in mm, "
            "averaged over a group. The difference of two groups shows where one of them is drawn larger or smaller than the other. "
            "Nothing here is tested: where the organ as a whole shows no difference, take a place for a hint at most."
        )
    ]
    if rows:
        blocks.append(Bullets(tuple(sentences.describe_place(row, place) for row, place in rows[:3])))
    else:
        blocks.append(Note("No two groups were large enough to compare their errors on an organ."))
    blocks += _figures_surface(outputs, [(row["model"], row["organ"]) for row, _ in rows])
    if rows:
        table = pd.DataFrame(
            [
                {
                    "Model": row["model"],
                    "Organ": sentences.name_organ(row["organ"]),
                    "By": name_for_people(row["attribute"]),
                    "Compared (people)": f"“{row['group_a']}” ({row['n_a']:.0f}) against “{row['group_b']}” ({row['n_b']:.0f})",
                    "Largest difference": sentences.format_size(
                        row["peak_difference_mm"], "boundary_error_mm", signed=True
                    ),
                    "Where": place,
                }
                for row, place in rows
            ]
        )
        blocks.append(
            Table(
                "Where groups differ on the organ's surface",
                table,
                numeric=("Largest difference",),
                folded=len(table) > 12,
            )
        )
    return blocks


def _figures_surface(outputs: Outputs, first: list[tuple[str, str]]) -> list[Block]:
    """Return a surface per model and organ, those in `first` before the others."""
    from helpers.figures.spatial import plot_error_surface

    maps, groups = outputs.maps, outputs.spatial_groups
    if maps is None:
        return []
    every = maps[["model", "organ"]].drop_duplicates().itertuples(index=False, name=None)
    blocks: list[Block] = []
    pairs = [(model, organ) for model, organ in dict.fromkeys([*first, *every]) if organ in outputs.templates]
    for model, organ in pairs[:_MOST_SURFACES]:
        template, part = outputs.templates[organ], _select_map(maps, model, organ)
        if (part.groupby("attribute", sort=False).size() != len(template.vertices_mm)).any():
            blocks.append(
                Note(
                    f"The maps of {sentences.name_organ(organ)} do not fit its template: run 04_spatial again.",
                    "warning",
                )
            )
            continue
        counts = escape_for_plotly(_select_map(groups, model, organ)) if groups is not None and len(groups) else None
        figure = plot_error_surface(
            template.vertices_mm,
            template.faces,
            escape_for_plotly(part),
            groups=counts,
            title=f"{sentences.name_organ(organ).capitalize()}: where the outlines of {model} lie",
        )
        blocks.append(Figure(figure, _HOW_SURFACE))
    if len(pairs) > _MOST_SURFACES:
        blocks.append(Text(f"{len(pairs) - _MOST_SURFACES} more such surfaces are in the notebook 04_spatial."))
    return blocks


def _select_map(table: pd.DataFrame, model: str, organ: str) -> pd.DataFrame:
    return table[(table["model"] == model) & (table["organ"] == organ)]


def _place(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["model"], row["organ"], row["attribute"]


def _list_shown(outputs: Outputs) -> set[tuple[str, str, str]]:
    """Return (model, organ, attribute) of every difference shown in the main metric."""
    disparity = outputs.disparity
    if disparity is None or disparity.empty:
        return set()
    rows = disparity[disparity["metric"] == _main_metric(outputs)].to_dict("records")
    found = [
        row
        for row in rows
        if sentences.judge_gap(row, outputs.parameters.fairness.alpha) in (Outcome.SHOWN, Outcome.SMALL)
    ]
    return {_place(row) for row in found}
