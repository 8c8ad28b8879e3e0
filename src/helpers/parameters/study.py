"""One YAML file per study, validated once: what a parameter file may say.

A typo, a wrong type or an impossible value ends in one message that names the key, the file and
what is allowed, and lists everything that is wrong at once.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from helpers.errors import ParameterError, SegfairError, quote, suggest
from helpers.parameters.faults import describe_faults
from helpers.parameters.models import AnyModel, Model
from helpers.parameters.sections import Name, Organ, Section, check_places, find_repeated
from helpers.parameters.yaml_text import LARGEST_BYTES, load_yaml
from helpers.vocabulary.measures import MEASURES, Measure, check_score, list_default_margins
from helpers.vocabulary.words import POOLED

WHO_BMI_BINS = (0.0, 18.5, 25.0, 30.0, math.inf)
WHO_BMI_LABELS = ("underweight", "normal weight", "overweight", "obese")
WHO_AGE_BINS = (0.0, 18.0, 45.0, 60.0, 75.0, math.inf)

# Columns of cohort.parquet that are not the user's, the places of a scan's files among them, and
# the organ's name in rows that pool organs.
RESERVED_COLUMNS = (
    "number", "subject", "person", "scan", "reference", "reference_recorded", "resampled", "image", "included",
    "reason", "note",
)  # fmt: skip
RESERVED_ORGAN = POOLED

# The source whose people come with ready-made scores instead of masks, the one whose label maps
# come with lookup tables, and the columns of tables of scores that are not scores.
SCORES = "scores"
BIDS = "bids"
# The sources whose masks may name their parts: by lookup tables, or in DICOM by names and codes.
NAMED_PARTS = (BIDS, "dicom", "table")
ScoreColumn = Literal["scan", "model", "organ", "run", "metric", "value"]


def _check_increasing(bins: list[float] | Literal["who"] | None) -> list[float] | Literal["who"] | None:
    if isinstance(bins, list) and (len(bins) < 2 or any(b <= a for a, b in pairwise(bins))):
        raise ValueError("bins must be at least two strictly increasing edges")
    return bins


class Attribute(Section):
    """How a column of the participants table becomes groups.

    ``categories`` for a column of words; ``bins`` (edges, closed on the left) for a column of
    numbers, or ``who`` for the World Health Organization's BMI or age bands. Bins are tested for a
    trend over their order too, and so are categories that are declared ``ordered``.
    """

    categories: list[str] | None = None
    ordered: bool = False
    bins: Annotated[list[float] | Literal["who"] | None, AfterValidator(_check_increasing)] = None
    labels: list[str] | None = None
    unit: str = ""

    @model_validator(mode="after")
    def _one_kind(self) -> Attribute:
        if (self.categories is None) == (self.bins is None):
            raise ValueError("an attribute needs either `categories` or `bins`")
        if self.categories is not None and not self.categories:
            raise ValueError("categories must name at least one group")
        if self.bins is not None:
            object.__setattr__(self, "ordered", True)
        for key, names in (("categories", self.categories), ("labels", self.labels)):
            if repeated := find_repeated(names or []):
                raise ValueError(
                    f"{key} names {', '.join(repeated)} more than once: give every group a name of its own"
                )
        if self.labels is not None and isinstance(self.bins, list) and len(self.labels) != len(self.bins) - 1:
            raise ValueError(
                f"labels must name {len(self.bins) - 1} groups, one between each two bin edges; got {len(self.labels)}"
            )
        return self


def _check_who(name: str, attribute: Attribute) -> None:
    """Refuse `bins: who` where the WHO has no bands, and labels that do not fit them."""
    bands = {"age": len(WHO_AGE_BINS) - 1, "bmi": len(WHO_BMI_LABELS)}
    if name not in bands:
        raise ValueError(f"attribute {name!r}: bins: who is for age and bmi alone: give the edges as a list")
    if attribute.labels is not None and len(attribute.labels) != bands[name]:
        raise ValueError(
            f"attribute {name!r}: labels must name {bands[name]} groups, one for each of the WHO's bands; got"
            f" {len(attribute.labels)}"
        )


class Plausible(Section):
    """Closed ranges outside of which a value is taken for a mistake and the scan is excluded."""

    age: tuple[float, float] = (0.0, 120.0)
    bmi: tuple[float, float] = (10.0, 90.0)


class Exclusions(Section):
    """Scans to leave out: implausible values by range, single scans by name with the reason."""

    plausible: Plausible = Plausible()
    scans: dict[str, str] = {}


class PlantedEffect(Section):
    """A segmentation error of known size that one group's planted masks carry.

    ``erosion_mm`` moves the surface inwards by that distance (negative: outwards), over the whole
    organ or only where the outward direction from the organ's centre lies in ``region``.
    """

    attribute: Literal["sex", "age", "bmi"]
    group: str | None = None
    above: float | None = None
    organs: list[str] = []
    erosion_mm: float
    region: Literal[
        "everywhere", "superior", "inferior", "anterior", "posterior", "left", "right", "posterior_inferior"
    ] = "everywhere"

    @model_validator(mode="after")
    def _one_condition(self) -> PlantedEffect:
        if (self.group is None) == (self.above is None):
            raise ValueError("a planted effect needs either `group` (sex) or `above` (age in years, bmi in kg/m²)")
        if (self.attribute == "sex") != (self.group is not None):
            raise ValueError("use `group` with sex and `above` with age or bmi")
        return self


class Planted(Section):
    """The planted model: everyone's random boundary error, and the effects on some."""

    boundary_error_mm: float = Field(default=1.0, ge=0)
    smoothness_mm: float = Field(default=12.0, gt=0)
    effects: list[PlantedEffect] = []


