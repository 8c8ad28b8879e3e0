"""A study: its parameters, its seed, and where every file of it lies."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import storage
from helpers.errors import ParameterError, SegfairError, StageError, quote
from helpers.parameters import Model, Parameters, parse_override, read_parameters
from helpers.schema import STAGES, TABLES
from helpers.vocabulary.statuses import PROXIED

REPOSITORY = Path(__file__).resolve().parents[2]
SNAPSHOT = "study.yaml"  # the parameters as they were used, in the output folder
_MARK = re.compile("\0(scan|subject)\0")
# A scan has up to three files in a folder, and no folder is to hold more than 10,000.
_SCANS_IN_FOLDER = 3000
_PLACEHOLDER = re.compile(r"(?<!\$)\{(\w+)\}")


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

    def __init__(self, parameters: Parameters, source: Path, overrides: Collection[str] = ()) -> None:
        self.parameters = parameters
        self.source = source
        self.root = source.parent.parent if source.parent.name == "params" else source.parent
        self._overrides = overrides
        self.folder = self.resolve(parameters.outputs) / parameters.name

    def blame(self, key: str) -> str:
        """Return a key with where its value comes from, for messages: the file, or the override."""
        return blame(key, self.source, self._overrides)

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
        """The parameter file as one would type it in the project folder."""
        return str(self.source.relative_to(self.root)) if self.source.is_relative_to(self.root) else str(self.source)

    @property
    def organ_ids(self) -> dict[str, int]:
        """Each organ's id in the label maps this study writes."""
        return self.parameters.cohort.organ_ids()

    @property
    def table_folder(self) -> Path:
        """What paths in the participants table and of ready-made masks are relative to.

        A source without a path makes its scans; they lie in the study's folder, under the source's
        name.
        """
        cohort = self.parameters.cohort
        if cohort.path is None:
            return self.folder / cohort.source
        source = self.resolve(cohort.path)
        return source if source.is_dir() else source.parent

    def say_idle(self, stage: str) -> str:
        """Return why a stage has nothing to do in this study; empty where it has."""
        if self.parameters.cohort.has_masks or not STAGES[stage].of_masks:
            return ""
        return f"{stage} has nothing to do: study {self.name!r} has ready-made scores, no masks"

    def resolve(self, text: str) -> Path:
        """Return a path of the parameter file: ``${NAME}`` expanded, ``~`` too, relative to `root`.

        ``${SEGFAIR_DATA}`` defaults to ``../shared/data`` beside the project folder.

        Raises a ParameterError: an environment variable is not set, or no file can be called so.
        """
        expanded = self.expand(text)
        self._check_path(_MARK.sub("", expanded))
        return storage.make_absolute(self.root / storage.expand_home(Path(expanded)))

    def expand(self, text: str) -> str:
        """Fill in ``${NAME}`` from the environment, as :meth:`resolve` does."""
        defaults = {"SEGFAIR_DATA": str(self.root.parent / "shared" / "data")}

        def expand(match: re.Match[str]) -> str:
            name = match.group(1)
            value = os.environ.get(name) or defaults.get(name)
            if value is None:
                raise ParameterError(
                    f"{self.source}: ${{{name}}} in {text!r} is not set: set that environment variable or write the"
                    " path out"
                )
            return value

        return re.sub(r"\$\{(\w+)\}", expand, text)

    def template_masks(self, path: str) -> str:
        """Return the absolute place of a model's ready-made masks, to be filled by `str.format`.

        `path` is as in the parameter file: ``${NAME}`` and ``~`` are expanded, and a relative one
        counts from :attr:`table_folder`. Of its braces those of {scan} and {subject} alone are
        filled; any other, and those of the folders above, are part of a name.
        """
        self._check_path(path)
        marked = re.sub(r"\{(scan|subject)\}", "\0\\1\0", path)  # no path holds a NUL
        place = self.resolve(marked) if path.startswith(("$", "~")) else self.table_folder / marked
        return _MARK.sub(r"{\1}", str(place).replace("{", "{{").replace("}", "}}"))

    def _check_path(self, text: str) -> None:
        if "\0" in text or any(len(part.encode("utf-8", "replace")) > 255 for part in Path(text).parts):
            raise ParameterError(f"{self.source}: {quote(text)} cannot be the path of a file: correct it")

    def find_score_files(self, pattern: str) -> list[tuple[Path, dict[str, str]]]:
        """Return the files of a path of ``cohort.scores``, and what its placeholders are in each.

        Raises a ParameterError: it has another placeholder than ``{model}``, ``{metric}``,
        ``{organ}`` and ``{run}``.
        """
        if unknown := set(_PLACEHOLDER.findall(pattern)) - {"model", "metric", "organ", "run"}:
            raise ParameterError(
                f"{self.blame('cohort.scores.path')}: {{{unknown.pop()}}} is no placeholder: {{model}}, {{metric}}, "
                "{organ} and {run} are"
            )
        resolved = self.resolve(pattern)
        places = [place for place, part in enumerate(resolved.parts) if _PLACEHOLDER.search(part)]
        if not places:
            return [(resolved, {})] if resolved.exists() else []
        root, rest = Path(*resolved.parts[: places[0]]), "/".join(resolved.parts[places[0] :])
        pieces, seen = re.split(r"\{(\w+)\}", rest), set[str]()
        expression = re.escape(pieces[0])
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
            expression += (f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)") + re.escape(text)
            seen.add(name)
        files = sorted(path for path in root.glob(_PLACEHOLDER.sub("*", rest)) if path.is_file())
        matches = ((path, re.fullmatch(expression, path.relative_to(root).as_posix())) for path in files)
        return [(path, match.groupdict()) for path, match in matches if match]

    def path(self, table: str, **names: str) -> Path:
        """Return where a table of :data:`helpers.schema.TABLES` lies, present or not.

        `names` stand for the placeholders of its path: ``model="sam"``, ``organ="liver"``.
        """
        relative = TABLES[table].path
        for name, value in names.items():
            relative = relative.replace(f"<{name}>", value)
        return self.folder / relative

    def read(self, table: str, **names: str) -> pd.DataFrame:
        """Read a table an earlier stage wrote, just as it was (:func:`helpers.storage.read_table`).

        Raises a StageError: it is missing; the message names the stage to run.
        """
        path = self.path(table, **names)
        self.require({str(path.relative_to(self.folder)): TABLES[table].made_by})
        return storage.read_table(path, TABLES[table])

    def require(self, files: Mapping[str, str]) -> None:
        """Check that files of earlier stages are there.

        `files` are paths under the study's folder, in the order of stages, and the stage that
        writes each.

        Raises a StageError: one is missing; the message names the first, every stage to run, and
        the one command for all.
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

        Raises a StageError: 01_cohort has not run, or excluded every scan.
        """
        cohort = self.read("cohort")
        included = cohort[cohort["included"]].reset_index(drop=True)
        if included.empty:
            raise StageError(
                f"every one of the {len(cohort)} scans of study {self.name!r} is excluded: see the reasons in"
                f" {self.path('exclusions')}"
            )
        return included

    def read_proxied(self) -> pd.DataFrame:
        """Read the scans that count by a proxy alone (``cohort.masked``), one row each."""
        cohort = self.read("cohort")
        return cohort[~cohort["included"] & (cohort["reason"] == PROXIED)].reset_index(drop=True)

    def read_unscored(self) -> dict[str, dict[tuple[str, str], tuple[str, str]]]:
        """Return what is not scored in spite of a mask: undrawn organs and scans of the training.

        By scan, then by model and organ, the status (:data:`helpers.vocabulary.statuses.STATUSES`)
        and why.
        """
        found: dict[str, dict[tuple[str, str], tuple[str, str]]] = {}
        for model in self.parameters.models:
            if self.path("organs", model=model.name).exists():
                organs = self.read("organs", model=model.name)
                for row in organs[organs["not_drawn"] != ""].itertuples(index=False):
                    found.setdefault(row.scan, {})[model.name, row.organ] = ("not_drawn", row.not_drawn)
            for scan in self.list_training_scans(model):
                seen = {(model.name, organ): ("trained_on", "the model was trained on it") for organ in self.organ_ids}
                found.setdefault(scan, {}).update(seen)
        return found

    def list_training_scans(self, model: Model) -> list[str]:
        """Return the scans that a model says it was trained on.

        Raises a ParameterError: the file that ``trained_on_scans`` names cannot be read.
        """
        listed = model.trained_on_scans
        if not isinstance(listed, str):
            return listed or []
        try:
            with storage.open_file(self.resolve(listed)) as stream:
                lines = stream.read().decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(
                f"models.{model.name}.trained_on_scans: {listed} cannot be read: give a text file, one scan per line"
            ) from error
        return [line.strip() for line in lines if line.strip()]

    def prediction_path(self, model: str, scan: str) -> Path:
        """Return where `model`'s label map of `scan` lies.

        In a large study in one of 256 folders, unless it lies in the model's own already.
        """
        many = has_many(_count_scans(self.path("cohort")))
        return choose_place(self.folder / "predictions" / model, f"{scan}.nii.gz", many=many)

    def list_prediction_paths(self, model: str, scans: Iterable[str]) -> list[Path]:
        """Return :meth:`prediction_path` of many scans; the folder is looked through once."""
        many = has_many(_count_scans(self.path("cohort")))
        folder = self.folder / "predictions" / model
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        names = [f"{scan}.nii.gz" for scan in scans]
        if many:
            return [Path(f"{folder}/{'' if name in present else _name_part(name)}/{name}") for name in names]
        return [folder / name if name in present else choose_place(folder, name, many=False) for name in names]

    def inference_path(self, model: str) -> Path:
        """Return where `model`'s inference table lies."""
        return self.path("inference", model=model)

    def seed_for(self, *keys: object) -> int:
        """Return a 63-bit seed that depends on the study's seed and `keys` alone.

        Independent of order of work, process and machine, so parallel and resumed runs agree.
        """
        text = "\x1f".join(str(key) for key in (self.parameters.seed, *keys))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def blame(key: str, source: Path, overrides: Collection[str]) -> str:
    """Return a key with where its value comes from, for messages; see :meth:`Study.blame`."""
    own = [one for one in overrides if key == one or key.startswith(f"{one}.")]
    if not own:
        return f"{source}: {key}"
    return f"-o {key}" if own[-1] == key else f"-o {own[-1]}: {key}"


