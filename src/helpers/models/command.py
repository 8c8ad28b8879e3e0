"""`command`: any other program, started per scan or once for all of them.

segfair writes the image itself, under the scan's number in the study, into a folder of its own: the
program sees one format, and no name. Its mask is read as any ready-made one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import SimpleITK as sitk

from helpers import programs, storage, volumes
from helpers.compute import count_cores
from helpers.errors import SegfairError
from helpers.models.cards import list_cards
from helpers.models.protocol import ScanCase, Segmentation, Setup, Spec
from helpers.models.ready_masks import list_named_labels, read_masks
from helpers.models.registry import hash_checkpoint
from helpers.parameters import CommandModel
from helpers.study import Study

# By `batch`: what a command may hold, and of which groups it must hold one each.
_ANYWHERE = ("folder", "device", "gpu", "threads")
_ALLOWED = {
    False: ("image", "output", "outputs", "scan", "modality", *_ANYWHERE),
    True: ("images", "outputs", *_ANYWHERE),
}
_NEEDED = {
    False: (("image", "folder"), ("output", "outputs", "folder")),
    True: (("images", "folder"), ("outputs", "folder")),
}
# A start's time limit where `timeout_minutes` says nothing.
_MINUTES, _BATCH_MINUTES_A_SCAN = 60.0, 10.0


@dataclass(frozen=True)
class Options:
    """How a program is started and its masks are read; paths are absolute."""

    words: tuple[str, ...]  # of the command, with placeholders
    environment: Mapping[str, str]  # the parameter file's own
    image_name: str  # with {scan}
    orientation: Literal["LPS", "RAS"]
    timeout_minutes: float | None
    root: Path  # where it is started: the project's folder
    work: Path  # the model's folder in the study, for logs and for the files of a batch
    ignored: frozenset[int] | None  # labels of its masks that need be no organ's; None: any


class Command:
    """Starts the program for each scan, or once for all that were handed over."""

    precision = ""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._options: Options = spec.options
        self._program = Path(self._options.words[0]).name
        asked = set(programs.list_placeholders(self._options.words))
        self._device, self._card = _choose_device(spec.device) if asked & {"device", "gpu"} else ("", "")
        # Without the placeholder the program itself decides, and does not tell.
        self.device = self._device if "device" in asked else ""

    def segment(self, case: ScanCase) -> Segmentation:
        """Return the program's mask; a SegfairError where it failed or its mask cannot be used."""
        if self._spec.together:
            told = json.loads((self._batch / "told.json").read_text(encoding="utf-8"))
            result = self._read(self._batch / "outputs", case, self._log("batch"), failure=told["failure"])
            return replace(result, earlier_seconds=told["seconds_each"])
        log = self._log(_name(case))
        with storage.open_scratch() as folder:
            image, outputs = self._write_image(case, folder / "images"), folder / "outputs"
            outputs.mkdir()
            self._start(
                log,
                self._options.timeout_minutes or _MINUTES,
                image=image,
                output=outputs / f"{_name(case)}.nii.gz",
                outputs=outputs,
                folder=folder,
                scan=_name(case),
                modality=case.modality,
            )
            return self._read(outputs, case, log)

    def hand_over(self, case: ScanCase) -> None:
        """Put a scan's image where the one start finds it."""
        self._write_image(case, self._batch / "images")

    def work(self) -> None:
        """Start the program once for all scans handed over; what became of it is told later."""
        images, outputs = self._batch / "images", self._batch / "outputs"
        scans = len(list(images.iterdir())) if images.is_dir() else 0
        if outputs.exists():
            raise SegfairError(
                f"{outputs} cannot be removed, which holds masks of an earlier start: remove it yourself"
            )
        outputs.mkdir(parents=True)
        began, failure = time.monotonic(), ""
        if scans:
            minutes = self._options.timeout_minutes or max(_MINUTES, _BATCH_MINUTES_A_SCAN * scans)
            try:
                self._start(self._log("batch"), minutes, images=images, outputs=outputs, folder=self._batch)
            except SegfairError as error:
                failure = str(error)
        seconds_each = (time.monotonic() - began) / max(1, scans)
        storage.write_json({"failure": failure, "seconds_each": seconds_each}, self._batch / "told.json")

    def clear(self) -> None:
        """Remove the files of a batch."""
        shutil.rmtree(self._batch, ignore_errors=True)

    @property
    def _batch(self) -> Path:
        return self._options.work / "batch"

    def _log(self, name: str) -> Path:
        return self._options.work / "logs" / f"{name}.log"

    def _write_image(self, case: ScanCase, folder: Path) -> Path:
        path = folder / self._options.image_name.replace("{scan}", _name(case))
        image = volumes.make_image(case.image, case.grid)  # type: ignore[arg-type]  # the kind needs one
        volumes.write_volume(sitk.DICOMOrient(image, self._options.orientation), path)
        return path

    def _start(self, log: Path, minutes: float, **values: object) -> None:
        if not self._card and "gpu" in programs.list_placeholders(self._options.words):
            raise SegfairError(
                f"models.{self._spec.name}.command: {{gpu}} asks for a graphics card, and there is none here for "
                f"compute.device {self._spec.device}"
            )
        threads = str(self._spec.threads or count_cores())
        own = {"OMP_NUM_THREADS": threads} | ({"CUDA_VISIBLE_DEVICES": ""} if self._spec.device == "cpu" else {})
        filled = {name: str(value) for name, value in values.items()}
        filled |= {"device": self._device, "gpu": self._card, "threads": threads}
        log.unlink(missing_ok=True)
        try:
            programs.run_program(
                programs.fill_words(self._options.words, filled),
                environment=programs.make_environment(own | dict(self._options.environment)),
                folder=self._options.root,
                log=log,
                timeout_s=60 * minutes,
            )
        except SegfairError as error:
            raise SegfairError(f"{error} ({_name_log(log)})" if log.is_file() else str(error)) from error

    def _read(self, outputs: Path, case: ScanCase, log: Path, *, failure: str = "") -> Segmentation:
        """Read a scan's mask; where it cannot be, say so, or first what the start failed of."""
        try:
            result, unknown = read_masks(self._find_output(outputs, _name(case)), self._spec, case)
        except SegfairError as error:
            fault = str(error).partition(": copy it again")[0]  # nobody has copied this one
            reason = f"{self._program} left no usable mask: {fault} ({_name_log(log)})"
            raise SegfairError(failure or reason) from error
        foreign = sorted(set(unknown) - (self._options.ignored or set()))
        if foreign and self._options.ignored is not None:
            raise SegfairError(
                f"the mask of {self._spec.name} holds labels that no organ names ({', '.join(map(str, foreign))}): "
                f"say under models.{self._spec.name}.organs where it has its organs"
            )
        return result

    def _find_output(self, outputs: Path, scan: str) -> Path:
        """Return a scan's mask: named as the scan, or the only one in its folder."""
        named = [outputs / f"{scan}{suffix}" for suffix in volumes.SUFFIXES]
        if (found := next((path for path in named if path.exists()), None)) is not None:
            return found
        folder = outputs / scan
        if not self._spec.together and not folder.is_dir():
            folder = outputs
        if any(organ.files for organ in self._spec.organs.values()) and folder.is_dir() and any(folder.iterdir()):
            return folder
        files = sorted(path for path in folder.rglob("*") if path.name.endswith(volumes.SUFFIXES))
        if len(files) == 1:
            return files[0]
        raise SegfairError("it wrote none" if not files else f"it wrote {len(files)} files, none of them {scan}.nii.gz")