class Phantoms(Section):
    """The recipe of a cohort of torso phantoms."""

    subjects: int = Field(default=48, ge=1)
    modalities: list[Literal["CT", "MR"]] = Field(default=["CT", "MR"], min_length=1)
    faults: bool = True
    spacing_mm: tuple[float, float, float] = (3.5, 3.5, 6.0)
    planted: Planted = Planted()


class ReadyScores(Section):
    """Ready-made scores instead of masks: where they are and how they are written.

    ``path`` is a table or several; ``{model}``, ``{metric}``, ``{organ}`` and ``{run}`` in it stand
    for any text, which is then what the file is of. ``columns`` names the columns that hold the
    scan, model, organ, run, metric, value or a measure where they have other names; ``values``
    renames models, organs or metrics; ``models`` keeps these alone. ``percent`` lists measures that
    are written from 0 to 100. ``empty`` says what an empty cell is where another model has a score:
    ``missing`` (no score: left out) or ``zero`` (the model missed the organ).
    """

    path: Annotated[list[str], Field(min_length=1)]
    columns: dict[str, str] = {}
    values: dict[ScoreColumn, dict[str, str]] = {}
    models: list[str] = []
    percent: list[str] = []
    empty: Literal["missing", "zero"] = "missing"

    @field_validator("path", mode="before")
    @classmethod
    def _list_one(cls, path: Any) -> Any:
        return [path] if isinstance(path, str) else path


