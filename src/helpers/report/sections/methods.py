"""A paragraph fit to paste, its references, and where the numbers come from."""

from __future__ import annotations

from datetime import date

import pandas as pd

from helpers import __version__
from helpers.fairness.audit import INTERVAL_METHOD
from helpers.report.blocks import Block, Bullets, Heading, ReportSection, ReportTable, Text
from helpers.report.outputs import Outputs
from helpers.report.sections.questions import count_groups, drop_empty, label_attribute, read_key, tell_tolerance
from helpers.report.sentences.study import describe_prompt, describe_prompts
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.words import CLUSTERED_TEST, CORRECTIONS, FAMILIES, format_value, list_words, name_for_people

_PLACE = ("methods", "Methods and provenance", "Methods")
_PACKAGES_TOLD = (
    "numpy", "scipy", "pandas", "statsmodels", "pingouin", "SimpleITK", "surface-distance", "scikit-image",
    "segment-anything", "torch", "plotly",
)  # fmt: skip
_REFERENCES = {
    "study": "Li Q, et al. An empirical study on the fairness of foundation models for multi-organ image segmentation. "
    "arXiv:2406.12646, 2024.",
    "nsd": "Nikolov S, Blackwell S, Zverovitch A, et al. Clinically applicable segmentation of head and neck anatomy "
    "for radiotherapy. J Med Internet Res 2021;23:e26151 (surface Dice; the surface-distance package).",
    "metrics": "Maier-Hein L, Reinke A, Godau P, et al. Metrics reloaded: recommendations for image analysis "
    "validation. Nat Methods 2024;21:195–212.",
    "equivalence": "Schuirmann DJ. A comparison of the two one-sided tests procedure and the power approach. J "
    "Pharmacokinet Biopharm 1987;15:657–680. Berger RL. Multiparameter hypothesis testing and acceptance sampling. "
    "Technometrics 1982;24:295–300.",
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65–70.",
    "fdr_bh": "Benjamini Y, Hochberg Y. Controlling the false discovery rate. J R Stat Soc B 1995;57:289–300.",
    "max_t": "Westfall PH, Young SS. Resampling-based multiple testing. Wiley, 1993.",
    "sam": "Kirillov A, Mintun E, Ravi N, et al. Segment anything. ICCV 2023.",
    "medsam": "Ma J, He Y, Li F, Han L, You C, Wang B. Segment anything in medical images. Nat Commun 2024;15:654.",
    "sam2": "Ravi N, Gabeur V, Hu YT, et al. SAM 2: segment anything in images and videos. ICLR 2025.",
    "medsam2": "Ma J, Yang Z, Kim S, et al. MedSAM2: segment anything in 3D medical images and videos. "
    "arXiv:2504.03600, 2025.",
    "nninteractive": "Isensee F, Rokuss M, Krämer L, et al. nnInteractive: redefining 3D promptable segmentation. "
    "arXiv:2503.08373, 2025.",
    "voxtell": "Rokuss M, Langenberg M, Kirchhoff Y, et al. VoxTell: free-text promptable universal 3D medical image "
    "segmentation. arXiv:2511.11450, 2025.",
}


def compose_methods(outputs: Outputs) -> ReportSection:
    """Compose a paragraph fit to paste, its references, and where the numbers come from."""
    facts = pd.DataFrame(_list_facts(outputs).items(), columns=["What", "Which"])
    blocks: list[Block] = [Text(_write_paragraph(outputs), lead="To paste into a paper")]
    blocks += [Heading("References"), Bullets(tuple(_list_references(outputs)))]
    blocks += [Heading("What was compared"), _tabulate_models(outputs), _tabulate_groups(outputs)]
    blocks += _tabulate_adjustment(outputs)
    blocks += [Heading("Provenance"), ReportTable("What the numbers were made with", facts)]
    return ReportSection(*_PLACE, tuple(blocks))


def _tabulate_adjustment(outputs: Outputs) -> list[Block]:
    """Return the linear models behind the adjusted gaps, and why some have none."""
    notes = outputs.adjusted_notes
    if notes is None or notes.empty or "covariates" not in notes:
        return []
    counted: dict[tuple[str, ...], int] = {}
    for row in notes[notes["metric"] == outputs.main_metric].to_dict("records"):
        key = read_key(row)
        names, direct = outputs.covariates.get(key, []), outputs.mediators.get(key, [])
        attribute = name_for_people(key[3])
        formula = f"{find_measure(key[2]).name} ~ {' + '.join([attribute, *names])}" if names else "not adjusted"
        told = [str(row.get(name) or "") for name in ("note", "warnings")]
        dropped = str(row.get("dropped") or "")
        told += [f"left out: {dropped}"] if dropped not in ("", "nan") else []
        cells = (attribute, formula, " + ".join(direct), "; ".join(text for text in told if text not in ("", "nan")))
        counted[cells] = counted.get(cells, 0) + 1
    if not counted:
        return []
    columns = ["By", "Linear model of the adjusted gap", "Direct gap: adjusted for as well", "What to mind"]
    rows = [dict(zip(columns, cells, strict=True)) | {"Comparisons": str(number)} for cells, number in counted.items()]
    return [
        Heading("What the gaps are adjusted for"),
        Text(
            "One linear model per comparison, with standard errors that hold where groups vary differently (HC3). "
            "Numbers enter as natural cubic splines where people are many enough, else as lines; categories by level. "
            "People who lack a covariate are not in it."
        ),
        ReportTable("The design of the adjustment", drop_empty(rows, columns), numeric=("Comparisons",), folded=True),
    ]