def load(spec: Spec) -> Command:
    """Return the segmenter; the program is started scan by scan."""
    return Command(spec)


def check(model: CommandModel, study: Study) -> list[str]:
    """Name every fault of a command: words, placeholders, programs and files that are not there."""
    where, problems = f"models.{model.name}", list_named_labels(model, study.parameters.cohort.organs)
    try:
        environment = programs.make_environment(_expand_all(model.environment, study))
    except SegfairError as error:
        return [f"{where}.environment: {error}"]
    for key, command in (("command", model.command), ("version_command", model.version_command)):
        if command is None:
            continue
        try:
            words = [study.expand(word) for word in programs.split_words(command)]
        except SegfairError as error:
            problems.append(f"{where}.{key}: {error}")
            continue
        if programs.find_program(words[0], environment, study.root) is None:
            problems.append(
                f"{where}.{key}: there is no program {words[0]!r} that can be started: install it or give "
                "its whole path"
            )
        if key == "command":
            problems += [f"{where}.command: {fault}" for fault in _check_placeholders(words, model.batch)]
    if programs.list_placeholders([model.image_name]) != ["scan"] or not model.image_name.endswith(volumes.SUFFIXES):
        problems.append(
            f"{where}.image_name: must hold {{scan}} and end in {', '.join(volumes.SUFFIXES)}; got {model.image_name!r}"
        )
    for text in model.depends_on:
        try:
            place = study.resolve(text)
        except SegfairError as error:
            problems.append(f"{where}.depends_on: {error}")
        else:
            if not place.exists():
                problems.append(f"{where}.depends_on: there is no file {place}")
    return problems