class Cohort(Section):
    """Who is studied: the source of scans, the organs, the attributes and the confounders.

    ``cluster`` names a column (site) whose people are not independent of each other.
    ``dataset`` names the public data set that a table's scans come from, so that models which were
    trained on it are pointed out. ``fill`` says what stands where the table has no value
    (``{reference: "masks/{scan}.nii.gz", modality: CT}``): {scan} and {subject} are filled in.
    ``people`` is a table of people of one's own, joined by subject to what a data set's reader
    finds; ``entities`` chooses among a BIDS data set's files (desc: manual, suffix: T1w).
    ``resample: nearest`` brings every mask that lies on another grid of its scan to the right one:
    a reference to its image's, a model's to the reference's.
    ``masked: random`` states that those who have an expert's mask are a random part of each group:
    people without one then count by a proxy (:mod:`helpers.fairness.few_masks`).
    ``mask_series`` describes the series of the DICOM masks that are the references, with ``*`` for
    any text, where several masks are of one scan (source ``dicom``). ``fractions: half`` cuts DICOM
    segmentations of fractions at one half. ``public`` declares that the scans are public, so that
    anybody may see pictures of them (phantoms always are).
    """

    source: str
    public: bool = False
    path: str | None = None
    people: str | None = None
    entities: dict[str, str] = {}
    scores: ReadyScores | None = None
    dataset: str | None = None
    phantoms: Phantoms = Phantoms()
    columns: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    fill: dict[str, str] = {}
    organs: dict[Name, Organ] = {}
    ignore_labels: list[int] | Literal["all"] = []
    resample: Literal["nearest"] | None = None
    masked: Literal["random"] | None = None
    mask_series: str | None = None
    fractions: Literal["half"] | None = None
    attributes: dict[Name, Attribute | None] = Field(min_length=1)
    confounders: list[str] = []
    cluster: str | None = None
    exclusions: Exclusions = Exclusions()

    @property
    def ordered_attributes(self) -> list[str]:
        """The attributes whose groups stand in an order."""
        own = {name: attribute for name, attribute in self.attributes.items() if attribute is not None}
        return [name for name in self.attributes if (own[name].ordered if name in own else name != "sex")]

    @property
    def has_masks(self) -> bool:
        """Whether there are masks to compare, rather than ready-made scores."""
        return self.source != SCORES

    @field_validator("fill")
    @classmethod
    def _keeps_names(cls, fill: dict[str, str]) -> dict[str, str]:
        if own := {"subject", "scan"} & set(fill):
            raise ValueError(f"{own.pop()} cannot be filled in: it is what the others are filled in from")
        return fill

    @field_validator("organs", mode="before")
    @classmethod
    def _name_organs(cls, organs: Any) -> Any:
        """Take a list of names too: scores need no more."""
        return {name: {} for name in organs} if isinstance(organs, list) else organs

    @model_validator(mode="after")
    def _has_masks_or_scores(self) -> Cohort:
        if not self.has_masks and self.scores is None:
            raise ValueError("`scores` is required when source is 'scores': give the tables under scores.path")
        if not self.has_masks:
            placed = [name for name, organ in self.organs.items() if organ != Organ()]
            if placed:
                raise ValueError(
                    f"organs.{placed[0]}: scores have no labels or files: list the organs by name (organs: [liver])"
                )
            return self
        if self.scores is not None:
            raise ValueError(f"`scores` has no use when source is {self.source!r}: leave it out")
        if not self.organs:
            raise ValueError("`organs` must name at least one organ, with its `labels` or `files`")
        check_places(self.organs)
        return self

    @model_validator(mode="after")
    def _fits_source(self) -> Cohort:
        if self.source != "phantoms" and self.path is None:
            raise ValueError(f"`path` is required when source is {self.source!r}")
        if self.source == "phantoms" and self.path is not None:
            raise ValueError("`path` has no use when source is 'phantoms', which are drawn: leave it out")
        if self.people is not None and self.source in ("table", SCORES, "phantoms"):
            raise ValueError(f"`people` has no use when source is {self.source!r}: leave it out")
        if self.entities and self.source != BIDS:
            raise ValueError(f"`entities` has no use when source is {self.source!r}: leave it out")
        ids = [organ.id for organ in self.organs.values() if organ.id is not None]
        if len(ids) != len(set(ids)):
            raise ValueError("two organs share one `id`")
        if ids and len(ids) != len(self.organs):
            raise ValueError("give every organ an `id`, or none")
        for name, organ in self.organs.items():
            if organ.label_names and self.source not in NAMED_PARTS:
                raise ValueError(
                    f"organs.{name}.labels must be ids, which label maps hold; got {', '.join(organ.label_names)}"
                )
            if organ.label_names and self.resample is not None:
                raise ValueError(
                    f"organs.{name}.labels must be ids where masks are resampled: lookup tables stay with the originals"
                )
        if RESERVED_ORGAN in self.organs:
            raise ValueError(
                f"an organ cannot be called {RESERVED_ORGAN!r}, which names all organs pooled: call it otherwise"
            )
        return self

    @model_validator(mode="after")
    def _has_fit_columns(self) -> Cohort:
        clusters = [self.cluster] if self.cluster else []
        for key, names in (
            ("attributes", self.attributes), ("confounders", self.confounders), ("cluster", clusters),
        ):  # fmt: skip
            for name in names:
                if name in RESERVED_COLUMNS or name.startswith("group_"):
                    raise ValueError(
                        f"{key}: {name!r} is a column of segfair's own: choose another name and map it under"
                        f" cohort.columns ({name}_recorded: {name})"
                    )
        for name, attribute in self.attributes.items():
            if attribute is None and name not in ("sex", "age", "bmi"):
                raise ValueError(f"attribute {name!r} has no default groups: give `categories` or `bins`")
            if attribute is not None and attribute.bins == "who":
                _check_who(name, attribute)
        return self

    @property
    def halve(self) -> bool:
        """Whether fractions in the references are cut at one half."""
        return self.fractions == "half"

    def organ_ids(self) -> dict[str, int]:
        """Return each organ's id in this study's label maps (given, or 1, 2, … in order)."""
        return {name: organ.id or place for place, (name, organ) in enumerate(self.organs.items(), start=1)}


