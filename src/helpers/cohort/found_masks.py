"""What masks beside a table hold: which labels, where in the body, how large, and so of what organ.

Up to ten masks are opened. Names that a dataset wrote down (nnU-Net's dataset.json, 3D Slicer's
segmentations) are taken; where there are none, an organ is guessed from a label's side, volume and
height among the others.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.optimize import linear_sum_assignment

from helpers.cohort.organ_places import tell_side
from helpers.errors import VolumeError
from helpers.parameters import Organ
from helpers.storage import is_there
from helpers.vocabulary.anatomy import ORGANS, VERTEBRA_MM, Anatomy, Side, find_organ, write_ml
from helpers.vocabulary.words import name_for_people
from helpers.volumes import (
    SUFFIXES,
    Region,
    find_body_x_mm,
    find_boxes,
    find_grey_faults,
    find_middle_x_mm,
    get_grid,
    index_to_x_mm,
    make_image,
    measure_regions,
    read_label_map,
    read_volume,
    to_axial,
)

OPENED = 10  # masks
_Part = tuple[int | str, Side | None]
_LEFT = 1 << 20  # added to a label's number for its part on the left
_BETWEEN_MM, _MOST_BETWEEN, _LEAST_PART = 10.0, 0.02, 0.25  # shares of a label on both sides of the body
_SMOOTH = 0.6  # of a label map's voxels beside one of their own label
_NO_ORGAN = 5.0  # the cost of a label that is none of ORGANS
_UNLIKE = 1e3
_HEIGHT = 2.0  # vertebrae by which an organ's height varies
_NEAR_MIDDLE_MM = 70.0
_APART_MM = 25.0  # from the labels' mean height, to be called upper or lower
_RIVAL = 1.5  # by how much costs differ where two organs are as likely
_LEAST_OVERLAP = 0.2  # Dice of a model's label with the organ that it draws


@dataclass(frozen=True)
class FoundLabel:
    """One label, or one file of a folder of masks, over the masks that were opened."""

    key: int | str  # the label, or the file's name
    side: Side | None  # of which part it is, where the label lies on both sides of the body and not between
    masks: int  # that hold it
    volume_ml: float  # medians over them
    left_mm: float  # from the middle of the body
    height_mm: float  # above the mean of the mask's labels


def classify(path: Path) -> str:
    """Tell by its voxels what a file is: "image", "labels" or "mask" (one label); "" if unreadable.

    A label map holds whole numbers from 0 on, and most of its voxels lie beside their like.
    """
    try:
        image = read_volume(path)
    except VolumeError:
        return ""
    array = sitk.GetArrayViewFromImage(image)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and np.array_equal(array, np.round(array))):
        return "image"
    if array.min() < 0 or array.max() > np.iinfo(np.uint16).max:
        return "image"
    inside = array[..., :-1] > 0
    alike = np.count_nonzero(inside & (array[..., :-1] == array[..., 1:]))
    if not inside.any():
        return "mask" if array.max() > 0 else ""
    if alike < _SMOOTH * np.count_nonzero(inside):
        return "image"
    return "mask" if np.all((array == 0) | (array == array.max())) else "labels"


def tell_modality(images: Sequence[Path]) -> tuple[str, str]:
    """Guess the modality of images by their grey values; it, and what it rests on, if anything."""
    seen = [find_grey_faults(sitk.GetArrayViewFromImage(image), "CT") for image in _read_known(images)]
    if not seen:
        return "CT", ""
    hounsfield = sum("image_not_hounsfield" not in faults for faults in seen)
    if 2 * hounsfield >= len(seen):
        return "CT", f"the grey values of {hounsfield} of {len(seen)} images are Hounsfield units"
    return "MR", f"the grey values of {len(seen) - hounsfield} of {len(seen)} images are no Hounsfield units"


def _read_known(paths: Sequence[Path]) -> list[sitk.Image]:
    found = []
    for path in paths:
        try:
            found.append(read_volume(path))
        except VolumeError:
            continue
    return found


def find_labels(
    masks: Sequence[tuple[Path, Path | None]], modality: str, files: Sequence[str] = ()
) -> tuple[list[FoundLabel], int]:
    """Measure the labels of masks, or the `files` of folders of masks.

    Beside each mask stands the image that shows where the middle of the body is. Returns the labels
    in the order of their numbers, or of `files`, and how many masks could be read.
    """
    found: dict[_Part, list[tuple[float, float, float]]] = {}
    opened = 0
    for path, image in masks:
        try:
            places = {name: find_organ_file(path, name) for name in files} if files else {"": path}
            read = {name: _read_whole(place) for name, place in places.items() if place is not None}
            middle_mm = _find_middle(image, modality, read)
        except VolumeError:
            continue
        opened += 1
        regions = {
            (name or label, side): region
            for name, one in read.items()
            for (label, side), region in _measure_parts(one, middle_mm).items()
        }
        mean_mm = float(np.mean([region.center_mm[2] for region in regions.values()])) if regions else 0.0
        for part, one in regions.items():
            told = (one.volume_ml, one.center_mm[0] - middle_mm, one.center_mm[2] - mean_mm)
            found.setdefault(part, []).append(told)
    order = {name: place for place, name in enumerate(files)}
    parts = sorted(found, key=lambda part: (order.get(str(part[0]), 0), part[0], part[1] or ""))
    return [FoundLabel(*part, len(found[part]), *np.median(found[part], axis=0).tolist()) for part in parts], opened


def _read_whole(path: Path) -> sitk.Image:
    """Read a label map as whole numbers, int32."""
    image = read_volume(path)
    return make_image(np.round(sitk.GetArrayViewFromImage(image)).astype(np.int32), get_grid(image))


def _measure_parts(image: sitk.Image, middle_mm: float) -> dict[_Part, Region]:
    """Measure labels; one that lies on both sides of the body, and not between, in two parts."""
    grid, array = get_grid(image), sitk.GetArrayFromImage(image)
    along = 2 - int(np.argmax(np.abs(grid.direction[:3])))  # the array's axis that runs closest to left and right
    across = tuple(axis for axis in range(3) if axis != along)
    two = set()
    for label, box in find_boxes(array.view(np.uint32)).items():
        inside = array[box] == label
        voxels = inside.sum(axis=across)
        middle = [(side.start + side.stop - 1) / 2 for side in box]
        points = np.tile(middle, (len(voxels), 1))
        points[:, along] = np.arange(box[along].start, box[along].stop)
        x_mm = index_to_x_mm(grid, points[:, ::-1]) - middle_mm
        left, right = (voxels[sign * x_mm > _BETWEEN_MM].sum() for sign in (1, -1))
        if min(left, right) >= _LEAST_PART * voxels.sum() and left + right >= (1 - _MOST_BETWEEN) * voxels.sum():
            is_left = np.expand_dims(x_mm > 0, across)
            array[box][inside & is_left] = _LEFT + label
            two.add(label)
    regions = measure_regions(make_image(array, grid))
    return {
        (number % _LEFT, "left" if number > _LEFT else "right" if number in two else None): region
        for number, region in regions.items()
    }


def join_sides(
    labels: Sequence[FoundLabel],
    names: Mapping[int | str, str],
    guesses: Mapping[FoundLabel, Sequence[Anatomy]],
) -> list[FoundLabel]:
    """Join the two parts of a label again, unless they are a pair of organs by name or guess."""
    found: dict[int | str, list[FoundLabel]] = {}
    for label in labels:
        found.setdefault(label.key, []).append(label)
    joined = []
    for key, parts in found.items():
        paired = all(one.side and _is_one_of_a_pair(one, names, guesses) for one in parts)
        if len(parts) == 1 or paired:
            joined += parts
        else:
            whole = sum(one.volume_ml for one in parts)
            heights = [one.height_mm for one in parts]
            joined.append(FoundLabel(key, None, max(one.masks for one in parts), whole, 0.0, float(np.mean(heights))))
    return joined


def find_organ_file(folder: Path, name: str) -> Path | None:
    """Return an organ's file in a folder of masks; None where there is none."""
    places = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in places if path.is_file()), None)