def set_up(model: CommandModel, study: Study) -> Setup:
    """Take a command apart, and find what tells one version of it from another."""
    environment = _expand_all(model.environment, study)
    ignored = study.parameters.cohort.ignore_labels
    options = Options(
        words=tuple(study.expand(word) for word in programs.split_words(model.command)),
        environment=environment,
        image_name=model.image_name,
        orientation=model.orientation,
        timeout_minutes=model.timeout_minutes,
        root=study.root,
        work=study.inference_path(model.name).parent,
        # A model without labels of its own is taken to have the reference's.
        ignored=None if model.organs is not None or ignored == "all" else frozenset(ignored),
    )
    depends_on: dict[str, object] = {
        # Not as filled in: a study that was moved is the same study.
        "command": programs.split_words(model.command),
        "environment": dict(model.environment),
        "image": [model.image_name, model.orientation],
        "files": {text: _hash_all(study.resolve(text)) for text in model.depends_on},
    }
    notes = []
    if model.version_command is not None:
        try:
            version = programs.ask_model_version(model, study)
        except SegfairError as error:
            raise SegfairError(f"models.{model.name}.version_command: {error}") from error
        depends_on["version"] = version
    elif not model.depends_on:
        notes.append(
            f"nothing tells one version of {Path(options.words[0]).name} from another: name its weights under "
            "depends_on, or give a version_command, else masks of an older one are kept"
        )
    return Setup(options=options, depends_on=depends_on, notes=tuple(notes), together=model.batch)


def _check_placeholders(words: list[str], batch: bool) -> list[str]:
    held, kind = programs.list_placeholders(words), "with batch: true" if batch else "without batch"
    allowed = ", ".join(f"{{{name}}}" for name in _ALLOWED[batch])
    unknown = [name for name in held if name not in _ALLOWED[batch]]
    faults = [f"{{{name}}} is no placeholder of a command {kind}: it may hold {allowed}" for name in unknown]
    for group in _NEEDED[batch]:
        if not set(group) & set(held):
            wanted = " or ".join(f"{{{name}}}" for name in group)
            faults.append(f"a command {kind} must hold {wanted}")
    return faults


def _choose_device(wanted: str) -> tuple[str, str]:
    """Return what {device} and {gpu} stand for: a device of torch's, and the card's number."""
    if wanted in ("auto", "cuda"):
        cards = list_cards(wanted)
        return ("cuda", cards[0]) if cards else ("cpu" if wanted == "auto" else wanted, "")
    return wanted, wanted.partition(":")[2]


def _expand_all(values: Mapping[str, str], study: Study) -> dict[str, str]:
    return {name: study.expand(value) for name, value in values.items()}


def _hash_all(place: Path) -> dict[str, str]:
    """Return the SHA-256 of a file, or of every file in a folder, by name."""
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    return {str(path.relative_to(place.parent)): hash_checkpoint(path) for path in files}


def _name(case: ScanCase) -> str:
    return f"scan{case.number:04d}"


def _name_log(log: Path) -> str:
    """Say where a log is, from the study's folder."""
    return f"its log: {'/'.join(log.parts[-4:])}"