class Windows(Section):
    """Which grey values a model (and a reader) is shown.

    ``ct`` holds windows by name (centre, width in HU); ``organs`` names the one an organ is seen in
    (default: ``lung`` for organs whose name begins with "lung", else ``soft``). MR is scaled by
    ``mr_percentiles`` of the voxels above the background.
    """

    ct: dict[Name, tuple[float, Annotated[float, Field(gt=0)]]] = {"soft": (40.0, 400.0), "lung": (-600.0, 1500.0)}
    organs: dict[str, str] = {}
    mr_percentiles: tuple[Annotated[float, Field(ge=0, le=100)], Annotated[float, Field(ge=0, le=100)]] = (0.5, 99.5)

    @model_validator(mode="after")
    def _named(self) -> Windows:
        if self.mr_percentiles[0] >= self.mr_percentiles[1]:
            raise ValueError("mr_percentiles must be two increasing numbers")
        for name in ("soft", "lung"):
            if name not in self.ct:
                raise ValueError(f"ct must keep a window named {name!r}")
        for organ, window in self.organs.items():
            if window not in self.ct:
                raise ValueError(f"organs.{organ} must name one of {', '.join(self.ct)}; got {window!r}")
        return self


class Metrics(Section):
    """How masks are compared: the surface tolerance of the NSD, per organ."""

    tolerance_mm: float = Field(default=3.0, gt=0)
    tolerances_mm: dict[str, Annotated[float, Field(gt=0)]] = {}


class DeclaredMetric(Section):
    """A metric that we do not compute, told well enough to be compared and written about."""

    name: Name
    title: str = ""
    unit: str = ""
    higher_is_better: bool
    range: tuple[float, float] = (-math.inf, math.inf)
    margin: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _makes_sense(self) -> DeclaredMetric:
        if self.name in MEASURES or self.name in RESERVED_COLUMNS:
            raise ValueError(f"{self.name!r} is a name of segfair's own: call the metric otherwise")
        if self.range[0] >= self.range[1]:
            raise ValueError("range must be two increasing numbers, such as [0, 1]")
        return self

    @property
    def measure(self) -> Measure:
        """The record by which it is written, compared and told."""
        title = self.title or self.name
        return Measure(
            self.name,
            title,
            title,
            "A metric of the study's own, as its parameter file declares it.",
            self.unit,
            higher_is_better=self.higher_is_better,
            bounds=self.range,
            family="declared",
            default_margin=self.margin,
        )