def _is_one_of_a_pair(
    part: FoundLabel, names: Mapping[int | str, str], guesses: Mapping[FoundLabel, Sequence[Anatomy]]
) -> bool:
    if part.key in names:
        return find_organ(f"{names[part.key]} {part.side}") is not None
    return part in guesses and guesses[part][0].name.endswith(f"_{part.side}")


def _find_middle(image: Path | None, modality: str, masks: Mapping[str, sitk.Image]) -> float:
    """Return where the middle of the body is: in the image, or else that of the mask's grid."""
    if image is not None and is_there(image):
        try:
            return find_body_x_mm(read_volume(image), modality)
        except VolumeError:
            pass
    first = next(iter(masks.values()), None)
    return 0.0 if first is None else find_middle_x_mm(get_grid(first))


def guess_organs(labels: Sequence[FoundLabel]) -> dict[FoundLabel, list[Anatomy]]:
    """Guess which organ each label is: the likeliest first, then others that are about as likely.

    Every organ is guessed once. What a volume, a side and a height among the other labels cost is
    least together (Hungarian method); heights count from the second round on, when it is known
    which vertebra the labels' mean lies beside.
    """
    organs = list(ORGANS.values())
    costs = np.array([[_cost(label, one) for one in organs] for label in labels]).reshape(len(labels), len(organs))
    for left, right in itertools.permutations(range(len(labels)), 2):
        if labels[left].key == labels[right].key and labels[left].side == "left":
            _cost_pairs(costs[left], costs[right], organs)
    costs += 0.05 * np.arange(len(organs))  # listed from the most to the least often drawn
    heights = np.array([label.height_mm / VERTEBRA_MM for label in labels])
    levels = np.array([one.level for one in organs])
    total, chosen = costs, np.full(len(labels), -1)
    for _ in range(4):
        rows, columns = linear_sum_assignment(np.hstack([total, np.full((len(labels),) * 2, _NO_ORGAN)]))
        chosen[rows] = np.where(columns < len(organs), columns, -1)
        known = np.flatnonzero(chosen >= 0)
        if len(known) < 2:
            break
        middle = np.median(heights[known] + levels[chosen[known]])
        total = costs + ((heights[:, None] + levels[None] - middle) / _HEIGHT) ** 2
    guesses: dict[FoundLabel, list[Anatomy]] = {}
    for row, label in enumerate(labels):
        if chosen[row] >= 0:
            rivals = [
                place
                for place in np.argsort(total[row])
                if place not in chosen and total[row, place] < total[row, chosen[row]] + _RIVAL
            ]
            guesses[label] = [organs[chosen[row]], *(organs[place] for place in rivals[:1])]
    return guesses


