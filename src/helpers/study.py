"""A study: its parameters, its seed, and where every file of it lies."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import storage
from helpers.errors import ParameterError, StageError
from helpers.parameters import Parameters, parse_override, read_parameters

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = ("01_cohort", "02_inference", "03_performance", "04_spatial", "05_report")

# What each stage writes, by a short name: (path under the study's folder, the stage that writes it).
TABLES = {
    "cohort": ("cohort.parquet", "01_cohort"),
    "exclusions": ("exclusions.csv", "01_cohort"),
    "metrics": ("metrics.parquet", "03_performance"),
    "groups": ("fairness/groups.csv", "03_performance"),
    "disparity": ("fairness/disparity.csv", "03_performance"),
    "tests": ("fairness/tests.csv", "03_performance"),
    "pairs": ("fairness/pairs.csv", "03_performance"),
    "contrasts": ("fairness/contrasts.csv", "03_performance"),
    "adjusted_means": ("fairness/adjusted.csv", "03_performance"),
    "adjusted_notes": ("fairness/adjusted_notes.csv", "03_performance"),
    "matching": ("fairness/matching.csv", "03_performance"),
    "balance": ("fairness/balance.csv", "03_performance"),
    "trends": ("fairness/trends.csv", "03_performance"),
    "trend_tests": ("fairness/trend_tests.csv", "03_performance"),
    "intersections": ("fairness/intersections.csv", "03_performance"),
    "intersection_variance": ("fairness/intersection_variance.csv", "03_performance"),
    "model_gaps": ("fairness/model_gaps.csv", "03_performance"),
    "statuses": ("fairness/statuses.csv", "03_performance"),
    "annotators": ("annotators.parquet", "03_performance"),
    "agreement": ("fairness/agreement.csv", "03_performance"),
    "agreement_groups": ("fairness/agreement_groups.csv", "03_performance"),
    "against_agreement": ("fairness/against_agreement.csv", "03_performance"),
    "maps": ("spatial/maps.parquet", "04_spatial"),
    "slopes": ("spatial/slopes.parquet", "04_spatial"),
    "spatial_summary": ("spatial/summary.csv", "04_spatial"),
    "slope_summary": ("spatial/slopes.csv", "04_spatial"),
    "spatial_groups": ("spatial/groups.csv", "04_spatial"),
    "spatial_volumes": ("spatial/volumes.csv", "04_spatial"),
}


class Study:
    """A validated study and its paths. Make one with :func:`load_study`.

    Attributes
    ----------
    parameters : Parameters
        What the parameter file says, after validation.
    source : Path
        The parameter file.
    root : Path
        The project folder: the one above ``params/`` (else the parameter file's own folder);
        `outputs` and relative paths in the file are relative to it.
    folder : Path
        ``<root>/<outputs>/<name>``, where everything this study makes is written.
    """

    def __init__(self, parameters: Parameters, source: Path) -> None:
        self.parameters = parameters
        self.source = source
        self.root = source.parent.parent if source.parent.name == "params" else source.parent
        self.folder = self.resolve(parameters.outputs) / parameters.name

    @property
    def name(self) -> str:
        """The study's name, which is also its folder's."""
        return self.parameters.name

    @property
    def title(self) -> str:
        """The study's title for people: `title`, else its name."""
        return self.parameters.title or self.name

    @property
    def source_name(self) -> str:
        """The parameter file as one would type it in the project folder: relative to it where it lies below."""
        return str(self.source.relative_to(self.root)) if self.source.is_relative_to(self.root) else str(self.source)

    @property
    def organ_ids(self) -> dict[str, int]:
        """Each organ's id in the label maps this study writes."""
        return self.parameters.cohort.organ_ids()

    @property
    def table_folder(self) -> Path:
        """The folder of the participants table: paths in it, and those of ready-made masks, are relative to it.

        A source without a path makes its scans; they lie in the study's folder, under the source's name.
        """
        cohort = self.parameters.cohort
        if cohort.path is None:
            return self.folder / cohort.source
        source = self.resolve(cohort.path)
        return source if source.is_dir() else source.parent

    def resolve(self, text: str) -> Path:
        """Return a path of the parameter file: ``${NAME}`` expanded, ``~`` too, relative to `root`.

        ``${SEGFAIR_DATA}`` defaults to ``../shared/data`` beside the project folder.

        Raises
        ------
        ParameterError
            An environment variable is not set.
        """
        defaults = {"SEGFAIR_DATA": str(self.root.parent / "shared" / "data")}

        def expand(match: re.Match[str]) -> str:
            name = match.group(1)
            value = os.environ.get(name) or defaults.get(name)
            if value is None:
                raise ParameterError(
                    f"{self.source}: ${{{name}}} in {text!r} is not set: set that environment variable or write the path out"
                )
            return value

        return (self.root / Path(re.sub(r"\$\{(\w+)\}", expand, text)).expanduser()).resolve()

    def path(self, table: str) -> Path:
        """Return where a table of :data:`TABLES` lies, present or not."""
        return self.folder / TABLES[table][0]

    def read(self, table: str) -> pd.DataFrame:
        """Read a table an earlier stage wrote, just as it was (:func:`helpers.storage.read_table`).

        Raises
        ------
        StageError
            It is missing; the message names the stage to run.
        """
        relative, stage = TABLES[table]
        self.require({relative: stage})
        # The columns of this one are named by the study; its numbers of people may read "< 10".
        words = [*self.parameters.cohort.attributes, "n"] if table == "intersections" else []
        return storage.read_table(self.folder / relative, made_by=stage, words=words)

    def require(self, files: Mapping[str, str]) -> None:
        """Check that files of earlier stages are there.

        Parameters
        ----------
        files : mapping of str to str
            Paths under the study's folder, in the order of stages, and the stage that writes each.

        Raises
        ------
        StageError
            One is missing; the message names the first, every stage to run, and the one command for all.
        """
        missing = {relative: stage for relative, stage in files.items() if not (self.folder / relative).exists()}
        if missing:
            stages = list(dict.fromkeys(missing.values()))
            raise StageError(
                f"{next(iter(missing))} is missing for study {self.name!r}: run {' and '.join(stages)} "
                f"or `segfair run {self.source_name} --until {stages[-1][:2]}`"
            )

    def read_included(self) -> pd.DataFrame:
        """Read the cohort's included scans, one row each, index 0…n−1.

        Raises
        ------
        StageError
            01_cohort has not run, or excluded every scan.
        """
        cohort = self.read("cohort")
        included = cohort[cohort["included"]].reset_index(drop=True)
        if included.empty:
            raise StageError(
                f"every one of the {len(cohort)} scans of study {self.name!r} is excluded: see the reasons in {self.path('exclusions')}"
            )
        return included

    def prediction_path(self, model: str, scan: str) -> Path:
        """Return where `model`'s label map of `scan` lies."""
        return self.folder / "predictions" / model / f"{scan}.nii.gz"

    def inference_path(self, model: str) -> Path:
        """Return where `model`'s inference table lies."""
        return self.folder / "predictions" / model / "inference.parquet"

    def seed_for(self, *keys: object) -> int:
        """Return a 63-bit seed that depends on the study's seed and `keys` alone.

        Independent of order of work, process and machine, so parallel and resumed runs agree.
        """
        text = "\x1f".join(str(key) for key in (self.parameters.seed, *keys))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def choose_checkpoints_folder() -> Path:
    """Return the folder of published weights, present or not.

    ``SEGFAIR_CHECKPOINTS`` where it is set, else ``segfair/checkpoints`` in the user's cache
    (``XDG_CACHE_HOME``, by default ``~/.cache``).
    """
    named = os.environ.get("SEGFAIR_CHECKPOINTS")
    if named:
        return Path(named).expanduser().absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "segfair" / "checkpoints"


def load_study(params: str | Path, overrides: dict[str, Any] | list[str] | None = None) -> Study:
    """Load a study from its parameter file.

    Parameters
    ----------
    params : str or Path
        The YAML file; a relative path is looked for in the working directory, then in the
        repository, so that notebooks work from their own folder and from the repository's root.
    overrides : dict or list of str, optional
        ``{"fairness.alpha": 0.01}`` or ``["fairness.alpha=0.01"]``, laid over the file.

    Raises
    ------
    ParameterError
        The file is missing or breaks the rules.
    """
    if isinstance(overrides, list):
        overrides = dict(parse_override(text) for text in overrides)
    path = Path(params).expanduser()
    if not path.is_absolute():
        candidates = [folder / path for folder in (Path.cwd(), Path.cwd().parent, REPOSITORY)]
        path = next((candidate for candidate in candidates if candidate.exists()), candidates[0])
    path = path.resolve()
    return Study(read_parameters(path, overrides), path)
