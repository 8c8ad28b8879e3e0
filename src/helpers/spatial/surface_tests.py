"""All tests of a study's surfaces: designed, made wherever the study computes, tabulated."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import storage
from helpers.compute import CaseFailure, map_cases
from helpers.fairness.confounding import VOLUME, choose_covariates, choose_step, find_roles, is_numeric
from helpers.fairness.groups import find_changing, read_covariates
from helpers.kept import Kept
from helpers.schema import TABLES
from helpers.spatial import tables
from helpers.spatial.contrasts import (
    ABSOLUTE,
    ANY_GROUP,
    MISS,
    SIGNED,
    Design,
    SurfaceTest,
    design_groups,
    design_slope,
    name_test,
    run_test,
)
from helpers.spatial.maps import PeopleErrors, average_groups, group_subjects, list_attributes
from helpers.spatial.tables import AttributeTests
from helpers.spatial.template import Template
from helpers.study import Study
from helpers.vocabulary.words import UNITS, count, list_words, name_organ

# A test holds the errors of its people several times over: at most so many people × vertices.
_VALUES_TESTED = 20_000_000


def plan_tests(
    study: Study,
    cohort: pd.DataFrame,
    model: str,
    organ: str,
    people: PeopleErrors,
    missed: Sequence[str],
    volumes_ml: pd.Series,
    folder: Path,
) -> list[AttributeTests]:
    """Average groups and design the tests of one model and organ, for each attribute.

    `missed` are the subjects with a scan in which the organ was missed; `volumes_ml` is each
    subject's reference volume, by subject; `folder` holds the people's errors for the tests.
    """
    parameters = study.parameters
    min_group = parameters.fairness.min_group
    arrays = {SIGNED: people.signed_mm, ABSOLUTE: people.absolute_mm, MISS: people.miss}
    digest = hashlib.sha256(repr(people.signed_mm.shape).encode())
    for array in arrays.values():
        digest.update(np.ascontiguousarray(array))  # type: ignore[arg-type]
    attributes = list_attributes(cohort)
    confounders = [name for name in parameters.cohort.confounders if name in cohort and name not in attributes]
    names = [name for name in (*attributes, *confounders) if name in cohort]
    subjects = pd.Index(people.subjects.astype(str))
    known = read_covariates(cohort, subjects, names)
    cluster = parameters.cohort.cluster
    clusters = None if cluster is None else read_covariates(cohort, subjects, [cluster])[cluster]
    grouped = {attribute: group_subjects(cohort, attribute, people.subjects) for attribute in attributes}
    labels = pd.DataFrame({name: groups.to_numpy(object) for name, groups in grouped.items()}, index=known.index)
    has_error, has_any = people.measured, np.isfinite(people.miss).any(axis=1)
    limit, wanted = _VALUES_TESTED // people.signed_mm.shape[1], []
    draw = np.array([study.seed_for("spatial", "tested", subject) for subject in subjects])
    for attribute, groups in grouped.items():
        signed = average_groups(people.signed_mm, groups, min_group=min_group)
        first, second = pair = (signed.group_a, signed.group_b)
        maps = {SIGNED: signed} | {
            measure: average_groups(arrays[measure], groups, min_group=min_group, pair=pair)
            for measure in (ABSOLUTE, MISS)
        }
        of_missed = group_subjects(cohort, attribute, pd.Index(sorted(set(missed)))).astype(str)
        one = AttributeTests(
            (model, organ, attribute),
            maps,
            {group: int((of_missed == group).sum()) for group in signed.counts},
            folder,
            digest.hexdigest(),
        )
        before, _ = find_roles(attribute, attributes, confounders, parameters.fairness.adjust)
        covariates = choose_covariates(attribute, before, known, labels)
        if parameters.fairness.adjust_for_volume:
            covariates = covariates.assign(**{VOLUME: np.log(volumes_ml.reindex(subjects).to_numpy(float))})
        drawn = _draw_people(groups.cat.codes.to_numpy(), draw, limit)
        one.drawn = int(drawn.sum()) if len(drawn) > limit else 0
        if first is not None and second is not None:
            for measure, known_of in ((SIGNED, has_error), (ABSOLUTE, has_error), (MISS, has_any)):
                present = known_of & drawn
                one.designs[measure] = design_groups(
                    present,
                    groups,
                    (first, second),
                    covariates,
                    min_group=min_group,
                    attribute=attribute,
                    clusters=clusters,
                )
            if len(one.designs[SIGNED].names) > 2 and one.designs[SIGNED].linked:
                one.designs[ANY_GROUP] = one.designs[SIGNED]
        one.changing = len(set(find_changing(cohort, attribute)) & set(subjects))
        if attribute in known and is_numeric(known[attribute]):
            numbers = known[attribute].to_numpy(float, na_value=np.nan)
            one.step = choose_step(attribute, numbers)
            settings = parameters.cohort.attributes.get(attribute)
            one.unit = (settings.unit if settings is not None else "") or UNITS.get(attribute, "")
            slope = design_slope(
                has_error & drawn, numbers / one.step, covariates, min_group=min_group, clusters=clusters
            )
            one.slope_designs = {SIGNED: slope, ABSOLUTE: slope}
        wanted.append(one)
    return wanted


def make_tests(study: Study, wanted: Sequence[AttributeTests], templates: dict[str, Path], notes: list[str]) -> None:
    """Make all tests, wherever the study computes, and keep what they find in `wanted`."""
    jobs = [(one, kind) for one in wanted for kind in ("groups", "slope") if _list_designs(one, kind)]
    kept, contents = Kept(study.folder, "tests"), {organ: storage.hash_file(path) for organ, path in templates.items()}
    cases = [
        SurfaceTest(
            folder=one.folder,
            template=templates[one.key[1]],
            designs=_list_designs(one, kind),
            min_group=study.parameters.fairness.min_group,
            permutations=study.parameters.spatial.permutations,
            seed=study.seed_for("spatial", *one.key, kind),
        )
        for one, kind in jobs
    ]
    keys = [name_test(case, one.content, contents[one.key[1]]) for case, (one, _) in zip(cases, jobs, strict=True)]
    cases = [replace(case, kept=kept.path(key)) for case, key in zip(cases, keys, strict=True)]
    names = [f"{model}, {name_organ(organ)}, {attribute}" for (model, organ, attribute) in (one.key for one, _ in jobs)]
    found = map_cases(run_test, cases, ids=names, compute=study.parameters.compute, label="surface tests")
    kept.sweep(keys)
    for (one, kind), name, effects in zip(jobs, names, found, strict=True):
        if isinstance(effects, CaseFailure):
            notes.append(f"{name}: the test could not be made ({effects.error})")
        elif kind == "groups":
            one.effects = effects
        else:
            one.slopes = effects


def tabulate_tests(
    study: Study, cohort: pd.DataFrame, wanted: Sequence[AttributeTests], templates: dict[str, Template]
) -> dict[str, pd.DataFrame]:
    """Return the tables ``maps``, ``slopes``, ``summary``, ``slope_summary`` and ``groups``."""
    columns, alpha = tables.list_map_columns(cohort), study.parameters.fairness.alpha
    maps = [tables.type_map(pd.DataFrame(columns=columns), "maps")]
    slopes = [tables.type_map(pd.DataFrame(columns=TABLES["slopes"].names), "slopes")]
    summary, slope_summary, groups = [], [], []
    for one in wanted:
        template = templates[one.key[1]]
        maps.append(tables.tabulate_maps(one, template, columns))
        summary.append(tables.summarise_maps(one, template, alpha=alpha))
        groups += tables.list_groups(one, template)
        if one.step:
            slopes.append(tables.tabulate_slopes(one, template))
            slope_summary.append(tables.summarise_slopes(one, template, alpha=alpha))
    summaries = tables.adjust_over_maps(
        pd.DataFrame(summary, columns=TABLES["spatial_summary"].names),
        pd.DataFrame(slope_summary, columns=TABLES["slope_summary"].names),
    )
    return {
        "maps": _join(maps),
        "slopes": _join(slopes),
        "summary": tables.type_table(summaries[0], "spatial_summary"),
        "slope_summary": tables.type_table(summaries[1], "slope_summary"),
        "groups": tables.type_table(pd.DataFrame(groups), "spatial_groups"),
    }


def list_notes(wanted: Sequence[AttributeTests], min_group: int) -> list[str]:
    """Return sentences on groups without a map and people who take no part in tests.

    What holds for several models alike is said once and names them.
    """
    of_models: dict[str, list[str]] = {}
    for one in wanted:
        (model, organ, attribute), signed, design = one.key, one.maps[SIGNED], one.designs.get(SIGNED)
        said = []
        if signed.suppressed:
            told = f"{attribute}: no map for {', '.join(signed.suppressed)} (fewer than {min_group} subjects)"
            of_models[told] = []
        if one.drawn:
            said.append(
                f"tests take {one.drawn} people, drawn by the study's seed, of every group as many where there are: "
                "more would not fit into memory; maps show everybody"
            )
        if design is not None and design.left_out:
            people = count(design.left_out, "person is", "people are")
            said.append(f"{people} in no test, because a covariate is not known of them")
        said += [found.note for found in (design, one.slope_designs.get(SIGNED)) if found is not None and found.note]
        for told in said:
            of_models.setdefault(f"{name_organ(organ)}, {attribute}: {told}", []).append(model)
        if one.changing:
            of_models[f"{attribute}: {one.changing} people have scans in several groups, and are in no map of it"] = []
        if len(signed.counts) > 2 and signed.group_a is not None:
            told = (
                f"{attribute}: of more than two groups, {signed.group_a} is compared with {signed.group_b}, "
                "whatever the errors are; F tests all groups together"
            )
            of_models[told] = []
    return [f"{list_words(models)}, {told}" if models else told for told, models in of_models.items()]


def _draw_people(groups: np.ndarray, draw: np.ndarray, limit: int) -> np.ndarray:
    """Draw up to `limit` people, the lowest numbers of each group; small groups stay whole.

    `groups`, int, (n_people,); `draw`, int, (n_people,), a number of each one's own. Returns bool,
    (n_people,).
    """
    if len(groups) <= limit:
        return np.ones(len(groups), bool)
    left, most = limit, 0
    sizes = np.sort(np.unique(groups, return_counts=True)[1])
    for place, size in enumerate(sizes):
        most = left // (len(sizes) - place)  # what of the rest comes to each group that is left
        if size > most:
            break
        left -= size
    ranks = pd.Series(draw).groupby(groups).rank(method="first").to_numpy()
    return ranks <= most


def _list_designs(one: AttributeTests, kind: str) -> dict[str, Design]:
    designs = one.designs if kind == "groups" else one.slope_designs
    return {measure: design for measure, design in designs.items() if not design.note}


def _join(parts: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts[1:] or parts, ignore_index=True)