def _cost(label: FoundLabel, one: Anatomy) -> float:
    low, high = np.log(one.range_ml)
    deviation = (np.log(max(label.volume_ml, 1e-6)) - (low + high) / 2) / ((high - low) / 4)
    aside = tell_side(label.left_mm)
    if abs(deviation) > 2.5 or (one.side is not None and aside != one.side):
        return _UNLIKE
    return float(deviation**2 + (one.side is None and abs(label.left_mm) > _NEAR_MIDDLE_MM) * 4)


def _cost_pairs(left: np.ndarray, right: np.ndarray, organs: Sequence[Anatomy]) -> None:
    """Let the parts of one label be a pair of organs alone, as likely as both are (in place)."""
    names = [one.name for one in organs]
    together = {
        name: (left[place] + right[names.index(f"{name.removesuffix('_left')}_right")]) / 2
        for place, name in enumerate(names)
        if name.endswith("_left")
    }
    left[:] = [together.get(name, _UNLIKE) for name in names]
    right[:] = [
        together.get(name.replace("_right", "_left"), _UNLIKE) if "_right" in name else _UNLIKE for name in names
    ]


def describe_label(label: FoundLabel, opened: int, guesses: Sequence[Anatomy], *, alone: bool) -> str:
    """Return ``label 1: right, upper, 1,410 ml, in 10 of 10 masks (liver?)``."""
    height = "" if alone or abs(label.height_mm) < _APART_MM else "upper" if label.height_mm > 0 else "lower"
    place = ", ".join(filter(None, [tell_side(label.left_mm) or "middle", height]))
    what = f"label {label.key}" if isinstance(label.key, int) else f"file {label.key}"
    what += f", its {label.side} part" if label.side else ""
    named = f" ({' or '.join(name_for_people(one.name) for one in guesses)}?)" if guesses else ""
    return f"{what}: {place}, {write_ml(label.volume_ml)}, in {label.masks} of {opened} masks{named}"