def _list_facts(outputs: Outputs) -> dict[str, str]:
    run, commit = outputs.run, str(outputs.run.get("git_commit") or "")
    facts = {
        "Report made from results of": read_date(outputs),
        "segfair": __version__,
        "Code version (git commit)": commit[:9] + (" with local changes" if commit.endswith("+changes") else ""),
        "Parameters (hash)": str(run.get("parameters_hash") or "")[:12],
        "Python": str(run.get("python") or ""),
    }
    return {name: fact for name, fact in facts.items() if fact} | _list_packages(outputs)


def read_date(outputs: Outputs) -> str:
    """Return the day of the last finished stage; today where the folder does not say."""
    stages = outputs.run.get("stages") or {}
    days = [str(record.get("finished_at", ""))[:10] for record in stages.values() if isinstance(record, dict)]
    return max((day for day in days if day), default=date.today().isoformat())


def _write_paragraph(outputs: Outputs) -> str:
    parameters, fairness = outputs.parameters, outputs.parameters.fairness
    margins = list_words(
        f"{format_value(value, metric) if isinstance(value, float) else value} for {find_measure(metric).name}"
        for metric, value in fairness.margin.items()
        if metric in fairness.metrics
    )
    groups = list_words(label_attribute(outputs, name) for name in outputs.attributes)
    packages = _list_packages(outputs)
    told = list_words(f"{name} {packages[name]}" for name in _PACKAGES_TOLD if name in packages)
    correction = (
        f"adjusted by {CORRECTIONS[fairness.correction]}, together for {FAMILIES[fairness.family]}"
        if fairness.correction != "none"
        else "not adjusted for their number"
    )
    cluster = parameters.cohort.cluster
    test, drawn = f"studentised permutation test of means, {fairness.permutations} permutations of people", "people"
    if cluster:
        test, drawn = f"{CLUSTERED_TEST}, clusters by {name_for_people(cluster)}", "whole clusters"
    prompts = f" {describe_prompts(outputs.prompts, ())}" if outputs.prompts else ""
    adjusted = (
        f" Adjusted gaps come from linear models with {list_words(outputs.adjusted_for)} as covariates and "
        "heteroscedasticity-consistent standard errors; matched gaps from one-to-one pairs of people."
        if outputs.adjusted_for
        else ""
    )
    version = f"segfair {__version__}{f' ({told})' if told else ''}"
    measures = list_words(find_measure(metric).name for metric in fairness.metrics)
    made = (
        f"Masks were compared with {version}.{prompts} Per person, model and organ we computed {measures}; surface "
        f"Dice used a tolerance of {tell_tolerance(outputs)}."
        if outputs.has_masks
        else f"Ready-made scores were audited with {version}: per person, model and organ, {measures}."
    )
    if len(fairness.metrics) > 1:
        made += f" The primary measure is {find_measure(fairness.primary).name}."
    size = (
        " The part of a Dice gap due to organ size is the gap in the Dice each person would have under the cohort's "
        "mean boundary error."
        if outputs.has_masks or outputs.knows_size
        else ""
    )
    return (
        f"{made} Several scans of one person were averaged first; the person "
        f"is the unit of all statistics. Groups by {groups} with at least {fairness.min_group} people were compared. "
        f"Gaps between group means carry 95 % {INTERVAL_METHOD} intervals over {drawn} "
        f"({fairness.bootstrap} draws, seed {parameters.seed}); p-values ({test}) "
        f"are {correction}, at {fairness.alpha:g}. "
        f"Gaps up to {margins or 'no margin'} were considered unimportant, set beforehand; a disparity needs a "
        "significant test and an interval of a difference beyond that margin, equivalence two one-sided Welch tests of "
        f"every pair of groups.{size}{adjusted}"
    )


def _list_references(outputs: Outputs) -> list[str]:
    fairness = outputs.parameters.fairness
    kinds = {model.kind for model in outputs.parameters.models}
    names = ["study", "metrics"]
    names += ["nsd"] if "nsd" in fairness.metrics else []
    names += ["equivalence"]
    names += [fairness.correction] if fairness.correction in _REFERENCES else []
    names += [kind for kind in ("sam", "medsam", "sam2", "medsam2", "nninteractive", "voxtell") if kind in kinds]
    return [_REFERENCES[name] for name in names]


def _list_packages(outputs: Outputs) -> dict[str, str]:
    return {name: version for name, version in (outputs.run.get("packages") or {}).items() if version}


def _tabulate_models(outputs: Outputs) -> ReportTable:
    rows = [{"Model": name, "Kind": "ready-made scores"} for name in outputs.models if not outputs.has_masks]
    for model in outputs.parameters.models:
        told = outputs.model_facts.set_index("model").loc[model.name]
        row = {"Model": model.name, "Kind": name_for_people(model.kind)}
        row |= {"Made of": told["made_of"]} if (outputs.model_facts["made_of"] != "").any() else {}
        row |= {"Trained on": told["trained_on"] or "not recorded"}
        if outputs.prompts:
            prompt = outputs.prompts.get(model.name)
            row["Prompt, from the expert's mask"] = "none known" if prompt is None else describe_prompt(prompt)
        rows.append(row)
    return ReportTable("Models", pd.DataFrame(rows))


def _tabulate_groups(outputs: Outputs) -> ReportTable:
    groups = {name: list_words(count_groups(outputs, name)) for name in outputs.attributes}
    unknown = "not known before 01_cohort has run"
    rows = [{"Attribute": label_attribute(outputs, name), "Groups": told or unknown} for name, told in groups.items()]
    return ReportTable("Groups", pd.DataFrame(rows))
