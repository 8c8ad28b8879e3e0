"""A trained nnU-Net's folder, read without torch: what it can draw, and why it cannot be used.

The folder is what training leaves and zips unpack to: ``Trainer__Plans__Configuration/`` with
``plans.json``, ``dataset.json`` and ``fold_0/checkpoint_final.pth``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.errors import SegfairError
from helpers.models.label_names import describe_organs, match_organs, resolve_organs, show_labels
from helpers.models.protocol import Setup
from helpers.models.registry import hash_checkpoint
from helpers.models.trained_folder import CHECKPOINT, check_named_classes, read_json
from helpers.parameters import NnunetModel, Organ
from helpers.study import Study
from helpers.vocabulary.words import list_words

# nnU-Net's readers, and whether they turn every image to right, anterior, superior. The others take
# the axes as the file has them.
READERS = {
    "NibabelIOWithReorient": True,
    "SimpleITKIOWithReorient": True,
    "NibabelIO": False,
    "SimpleITKIO": False,
}


@dataclass(frozen=True)
class NnunetOptions:
    """One trained network and how it is run."""

    folder: Path
    folds: tuple[str, ...]  # the folds' folders, averaged
    step: float  # of the sliding window, as a part of its size
    mirroring: bool
    trust: bool = False  # whether checkpoints may run code


@dataclass(frozen=True)
class TrainedNnunet:
    """What the JSON files of a trained network say."""

    path: Path
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]

    @property
    def labels(self) -> dict[str, tuple[int, ...]]:
        """The ids of each label or region by name, without background and ignored voxels."""
        listed = {
            name: tuple(int(label) for label in (value if isinstance(value, list) else [value]))
            for name, value in self.dataset["labels"].items()
            if name != "ignore"
        }
        return {name: ids for name, ids in listed.items() if set(ids) != {0}}

    @property
    def turns_to_ras(self) -> bool:
        """Whether the network sees every image from the same side, however it is stored."""
        return READERS[self.plans["image_reader_writer"]]


def check(model: NnunetModel, study: Study) -> list[str]:
    """Name what keeps a folder from being used."""
    try:
        set_up(model, study)
    except SegfairError as error:
        return [str(error)]
    return []


def set_up(model: NnunetModel, study: Study) -> Setup:
    """Read a folder: its folds, and where the study's organs are among its labels."""
    where = f"models.{model.name}"
    try:
        trained = read_trained(study.resolve(model.folder))
        folds = find_folds(trained.path, model.folds)
    except SegfairError as error:
        raise SegfairError(f"{where}.folder: {error}") from error
    organs, notes = choose_organs(model.organs, study, trained.labels, where)
    if not trained.turns_to_ras:
        notes += [
            f"its images are read in the order of their files ({trained.plans['image_reader_writer']}): "
            "scans must be stored as those of its training were, else it sees them mirrored or turned"
        ]
    return Setup(
        NnunetOptions(trained.path, folds, model.step, model.mirroring, model.trust),
        organs,
        {"files": hash_files(trained.path, folds), "step": model.step, "mirroring": model.mirroring},
        tuple(notes),
    )


def choose_organs(
    named: Mapping[str, Organ] | None, study: Study, labels: Mapping[str, Sequence[int]], where: str
) -> tuple[dict[str, Organ], list[str]]:
    """Return where organs are among labels, as the parameter file has it or matched by name."""
    if named is not None:
        return resolve_organs(named, labels, where), []
    organs = match_organs(study.organ_ids, labels)
    if not organs:
        raise SegfairError(
            f"{where}.organs is needed: no label of the model is called {list_words(study.organ_ids, last='or')}; "
            f"its labels are {show_labels(labels)}"
        )
    lacking = [name for name in study.organ_ids if name not in organs]
    notes = describe_organs(organs, labels)
    if lacking:
        notes.append(f"has no label called {list_words(lacking, last='or')}: not drawn by it and not scored")
    return organs, notes