def read_names(mask: Path, base: Path) -> tuple[dict[str, list[int]], str]:
    """Return the names of labels that are written beside a mask or in it, and where they stand.

    In ``dataset.json`` of nnU-Net (either version) in the mask's folder or one above, up to `base`;
    else in the header of a segmentation of 3D Slicer.
    """
    folders = [mask.parent, *(one for one in mask.parent.parents if one == base or base in one.parents)]
    for folder in folders:
        path = folder / "dataset.json"
        if path.is_file() and (names := _read_dataset(path)):
            return names, path.name
    names = _read_header_names(mask) if mask.is_file() else {}
    return names, f"the header of {mask.name}" if names else ""


def _read_dataset(path: Path) -> dict[str, list[int]]:
    try:
        labels = json.loads(path.read_text(encoding="utf-8")).get("labels", {})
        pairs = [(value, key) if str(key).isdigit() else (key, value) for key, value in labels.items()]
        names = {str(one): [int(id_) for id_ in (ids if isinstance(ids, list) else [ids])] for one, ids in pairs}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    return {name: ids for name, ids in names.items() if ids and 0 not in ids}


def _read_header_names(path: Path) -> dict[str, list[int]]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return {}
    told = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys() if re.match(r"Segment\d+_", key)}
    names: dict[str, list[int]] = {}
    for key, name in told.items():
        value = told.get(key.replace("_Name", "_LabelValue"), "")
        if key.endswith("_Name") and value.isdigit():
            names.setdefault(name, []).append(int(value))
    return names


def name_key(text: str) -> str:
    """Return a name as the parameter file may have it: ``Kidney (L)`` becomes kidney_left."""
    known = find_organ(text)
    return known.name if known else re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-").lower()[:64]


def match_labels(
    pairs: Sequence[tuple[Path, Path]], organs: Mapping[str, Organ], ids: Mapping[str, int]
) -> dict[str, int]:
    """Find the label of a model's label maps that overlaps each organ most, by Dice over all.

    Of `pairs` (reference, prediction) those that lie on one grid are compared. Organs that no label
    overlaps with a Dice of 0.2 or more are left out.
    """
    shared: Counter[tuple[int, int]] = Counter()
    for reference, prediction in pairs:
        try:
            ours = to_axial(read_label_map(reference, organs, ids).image)
            theirs = to_axial(_read_whole(prediction))
        except VolumeError:
            continue
        if not get_grid(ours).differences(get_grid(theirs)):
            shared.update(_count_shared(sitk.GetArrayViewFromImage(ours), sitk.GetArrayViewFromImage(theirs)))
    own_size, their_size = Counter[int](), Counter[int]()
    for (own, label), voxels in shared.items():
        own_size[own] += voxels
        their_size[label] += voxels
    found = {}
    for name, own in ids.items():
        dice = {
            label: 2 * voxels / (own_size[own] + their_size[label])
            for (other, label), voxels in shared.items()
            if other == own and label
        }
        best = max(dice, key=lambda label: dice[label], default=0)
        if best and dice[best] >= _LEAST_OVERLAP:
            found[name] = best
    return found


def _count_shared(ours: np.ndarray, theirs: np.ndarray) -> dict[tuple[int, int], int]:
    """Count the voxels of each pair of labels, where either is one."""
    either = (ours > 0) | (theirs > 0)
    base = int(theirs.max(initial=0)) + 1
    pairs, counts = np.unique(ours[either].astype(np.int64) * base + theirs[either], return_counts=True)
    return {divmod(int(pair), base): int(number) for pair, number in zip(pairs, counts, strict=True)}
