"""What is tested on a surface: two groups, all groups, or a slope, adjusted for covariates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.kept import hash_code, read_arrays, write_arrays
from helpers.spatial.template import Template
from helpers.statistics.clustered import name_alone
from helpers.statistics.covariates import CovariateFit, encode_covariates, fit_with_covariates, read_labels
from helpers.statistics.freedman_lane import SurfaceEffect, infer_effect
from helpers.statistics.overlap import LEAST_EXCEPTIONS, explain_pair, find_apart, keep_linked
from helpers.statistics.tfce import MeshGraph, link_vertices

SIGNED, ABSOLUTE, MISS, ANY_GROUP = "signed", "absolute", "miss", "any_group"


@dataclass(frozen=True)
class Design:
    """Who takes part in a test, and what is fitted to their errors."""

    rows: np.ndarray  # int, (n,): places among the people of the model and organ
    tested: np.ndarray  # float64, (n,): two groups: 1 in the first, else 0; a slope: number in steps
    others: np.ndarray  # float64, (n, k): adjusted for, with the groups that are not compared
    groups: np.ndarray  # int, (n,): each one's group, in the order of `names`; 0 for a slope
    names: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()  # those adjusted for
    # People left out because a covariate is unknown, or their level of one is nearly unshared.
    left_out: int = 0
    dropped: str = ""  # covariates that are not adjusted for, and why
    note: str = ""  # why nothing is tested; empty where something is
    linked: bool = True  # whether every two of the groups can be told from the covariates
    # int, (n,): each one's cluster, within which people are permuted, −1 for none; None without.
    clusters: np.ndarray | None = None


@dataclass(frozen=True)
class SurfaceTest:
    """One test to make: paths and small arrays, so that it can be made anywhere."""

    folder: Path  # with signed.npy, absolute.npy and miss.npy, each (n_people, n_vertices)
    template: Path
    # By measure ("signed", "absolute", "miss"); "any_group" tests all groups' signed errors.
    designs: dict[str, Design] = field(default_factory=dict)
    # A vertex that fewer of a compared group have is not tested; of a slope, twice as many in all.
    min_group: int = 10
    permutations: int = 2000
    seed: int = 0
    kept: Path | None = None  # the file to keep what is found in, named by all that it depends on


def design_groups(
    present: np.ndarray,
    groups: pd.Series,
    pair: tuple[str, str],
    covariates: pd.DataFrame,
    *,
    min_group: int,
    attribute: str = "the groups",
    clusters: pd.Series | None = None,
) -> Design:
    """Design the comparison of two groups, adjusted for covariates.

    `present`, bool, (n_people,), says who has errors; the effect is first − second of `pair`.
    `covariates`, (n_people, n_covariates), are as
    :func:`helpers.fairness.confounding.choose_covariates` chooses them. Groups smaller than
    `min_group` take no part; people of other groups do: they help to tell the covariates' effects.
    Groups of `attribute` that cannot be told from a covariate are not compared
    (:func:`helpers.statistics.overlap.find_apart`); nor are all groups together where any two
    of them cannot. People of one of the `clusters`, (n_people,) by name, are permuted among
    themselves; groups that can hardly be told from these are not compared either.
    """
    labels = read_labels(groups.to_numpy(object))
    order = [str(name) for name in groups.cat.categories]

    def list_names(rows: np.ndarray) -> list[str]:
        found = set(labels[rows])
        return [name for name in order if name in found]

    def make_base(rows: np.ndarray) -> np.ndarray | None:
        names = list_names(rows)
        if not set(pair) <= set(names):
            return None
        return (labels[rows][:, None] == np.array(names, object)[None, :]).astype(float)

    encoded = encode_covariates(covariates)
    fit = fit_with_covariates(present & pd.notna(labels), encoded, make_base, "the groups", labels, min_group)
    if fit.base is None:
        return _design_nothing(fit, f"{pair[0]} and {pair[1]}: fewer than {min_group} people with all covariates known")
    kept = keep_linked(labels, fit, min_group)
    if (kept != labels).any() and set(pair) <= set(kept[fit.rows]):
        again = pd.Series(pd.Categorical(kept, order))
        design = design_groups(
            present, again, pair, covariates, min_group=min_group, attribute=attribute, clusters=clusters
        )
        return replace(design, linked=False)
    names = list_names(fit.rows)
    codes = fit.base.argmax(axis=1)
    linked = True
    if not fit.tell_shortage():
        told = find_apart(attribute, names, labels, fit, encoded, min_group)
        first, second = sorted(names.index(name) for name in pair)
        if (first, second) in told:
            return _design_nothing(fit, told[first, second])
        linked = not told
    if clusters is not None:
        [cluster], least = encode_covariates(clusters.astype("str").where(clusters.notna()).to_frame()), min_group
        sides = [fit.rows & (labels == name) for name in pair]
        if why := explain_pair(attribute, pair, cluster, sides, min(LEAST_EXCEPTIONS, least)):
            return _design_nothing(fit, f"nothing was tested: {why}")
    apart = [place for place, name in enumerate(names) if name not in pair]
    others = np.column_stack([fit.base[:, apart], fit.columns])
    design = _finish(fit, fit.base[:, names.index(pair[0])], others, codes, tuple(names), clusters)
    return replace(design, linked=linked)


def design_slope(
    present: np.ndarray,
    steps: np.ndarray,
    covariates: pd.DataFrame,
    *,
    min_group: int,
    clusters: pd.Series | None = None,
) -> Design:
    """Design the slope along a number, adjusted for covariates.

    `present`, bool, (n_people,), says who has errors; `steps`, float, (n_people,), is the number in
    the unit the slope is stated per (decades of age), NaN where unknown. Nothing is fitted to fewer
    than twice `min_group` people, of `clusters` (:func:`design_groups`) in which it varies.
    """

    def make_base(rows: np.ndarray) -> np.ndarray | None:
        if rows.sum() < 2 * min_group or np.ptp(steps[rows]) == 0:
            return None
        return np.column_stack([np.ones(rows.sum()), steps[rows]])

    known = present & np.isfinite(steps)
    fit = fit_with_covariates(known, encode_covariates(covariates), make_base, "the attribute")
    if fit.base is None:
        return _design_nothing(fit, f"fewer than {2 * min_group} people, or all alike: no slope")
    if why := fit.tell_mimicry():
        return _design_nothing(fit, why)
    steps = fit.base[:, 1] - fit.base[:, 1].mean()
    design = _finish(fit, steps, fit.columns, np.zeros(len(steps), int), (), clusters)
    if clusters is not None and design.clusters is not None:
        within = pd.Series(steps).groupby(name_alone(design.clusters)).transform(np.ptp)
        if (within > 0).sum() < 2 * min_group:
            few = 2 * min_group
            said = (
                f"nothing was tested along it: fewer than {few} people are of a cluster ({clusters.name}) "
                "in which it varies"
            )
            return _design_nothing(fit, said)
    return design


def run_test(case: SurfaceTest) -> dict[str, SurfaceEffect]:
    """Make the tests of one contrast.

    Effects are by measure. Clusters are enhanced for signed errors alone. Between groups, distances
    have a variance per group; misses, which are 0 or 1, have the one that equal means imply.
    """
    if case.kept is not None and (arrays := read_arrays(case.kept)) is not None:
        return _unpack(arrays)
    template = Template.load(case.template)
    mesh = link_vertices(template.faces, template.areas_mm2)
    found = {}
    for measure, design in case.designs.items():
        if design.note:
            continue
        path = case.folder / f"{SIGNED if measure == ANY_GROUP else measure}.npy"
        errors = np.load(path, mmap_mode="r")[design.rows]
        tested, others = design.tested, design.others
        if measure == ANY_GROUP:
            tested = (design.groups[:, None] == np.arange(1, len(design.names))).astype(float)
            others = others[:, len(design.names) - 2 :]  # without the groups that are not compared: here they are
        graph: MeshGraph | None = mesh if measure == SIGNED else None
        found[measure] = infer_effect(
            _hide_sparse(errors, design, case.min_group),
            tested,
            seed=case.seed,
            covariates=others,
            variance_groups=design.groups if design.names and measure != MISS else None,
            clusters=design.clusters,
            mesh=graph,
            permutations=case.permutations,
        )
    if case.kept is not None:
        write_arrays(case.kept, _pack(found))
    return found


def name_test(case: SurfaceTest, errors: str, template: str) -> str:
    """Return the key of a test: a hash of its errors, its template and who takes part."""
    digest = hashlib.sha256(repr((hash_code("spatial.contrasts"), errors, template)).encode())
    digest.update(repr((case.min_group, case.permutations, case.seed)).encode())
    for measure, design in case.designs.items():
        arrays = [design.rows, design.tested, design.others, design.groups]
        arrays += [design.clusters] if design.clusters is not None else []
        digest.update(repr((measure, design.names, design.note, [(one.dtype, one.shape) for one in arrays])).encode())
        for one in arrays:
            digest.update(np.ascontiguousarray(one).tobytes())
    return digest.hexdigest()[:32]


def _pack(effects: Mapping[str, SurfaceEffect]) -> dict[str, np.ndarray]:
    """Return the fields of effects as arrays; sentences as one of text."""
    return {
        f"{measure}.{name}": np.asarray(value, str) if name == "notes" else np.asarray(value)
        for measure, effect in effects.items()
        for name, value in vars(effect).items()
    }


def _unpack(arrays: Mapping[str, np.ndarray]) -> dict[str, SurfaceEffect]:
    """Return what :func:`_pack` packed."""
    fields: dict[str, dict[str, Any]] = {}
    for key, array in arrays.items():
        measure, name = key.split(".")
        value = tuple(array.tolist()) if name == "notes" else array if array.ndim else array.item()
        fields.setdefault(measure, {})[name] = value
    return {measure: SurfaceEffect(**values) for measure, values in fields.items()}


def _hide_sparse(errors: np.ndarray, design: Design, min_group: int) -> np.ndarray:
    """Return the errors without the vertices that too few people of a group have."""
    known = np.isfinite(errors)
    if design.names:
        enough = np.all(
            [known[design.groups == code].sum(axis=0) >= min_group for code in range(len(design.names))], axis=0
        )
    else:
        enough = known.sum(axis=0) >= 2 * min_group
    return np.where(enough, errors, np.nan)


def _design_nothing(fit: CovariateFit, note: str) -> Design:
    nothing = np.zeros(0, int)
    return Design(nothing, np.zeros(0), np.zeros((0, 0)), nothing, left_out=fit.n_missing, note=note)


def _finish(
    fit: CovariateFit,
    tested: np.ndarray,
    others: np.ndarray,
    groups: np.ndarray,
    names: tuple[str, ...],
    clusters: pd.Series | None,
) -> Design:
    why = fit.tell_shortage("people")
    return Design(
        np.flatnonzero(fit.rows),
        tested,
        others,
        groups,
        names,
        covariates=tuple(fit.used),
        left_out=fit.n_missing + fit.n_rare,
        dropped=fit.describe()["dropped"],
        note=f"nothing was tested: {why}" if why else "",
        clusters=None if clusters is None else pd.factorize(clusters)[0][fit.rows],
    )