def choose_place(folder: Path, name: str, *, many: bool) -> Path:
    """Return where a file or folder of one scan lies in a folder for all, present or not.

    Of `many` scans new ones lie in one of 256 folders below it, by a hash of the name, so that no
    folder holds too many; what is there already stays where it is.
    """
    apart = folder / _name_part(name) / name
    if storage.is_there(folder / name):
        return folder / name
    return apart if many or storage.is_there(apart) else folder / name


def _name_part(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:2]


def has_many(scans: int) -> bool:
    """Tell whether a study's scans are too many for one folder (:func:`choose_place`)."""
    return scans > _SCANS_IN_FOLDER


def find_record(prediction: Path) -> Path:
    """Return where the record of what a prediction was made from lies, present or not."""
    return prediction.with_name(prediction.name.removesuffix(".nii.gz") + ".json")


def find_probabilities(prediction: Path) -> Path:
    """Return where the probabilities behind a prediction lie, which are kept for fusions alone."""
    return prediction.with_name(prediction.name.removesuffix(".nii.gz") + ".probabilities.npz")


def find_mask(template: str, scan: str, subject: str) -> Path:
    """Return a scan's ready-made mask, file or folder; `template` of :meth:`Study.template_masks`.

    Raises a SegfairError: it does not exist.
    """
    path = storage.find_spelling(Path(template.format(scan=scan, subject=subject)))
    if not storage.is_there(path):
        # The end of the place tells what is wrong; what comes before may name people and machines.
        place = "/".join(Path(template).parts[-2:]).replace("{{", "{").replace("}}", "}")
        raise SegfairError(
            f"there is no mask for this scan where the model's path says ({place}): add it or correct models.*.path"
        )
    return path