def read_trained(folder: Path) -> TrainedNnunet:
    """Read plans.json and dataset.json, and refuse what cannot be run.

    Raises a SegfairError: a file is missing or no plans of nnU-Net v2; the network wants several
    channels, a mask of an earlier network, a reader that is not nnU-Net's, or a class from
    elsewhere.
    """
    if not folder.is_dir():
        raise SegfairError(f"there is no folder {folder}: name the one that holds plans.json, dataset.json and fold_0")
    if not (folder / "plans.json").is_file():
        below = sorted(path.parent.name for path in folder.glob("*/plans.json"))
        if (folder / "plans.pkl").is_file():
            advice = "it is of nnU-Net v1, which this kind cannot run: use kind: command"
        elif below:
            advice = f"name its folder {list_words(below, last='or')}"
        else:
            advice = "it is no trained nnU-Net v2, or was unpacked in part: unpack it again"
        raise SegfairError(f"{folder} holds no plans.json: {advice}")
    plans, dataset = (read_json(folder / name) for name in ("plans.json", "dataset.json"))
    for name, content, keys in (
        ("plans.json", plans, ("configurations", "image_reader_writer", "transpose_forward")),
        ("dataset.json", dataset, ("labels",)),
    ):
        lacking = [key for key in keys if key not in content]
        if lacking:
            raise SegfairError(f"{folder / name} has no {lacking[0]!r}: it is not nnU-Net v2's: unpack the model again")
    channels = dataset.get("channel_names", dataset.get("modality", {"0": ""}))
    if len(channels) != 1:
        raise SegfairError(
            f"the network wants {len(channels)} images of each scan ({', '.join(map(str, channels.values()))}) and a "
            "study has one: use kind: command or precomputed"
        )
    if plans["image_reader_writer"] not in READERS:
        raise SegfairError(
            f"plans.json reads images by {plans['image_reader_writer']}, of which the order of axes is not known "
            f"(known are {', '.join(READERS)}): use kind: command"
        )
    configuration = folder.name.rpartition("__")[2]
    if configuration in plans["configurations"]:
        check_configuration(plans, configuration)
    return TrainedNnunet(folder, plans, dataset)


def check_configuration(plans: Mapping[str, Any], name: str) -> None:
    """Refuse a configuration that is a cascade's, or names classes from elsewhere."""
    configuration = merge_configuration(plans, name)
    if configuration.get("previous_stage") is not None:
        raise SegfairError(
            f"{name} is the second network of a cascade, which wants the mask of {configuration['previous_stage']} "
            "too: use kind: command, or a model that is no cascade"
        )
    check_named_classes(configuration.get("architecture", {}), "use kind: command")


def merge_configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration of plans.json with all that it inherits."""
    merged: dict[str, Any] = {}
    visited: list[str] = []
    following: str | None = name
    while following is not None:
        if following in visited or following not in plans["configurations"]:
            raise SegfairError(f"plans.json has no whole configuration {name!r}: unpack the model again")
        visited.append(following)
        merged = {**plans["configurations"][following], **merged}
        following = plans["configurations"][following].get("inherits_from")
    return merged


def find_folds(folder: Path, wanted: Sequence[int | str] | None) -> tuple[str, ...]:
    """Return the names of the folds' folders: those wanted, else all that there are.

    As in nnU-Net, ``fold_all`` is used where it is wanted or the only one.

    Raises a SegfairError: a fold has no checkpoint of a finished training, or a damaged one.
    """
    there = sorted(path.name for path in folder.glob("fold_*") if path.is_dir())
    if wanted is not None:
        folds = [f"fold_{fold}" for fold in wanted]
    else:
        folds = [name for name in there if name != "fold_all"] or there
    if not folds:
        raise SegfairError(f"{folder} holds no fold_0: it was unpacked in part: unpack it again")
    for fold in folds:
        path = folder / fold / CHECKPOINT
        if not path.is_file():
            others = sorted(file.name for file in path.parent.glob("*.pth"))
            found = f"it has {list_words(others)}" if others else f"there are {list_words(there) or 'no folds'}"
            raise SegfairError(
                f"there is no {fold}/{CHECKPOINT} ({found}): unpack the model again, end its training, or name the "
                "folds to use under `folds`"
            )
        if not zipfile.is_zipfile(path):
            raise SegfairError(f"{path} is damaged or cut short: unpack or copy the model again")
    return tuple(folds)


def hash_files(folder: Path, folds: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of each file that masks are made from."""
    names = ["plans.json", "dataset.json", *(f"{fold}/{CHECKPOINT}" for fold in folds)]
    return {name: hash_checkpoint(folder / name) for name in names}
