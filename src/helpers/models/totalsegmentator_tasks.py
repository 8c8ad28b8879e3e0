"""TotalSegmentator's tasks, read without torch: their labels, resolutions and published weights.

Ids and names are those of the package (2.18.0, ``map_to_binary.py`` and ``map_tasks_config.py``);
``total_v3`` and the tasks under a commercial licence are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from helpers.errors import SegfairError
from helpers.models.checkpoints import TOTALSEGMENTATOR, explain_fetching
from helpers.models.nnunet_folder import NnunetOptions, choose_organs, find_folds, hash_files, read_trained
from helpers.models.protocol import Setup
from helpers.parameters import TotalSegmentatorModel
from helpers.study import Study, choose_checkpoints_folder
from helpers.vocabulary.words import list_words


def _pair(*names: str, first: str = "left") -> tuple[str, ...]:
    sides = ("left", "right") if first == "left" else ("right", "left")
    return tuple(f"{name}_{side}" for name in names for side in sides)


_ABDOMEN = (
    *("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas"),
    *_pair("adrenal_gland", first="right"),
)
_LOBES = (
    *("lung_upper_lobe_left", "lung_lower_lobe_left"),
    *("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
)
_VERTEBRAE = tuple(
    f"vertebrae_{region}{number}"
    for region, count in (("S", 1), ("L", 5), ("T", 12), ("C", 7))
    for number in range(count, 0, -1)
)
_VEINS_AND_ILIACS = ("portal_vein_and_splenic_vein", *_pair("iliac_artery", "iliac_vena"))
_BONES = _pair("humerus", "scapula", "clavicula", "femur", "hip")
_MUSCLES = _pair("gluteus_maximus", "gluteus_medius", "gluteus_minimus", "autochthon", "iliopsoas")

# The labels of each published network, from id 1 on.
_CT_PARTS: dict[int, tuple[str, ...]] = {
    291: (
        *_ABDOMEN,
        *_LOBES,
        *("esophagus", "trachea", "thyroid_gland", "small_bowel", "duodenum", "colon", "urinary_bladder", "prostate"),
        *_pair("kidney_cyst"),
    ),
    292: ("sacrum", *_VERTEBRAE),
    293: (
        *("heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk"),
        *_pair("subclavian_artery", "common_carotid_artery", first="right"),
        *_pair("brachiocephalic_vein"),
        *("atrial_appendage_left", "superior_vena_cava", "inferior_vena_cava"),
        *_VEINS_AND_ILIACS,
    ),
    294: (*_BONES, "spinal_cord", *_MUSCLES, "brain", "skull"),
    295: (
        *(f"rib_{side}_{number}" for side in ("left", "right") for number in range(1, 13)),
        *("sternum", "costal_cartilages"),
    ),
}
_MR_PARTS: dict[int, tuple[str, ...]] = {
    850: (
        *_ABDOMEN,
        *_pair("lung"),
        *("esophagus", "small_bowel", "duodenum", "colon", "urinary_bladder", "prostate", "sacrum", "vertebrae"),
        *("intervertebral_discs", "spinal_cord", "heart", "aorta", "inferior_vena_cava"),
        *_VEINS_AND_ILIACS,
    ),
    851: (*_BONES, *_MUSCLES, "brain"),
}
_CT = tuple(name for part in _CT_PARTS.values() for name in part)
_MR = tuple(name for part in _MR_PARTS.values() for name in part)


@dataclass(frozen=True)
class Task:
    """What the networks of a task are shown, and what each of them draws."""

    spacing_mm: float
    parts: dict[int, tuple[str, ...]]  # labels from id 1 on, by the network's number

    @property
    def labels(self) -> dict[str, tuple[int, ...]]:
        """The task's own ids: those of its networks, one network after the other."""
        names = [name for part in self.parts.values() for name in part]
        return {name: (place,) for place, name in enumerate(names, start=1)}


TASKS = {
    "total": Task(1.5, _CT_PARTS),
    "total_fast": Task(3.0, {297: _CT}),
    "total_mr": Task(1.5, _MR_PARTS),
    "total_mr_fast": Task(3.0, {852: _MR}),
}


@dataclass(frozen=True)
class TotalSegmentatorOptions:
    """The networks of a task that draw the study's organs."""

    spacing_mm: float
    networks: tuple[tuple[NnunetOptions, int], ...]  # each, and what is added to its ids


def check(model: TotalSegmentatorModel, study: Study) -> list[str]:
    """Name what keeps a task from being run."""
    if model.variant is not None and model.variant not in TASKS:
        return []  # named by the registry
    try:
        set_up(model, study)
    except SegfairError as error:
        return [str(error)]
    return []


def set_up(model: TotalSegmentatorModel, study: Study) -> Setup:
    """Find the networks that draw the study's organs, and no others."""
    where = f"models.{model.name}"
    task = TASKS[model.variant or next(iter(TASKS))]
    organs, notes = choose_organs(model.organs, study, task.labels, where)
    wanted = {label for organ in organs.values() for label in organ.label_ids}
    root = choose_checkpoints_folder() / "totalsegmentator" if model.folder is None else study.resolve(model.folder)
    networks, files, offset = [], {}, 0
    for number, names in task.parts.items():
        if wanted & set(range(offset + 1, offset + len(names) + 1)):
            try:
                folder = _find_network(root, number, names)
                folds = find_folds(folder, [0])
            except SegfairError as error:
                raise SegfairError(f"{where}: {error}") from error
            # The package's own way: tiles that overlap by a fifth, no mirroring.
            networks.append((NnunetOptions(folder, folds, step=0.8, mirroring=False), offset))
            files[number] = hash_files(folder, folds)
        offset += len(names)
    depends_on = {"spacing_mm": task.spacing_mm, "files": {str(number): found for number, found in files.items()}}
    return Setup(TotalSegmentatorOptions(task.spacing_mm, tuple(networks)), organs, depends_on, tuple(notes))


def _find_network(root: Path, number: int, names: tuple[str, ...]) -> Path:
    """Return the folder of a network's plans and folds, whose labels are those expected."""
    published = TOTALSEGMENTATOR[number][1]
    found = [root / published] if (root / published).is_dir() else sorted(root.glob(f"Dataset{number}_*"))
    if len(found) != 1:
        there = f"{root} holds {list_words(path.name for path in found)}" if found else f"{published} is not in {root}"
        raise SegfairError(f"{there}: {explain_fetching(f'totalsegmentator_{number}')}")
    folders = sorted(path.parent for path in found[0].glob("*__nnUNetPlans__3d_fullres/plans.json"))
    if len(folders) != 1:
        raise SegfairError(
            f"{found[0]} holds {len(folders)} folders *__nnUNetPlans__3d_fullres with plans.json, not one: "
            "unpack the archive again"
        )
    labels = read_trained(folders[0]).labels
    ids = {name: place for place, name in enumerate(names, start=1)}
    differing = [name for name, several in labels.items() if name in ids and several != (ids[name],)]
    if len(labels) != len(names) or differing:
        fault = f"{differing[0]} has another id" if differing else f"{len(labels)} labels, not {len(names)}"
        raise SegfairError(f"{folders[0]}: is no network of this task ({fault}): unpack the archive again")
    return folders[0]