def _count_scans(cohort: Path) -> int:
    """Return how many rows a cohort table has; 0 where there is none."""
    try:
        return _count_rows(cohort, os.stat(cohort).st_mtime_ns)  # noqa: PTH116 (once per scan and model)
    except (OSError, ValueError):
        return 0


@lru_cache(maxsize=4)
def _count_rows(cohort: Path, changed: int) -> int:
    from pyarrow import parquet

    return int(parquet.read_metadata(cohort).num_rows)


def say_member_failed(name: str) -> str:
    """Say why a fusion has no mask of a scan."""
    return f"its member {name} has no mask of this scan"


def choose_checkpoints_folder() -> Path:
    """Return the folder of published weights, present or not.

    ``SEGFAIR_CHECKPOINTS`` where it is set, else ``segfair/checkpoints`` in the user's cache
    (``XDG_CACHE_HOME``, by default ``~/.cache``).
    """
    named = os.environ.get("SEGFAIR_CHECKPOINTS")
    if named:
        return storage.expand_home(Path(named)).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # the XDG specification has relative paths ignored
        home = storage.expand_home(Path("~"))
        cache = (home if home.is_absolute() else Path("/")) / ".cache"
    return cache / "segfair" / "checkpoints"


def load_study(params: str | Path, overrides: dict[str, Any] | list[str] | None = None) -> Study:
    """Load a study from its parameter file.

    A relative path is looked for in the working directory, then in the repository, so that
    notebooks work from their own folder and from the repository's root. `overrides`
    (``{"fairness.alpha": 0.01}`` or ``["fairness.alpha=0.01"]``) are laid over the file.

    Raises a ParameterError: the file is missing or breaks the rules.
    """
    if isinstance(overrides, list):
        overrides = dict(parse_override(text) for text in overrides)
    path = find_parameter_file(params)
    return Study(read_parameters(path, overrides), path, list(overrides or {}))