class RelativeMargin(Section):
    """A margin as a share of the mean error of everybody compared: 1 − Dice, or a distance."""

    relative: float = Field(gt=0, lt=1)

    def __str__(self) -> str:
        """Return it in words."""
        return f"{100 * self.relative:g} % of the mean error"


class Fairness(Section):
    """How groups are compared.

    A metric is a name of ours, or declared in its place (:class:`DeclaredMetric`): then it moves to
    ``declared``, its name stays in ``metrics`` and its margin goes to ``margin``.

    ``margin`` is the largest gap that does not matter, per metric in its own unit, or ``{relative:
    0.2}``, a share of the row's mean error (1 − Dice; the mean itself of a distance). ``family``
    says which comparisons are adjusted together, ``correction`` how: ``holm``, ``fdr_bh``,
    ``max_t`` (allows for tests that go together) or ``none``; ``primary`` names the metric that
    answers first (Dice, or the first); ``proxy`` the model that others are compared with where
    scans have no expert's mask (``cohort.masked``; the first fusion, or all automatic models).
    ``permutations`` of people stand behind every p-value of
    :data:`helpers.vocabulary.words.DECIDING_TEST`, ``bootstrap`` draws of people behind every
    interval (studentised: docs/validity.md). Groups under ``min_group`` people are neither compared
    nor shown. ``power`` is what a minimum detectable difference is stated for.
    ``adjust`` says by attribute what comes before it, which its adjusted gap holds equal: ``{age:
    [sex]}``; without a word, the attributes listed before it and all confounders. Whatever else was
    recorded may be how the attribute acts, and is held equal in the direct gap alone; so is organ
    size (log volume of the reference), with ``adjust_for_volume``.
    ``failure`` names, per metric, the values beyond which a person counts as a failure, and
    ``failure_margin`` the largest difference in their share that does not matter; failures are a
    family of their own per attribute, whatever ``family`` says.
    """

    metrics: list[str] = Field(default=list(list_default_margins()), min_length=1)
    declared: list[DeclaredMetric] = []
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    margin: dict[str, Annotated[float, Field(gt=0)] | RelativeMargin] = {**list_default_margins()}
    primary: str = ""
    proxy: str = ""
    family: Literal["study", "attribute", "attribute_metric", "model_attribute"] = "attribute_metric"
    correction: Literal["holm", "fdr_bh", "max_t", "none"] = "holm"
    permutations: int = Field(default=5000, ge=100)
    bootstrap: int = Field(default=2000, ge=100)
    min_group: int = Field(default=10, ge=2)
    power: float = Field(default=0.8, ge=0.5, lt=1)
    adjust: dict[str, list[str]] = {}
    adjust_for_volume: bool = False
    failure: dict[str, Annotated[list[float], Field(min_length=1)]] = {"dice": [0.5, 0.8]}
    failure_margin: float = Field(default=0.05, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _move_declared(cls, given: Any) -> Any:
        metrics = given.get("metrics") if isinstance(given, dict) else None
        if not isinstance(metrics, list) or not any(isinstance(one, dict) for one in metrics):
            return given
        declared = [one for one in metrics if isinstance(one, dict)]
        names = [one.get("name", "") if isinstance(one, dict) else one for one in metrics]
        return given | {"metrics": names, "declared": [*(given.get("declared") or []), *declared]}

    @property
    def measures(self) -> list[Measure]:
        """The records of the metrics that the study declares."""
        return [one.measure for one in self.declared]

    @model_validator(mode="after")
    def _knows_names(self) -> Fairness:
        own = {one.name: one.margin for one in self.declared}
        for key, names in (("", self.metrics), ("failure: ", self.failure)):
            for name in names:
                try:
                    check_score(name, own)
                except SegfairError as error:
                    raise ValueError(f"{key}{error}") from None
        # Frozen: what is declared with its margin needs no second place for it.
        object.__setattr__(self, "margin", own | self.margin)
        if self.primary and self.primary not in self.metrics:
            raise ValueError(f"primary names {self.primary}, which is not among metrics: {', '.join(self.metrics)}")
        object.__setattr__(self, "primary", self.primary or ("dice" if "dice" in self.metrics else self.metrics[0]))
        return self

    @model_validator(mode="after")
    def _names_once(self) -> Fairness:
        if repeated := find_repeated(self.metrics):
            raise ValueError(f"metrics names {', '.join(repeated)} more than once: name every metric once")
        return self


class Spatial(Section):
    """Where on the organ: which organs, how fine, and how many permutations stand behind a p-value.

    ``template`` is the folder ``spatial`` of another study's outputs, whose templates are used
    instead of this cohort's own mean shapes.
    """

    organs: list[str] = []
    template: str | None = None
    grid_mm: float = Field(default=4.0, gt=0)
    vertices: int = Field(default=2500, ge=100, le=20000)
    permutations: int = Field(default=2000, ge=100)


# Where dask-jobqueue takes a system's own words.
_RESOURCES = ("resource_spec", "job_extra_directives")


class Security(Section):
    """The PEM files by which a Dask cluster encrypts its traffic and tells who may join (TLS).

    ``ca_file`` is the authority's certificate; ``cert`` and ``key`` are this user's, for scheduler,
    workers and client alike.
    """

    ca_file: str
    cert: str
    key: str

    @model_validator(mode="after")
    def _is_absolute(self) -> Security:
        for name, text in self.model_dump().items():
            if not text.startswith(("/", "~")):
                raise ValueError(f"{name} must be an absolute path, which means the same on all machines; got {text!r}")
        return self


class Compute(Section):
    """Where per-scan work runs.

    ``workers: 0`` is in process, a number is that many local processes, ``cores`` one per core, or
    per graphics card where a model computes on one (``device: auto`` or ``cuda``); ``scheduler``
    (``tcp://…``, ``tls://…``) is an existing Dask cluster; ``cluster`` is a queueing system that is
    asked for `jobs`, or for between ``adapt[0]`` and ``adapt[1]`` of them as work comes: `queue`,
    `cores`, `memory` and `walltime` of each job and further `options` are dask-jobqueue's, `gpus`
    is its graphics cards. ``precision: auto`` is bfloat16 for the published models where the device
    multiplies it faster, else float32; ``batch`` is slices encoded at a time (chosen from free
    memory when not given).
    """

    workers: Annotated[int, Field(ge=0)] | Literal["cores"] = "cores"
    scheduler: Annotated[str, Field(pattern=r"^(tcp|tls|ucx|inproc)://")] | None = None
    cluster: Literal["slurm", "pbs", "sge", "lsf", "htcondor", "oar", "local"] | None = None
    jobs: Annotated[int, Field(ge=1)] | None = None
    adapt: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = None
    queue: str | None = None
    cores: Annotated[int, Field(ge=1)] = 1
    memory: str | None = None
    walltime: str | None = None
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    options: dict[str, Any] = {}
    security: Security | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch: Annotated[int, Field(ge=1)] | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the work runs on workers that this process does not start itself."""
        return self.scheduler is not None or self.cluster is not None

    @model_validator(mode="after")
    def _fits_a_cluster(self) -> Compute:
        own = ("jobs", "adapt", "queue", "cores", "memory", "walltime", "gpus", "options")
        if self.cluster is None:
            # A study's own snapshot names every key, with its default.
            fields = type(self).model_fields
            if given := [key for key in own if getattr(self, key) != fields[key].get_default()]:
                raise ValueError(f"{given[0]} is for jobs of a queueing system: say which in `cluster`")
            if self.security is not None and self.scheduler is None:
                raise ValueError("security is for a cluster: give `scheduler` or `cluster`, or leave it out")
            return self
        if self.scheduler is not None:
            raise ValueError("scheduler is a cluster that runs already, cluster is one to start: keep one of the two")
        if (self.jobs is None) == (self.adapt is None):
            raise ValueError("cluster needs either `jobs`, a number, or `adapt`, such as [0, 20]")
        if self.adapt is not None and self.adapt[0] > self.adapt[1]:
            raise ValueError(f"adapt must be the fewest and the most jobs; got {list(self.adapt)}")
        if self.memory is None:
            raise ValueError("cluster needs `memory`, what one job gets, such as 32GB")
        if twice := sorted({*own, "cluster", "security", "processes"} & set(self.options)):
            raise ValueError(f"options holds {twice[0]}, which is a key of compute, or follows from its keys")
        if self.gpus and self.cluster in ("pbs", "sge", "oar") and not set(_RESOURCES) & set(self.options):
            raise ValueError(
                f"gpus: each site's {self.cluster} has its own words for cards: add them under options,"
                f" as {' or '.join(_RESOURCES)}"
            )
        return self


def _check_roles(adjust: dict[str, list[str]], attributes: list[str], confounders: list[str]) -> None:
    """Refuse roles of what is no attribute, or of what was not recorded."""
    for attribute, names in adjust.items():
        if attribute not in attributes:
            raise ValueError(
                f"fairness.adjust names {attribute}, not among cohort.attributes ({', '.join(attributes)})"
            )
        for name in names:
            if name == attribute or name not in (*attributes, *confounders):
                raise ValueError(
                    f"fairness.adjust.{attribute} names {name}: name other attributes or confounders "
                    f"({', '.join(one for one in dict.fromkeys((*attributes, *confounders)) if one != attribute)})"
                )


class ReportPage(Section):
    """What the report shows: ``pictures`` of scans, by default where the cohort is public."""

    pictures: bool | None = None


class Parameters(Section):
    """A whole study."""

    name: Name
    title: str | None = None
    seed: int = Field(default=0, ge=0)
    outputs: str = "outputs"
    cohort: Cohort
    models: list[AnyModel] = []
    windows: Windows = Windows()
    metrics: Metrics = Metrics()
    fairness: Fairness = Fairness()
    spatial: Spatial = Spatial()
    report: ReportPage = ReportPage()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _fits_masks_or_scores(self) -> Parameters:
        if self.cohort.has_masks:
            if not self.models:
                raise ValueError("models: required but missing")
            if self.fairness.declared:
                raise ValueError(
                    f"fairness.metrics declares {self.fairness.declared[0].name}, which segfair cannot compute from"
                    " masks: leave it out, or give its scores (cohort.source: scores)"
                )
        elif self.models:
            raise ValueError(
                "`models` has no use with ready-made scores, whose tables name the models: leave it out, or keep some"
                " of them by cohort.scores.models"
            )
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> Parameters:
        organs = set(self.cohort.organs)
        names = [model.name for model in self.models]
        if len(names) != len(set(names)):
            raise ValueError("two models share one name")
        people = [model.name for model in self.models if model.annotator]
        if len(people) == 1:
            raise ValueError(
                f"models: {people[0]} alone is marked `annotator: true`: mark two or more, whose agreement can be"
                " measured, or none"
            )
        for key, named in (
            ("metrics.tolerances_mm", self.metrics.tolerances_mm),
            ("spatial.organs", self.spatial.organs),
            ("windows.organs", self.windows.organs),
            *((f"models.{model.name}.organs", model.organs or {}) for model in self.models),
        ):
            unknown = sorted(set(named) - organs)
            if unknown:
                raise ValueError(
                    f"{key} names {', '.join(unknown)}, not among cohort.organs ({', '.join(sorted(organs))})"
                )
        for effect in self.cohort.phantoms.planted.effects:
            unknown = sorted(set(effect.organs) - organs)
            if unknown:
                raise ValueError(f"cohort.phantoms.planted names {', '.join(unknown)}, not among cohort.organs")
        _check_roles(self.fairness.adjust, list(self.cohort.attributes), self.cohort.confounders)
        missing = sorted(set(self.fairness.metrics) - set(self.fairness.margin))
        if missing:
            raise ValueError(
                f"fairness.margin has no value for {', '.join(missing)}: give one in the metric's own unit"
            )
        return self

    @property
    def shows_scans(self) -> bool:
        """Whether the report may hold pictures of scans."""
        public = self.cohort.public or self.cohort.source == "phantoms"
        return self.cohort.has_masks and (public if self.report.pictures is None else self.report.pictures)

    def allows_resampling(self, model: Model) -> bool:
        """Tell whether a model's masks may lie on another grid than the reference."""
        return "nearest" in (model.resample, self.cohort.resample)

    def allows_halving(self, model: Model) -> bool:
        """Tell whether fractions in a model's DICOM masks are cut at one half."""
        return "half" in (model.fractions, self.cohort.fractions)


def read_parameters(path: Path, overrides: dict[str, Any] | None = None) -> Parameters:
    """Read and validate a parameter file.

    `overrides` are values by dotted key, laid over the file before it is validated.

    Raises a ParameterError: the file is missing, is not YAML, or breaks the rules: one message with
    every fault.
    """
    raw = read_raw(path)
    laid = read_raw(path, overrides) if overrides else raw
    try:
        return Parameters.model_validate(laid)
    except ValidationError as error:
        said = describe_faults(Parameters, laid, raw, str(path), list(overrides or {}))
        raise ParameterError("\n".join(said)) from error


def read_raw(path: Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a parameter file with its overrides laid over it, and validate nothing.

    Raises a ParameterError: the file is missing or is not YAML, or an override leads nowhere.
    """
    raw = load_yaml(_read_text(path), str(path))
    if raw is None:
        raise ParameterError(f"{path}: is empty: copy params/template.yaml and adapt it")
    if not isinstance(raw, dict):
        raise ParameterError(f"{path}: must hold keys and values (name:, cohort:, models:, …); got {quote(raw)}")
    for key, value in (overrides or {}).items():
        _lay_over(raw, key, value, path)
    return raw


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``"fairness.alpha=0.01"`` into its key and its value (read as YAML).

    Raises a ParameterError: there is no ``=``, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ParameterError(f"override {text!r} must look like fairness.alpha=0.01")
    return key.strip(), load_yaml(value, f"override {quote(text)}")


def _read_text(path: Path) -> str:
    """Return the text of a parameter file; errors of :func:`read_parameters`."""
    try:
        if path.exists() and not path.is_file():
            raise ParameterError(f"{path}: is not a file: give the parameter file")
        with path.open("rb") as stream:
            data = stream.read(LARGEST_BYTES + 1)  # longer ones are refused, whatever they end with
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        likely = suggest(path.name, (one.name for one in path.parent.glob("*.yaml")))
        raise ParameterError(
            f"{path}: no such parameter file{likely}: correct the path, or copy params/template.yaml and adapt it"
        ) from None
    except ParameterError:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise ParameterError(f"{path}: is not UTF-8 text: save it as UTF-8") from error
        raise ParameterError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from error


def _lay_over(raw: dict[str, Any], key: str, value: Any, path: Path) -> None:
    place: Any = raw
    parts = key.split(".")
    for depth, part in enumerate(parts[:-1]):
        if isinstance(place, list):
            place = place[_list_index(place, part, key, path)]
            continue
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, (dict, list)):
            raise ParameterError(f"{path}: override {key!r}: {'.'.join(parts[: depth + 1])} is a value, not a section")
    if isinstance(place, list):
        place[_list_index(place, parts[-1], key, path)] = value
    else:
        place[parts[-1]] = value


def _list_index(place: list[Any], part: str, key: str, path: Path) -> int:
    """Return where `part` points in a list: a position, or the `name` of an entry (models)."""
    for index, entry in enumerate(place):
        if isinstance(entry, dict) and entry.get("name") == part:
            return index
    if part.isdigit() and int(part) < len(place):
        return int(part)
    raise ParameterError(f"{path}: override {key!r}: no entry {part!r} in a list of {len(place)}")