def find_parameter_file(params: str | Path) -> Path:
    """Return where a parameter file lies, present or not; see :func:`load_study`.

    Raises a ParameterError: its path is not UTF-8 text.
    """
    path = storage.expand_home(Path(params))
    if not path.is_absolute():
        candidates = [folder / path for folder in (Path.cwd(), Path.cwd().parent, REPOSITORY)]
        path = next((candidate for candidate in candidates if candidate.exists()), candidates[0])
    path = path.parent.resolve() / path.name  # a link's own folder is the project's
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ParameterError(f"{path}: the names in this path are not UTF-8 text: rename the folder") from error
    return path


def find_study(place: str | Path, overrides: dict[str, Any] | list[str] | None = None) -> Study:
    """Load a study by its parameter file, or by its output folder from the snapshot there.

    `overrides` are laid over the parameter file, as in :func:`load_study`; a snapshot has them.

    Raises
    ------
    StageError
        A folder is no study's.
    ParameterError
        The parameter file is missing or breaks the rules.
    """
    place = Path(place)
    if place.is_file() or (place.suffix and not place.is_dir()):
        return load_study(place, overrides)
    folder = place.resolve()
    return load_study(find_snapshot(place), {"name": folder.name, "outputs": str(folder.parent)})


def find_snapshot(folder: Path) -> Path:
    """Return the parameters that a study's output folder was made with.

    Raises a StageError: it is no study's output folder.
    """
    if not folder.exists():
        raise StageError(f"{folder}: no such folder: run the study first, or correct the path")
    if not (folder / SNAPSHOT).is_file():
        raise StageError(
            f"{folder}: is not the output folder of a study (it has no {SNAPSHOT}): give one such as outputs/demo, or"
            " a parameter file"
        )
    return folder / SNAPSHOT


def list_measured(outputs: Path) -> list[Study]:
    """Return the studies below a folder of outputs that 03 has measured, the newest first.

    Those that cannot be read are passed over.
    """
    found: dict[Study, float] = {}
    for snapshot in outputs.glob(f"*/{SNAPSHOT}"):
        with suppress(SegfairError):
            study = find_study(snapshot.parent)
            if study.path("cohort").exists() and study.path("metrics").exists():
                found[study] = study.path("metrics").stat().st_mtime
    return sorted(found, key=lambda study: -found[study])


def find_newest() -> Study:
    """Return the study that was measured last, below the working directory or the repository.

    Raises a StageError: there is none.
    """
    for root in (Path.cwd(), Path.cwd().parent, REPOSITORY):
        if measured := list_measured(root / "outputs"):
            return measured[0]
    raise StageError(
        "No study has been run yet: run one by `segfair run params/demo.yaml`, or write its parameter file under"
        " `params` in the first cell"
    )
