"""An organ's mean shape over a cohort, as a field and as a triangle mesh."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from skimage.measure import marching_cubes

from helpers.errors import StageError
from helpers.spatial.correspondence import CLIP_STEPS, AffineAlignment, DistanceField, guess_alignment, register_affine
from helpers.spatial.deformation import COARSE, LEVELS, DeformableAlignment, deform, remove_mean_displacement
from helpers.spatial.surfaces import (
    Surface,
    keep_largest_part,
    measure_enclosed_volume,
    measure_vertex_areas,
    smooth_surface,
)
from helpers.storage import write_atomically

MIN_SHAPES = 3

# How shapes are brought to the mean so far: as placed before, affinely anew, or deformed as well.
AlignmentStep = Literal["place", "affine", "coarse", "fine"]
# The first mean to deform to is still blurred: fine steps would find nothing to follow.
ROUNDS: tuple[AlignmentStep, ...] = ("affine", "affine", "coarse", "fine")


@dataclass(frozen=True)
class Template:
    """A cohort's mean organ, in LPS mm (x left, y posterior, z superior) about its middle."""

    vertices_mm: np.ndarray  # (n, 3)
    faces: np.ndarray  # int, (m, 3)
    field: DistanceField  # the mean signed distances
    subjects: int  # how many shapes were averaged
    made_from: str = ""  # a hash of the shapes and settings; empty where not recorded

    @property
    def radius_mm(self) -> float:
        """Three times volume over surface: a ball's radius."""
        volume = abs(measure_enclosed_volume(self.vertices_mm, self.faces))
        return 3 * volume / float(self.areas_mm2.sum())

    @cached_property
    def areas_mm2(self) -> np.ndarray:
        """The area each vertex stands for, (n,)."""
        return measure_vertex_areas(self.vertices_mm, self.faces)

    @cached_property
    def key(self) -> str:
        """A hash of the mean field, which registrations to this template depend on."""
        return self.field.hash_content()

    def save(self, path: Path) -> None:
        """Write the template as .npz, atomically."""
        with write_atomically(path) as temporary:
            np.savez_compressed(
                temporary, vertices=self.vertices_mm.astype(np.float32), faces=self.faces.astype(np.int32),
                field=self.field.values_mm.astype(np.float32), field_origin=self.field.origin_mm,
                field_grid=np.float64(self.field.grid_mm), field_scale=self.field.scale_mm,
                subjects=np.int32(self.subjects), made_from=self.made_from,
            )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Template:
        """Read a template that :meth:`save` wrote.

        A StageError where the file is missing or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                grid_mm, origin, scale = float(stored["field_grid"]), stored["field_origin"], stored["field_scale"]
                field = DistanceField(stored["field"], grid_mm, origin, np.zeros(3), scale, np.zeros((3, 2), bool))
                vertices, faces = stored["vertices"].astype(float), stored["faces"].astype(np.int64)
                made_from = str(stored["made_from"]) if "made_from" in stored else ""
                return cls(vertices, faces, field, int(stored["subjects"]), made_from)
        except FileNotFoundError:
            raise StageError(f"{path} is missing: run 04_spatial") from None
        except (KeyError, ValueError, OSError) as error:
            raise StageError(f"{path} is not a template: delete it and run 04_spatial again") from error


@dataclass(frozen=True)
class ShapeSum:
    """What some shapes add to a mean: arrays are on the canvas (z, y, x)."""

    total_mm: np.ndarray  # the sum of the shapes' fields where their scans can say ...
    weight: np.ndarray  # ... and how many these are
    alignments: list[AffineAlignment | None]  # None: could not be registered
    displacement_mm: np.ndarray | None = None  # (z, y, x, 3): the sum of the displacements


# Adds shapes up on a canvas, in parts that together are all of them, in their order.
AddAll = Callable[[DistanceField, Sequence[DistanceField], Sequence[AffineAlignment], AlignmentStep], list[ShapeSum]]


def add_shapes(
    canvas: DistanceField, fields: Sequence[DistanceField], starts: Sequence[AffineAlignment], step: AlignmentStep
) -> ShapeSum:
    """Bring shapes, which lie as `starts` says, to the mean so far and add them up there.

    For the step "place" the canvas may be any field on the grid to add up on.
    """
    total, weight = np.zeros(canvas.values_mm.shape), np.zeros(canvas.values_mm.shape, np.int32)
    moved = np.zeros((*canvas.values_mm.shape, 3)) if step in ("coarse", "fine") else None
    found: list[AffineAlignment | None] = []
    image, clip_mm = canvas.as_image(), CLIP_STEPS * canvas.grid_mm
    for field, start in zip(fields, starts, strict=True):
        try:
            affine = register_affine(canvas, field, start) if step == "affine" else start
        except ValueError:
            found.append(None)
            continue
        found.append(affine)
        alignment: AffineAlignment | DeformableAlignment = affine
        if moved is not None:
            alignment = deform(canvas, field, affine, levels=COARSE if step == "coarse" else LEVELS)
            moved += alignment.displacement_mm
        transform = alignment.as_transform()
        # Linear interpolation would pull an organ's poles inwards by a third of a millimetre.
        values = sitk.GetArrayFromImage(sitk.Resample(field.as_image(), image, transform, sitk.sitkBSpline, clip_mm))
        if field.known is None:
            total += values
            weight += 1
        else:
            known = sitk.Resample(field.known_as_image(), image, transform, sitk.sitkNearestNeighbor, 0)
            seen = sitk.GetArrayFromImage(known) > 0
            total += np.where(seen, values, 0)
            weight += seen
    return ShapeSum(total, weight, found, moved)


def build_template(
    fields: Sequence[DistanceField],
    add_all: AddAll,
    *,
    vertices: int,
    rounds: Sequence[AlignmentStep] = ROUNDS,
    made_from: str = "",
) -> Template:
    """Average organs to a shape that favours none of them.

    A ValueError where no shape is left to average.

    `fields` are one per person: organs cut by the field of view are left out where three whole ones
    remain. `add_all` calls :func:`add_shapes` on all shapes, in parts; the mesh gets about
    `vertices` vertices. `rounds` says how shapes are registered to the mean, each time they are
    averaged again; `made_from` is kept with the template, see :func:`hash_ingredients`.

    Notes
    -----
    The first mean matches only centroids and sizes along the axes. In each round every shape is
    registered to the mean and the fields are averaged in template space, each where its scan can
    say; then the mean of all alignments is taken out (docs/METHODS.md, section 12).

    Sources: Guimond, Meunier, Thirion, Average brain models: a convergence study, CVIU 77:192-210,
    2000.
    """
    shapes = [fields[place] for place in choose_whole([bool(field.cut.any()) for field in fields])]
    if not shapes:
        raise ValueError("a template needs at least one shape")
    scale = np.exp(np.mean([np.log(field.scale_mm) for field in shapes], axis=0))
    alignments = [guess_alignment(field, scale) for field in shapes]
    mean, _ = _average(_enclose(shapes, alignments, scale), add_all, shapes, alignments, "place")
    mean = _crop(mean)
    for step in rounds:
        averaged, parts = _average(mean, add_all, shapes, alignments, step)
        found = [alignment for part in parts for alignment in part.alignments]
        kept = [place for place, alignment in enumerate(found) if alignment is not None]
        if not kept:
            break
        shapes = [shapes[place] for place in kept]
        alignments = [alignment for alignment in found if alignment is not None]
        if step == "affine":
            mean = _crop(_remove_mean_affine(averaged, alignments))
            alignments = remove_mean_alignment(alignments)
        else:
            sums = [part.displacement_mm for part in parts if part.displacement_mm is not None]
            displacement = np.sum(sums, axis=0) / len(shapes)
            mean = remove_mean_displacement(averaged, displacement)
    surface = mesh_field(mean, vertices=vertices)
    middle = np.average(surface.vertices_mm, axis=0, weights=measure_vertex_areas(surface.vertices_mm, surface.faces))
    mean = replace(mean, origin_mm=mean.origin_mm - middle)
    return Template(surface.vertices_mm - middle, surface.faces, mean, len(shapes), made_from)


def choose_whole(cut: Sequence[bool]) -> list[int]:
    """Return the places of the shapes that are not cut, where there are three, else of all."""
    whole = [place for place, is_cut in enumerate(cut) if not is_cut]
    return whole if len(whole) >= MIN_SHAPES else list(range(len(cut)))


def hash_ingredients(contents: Sequence[str], *, vertices: int) -> str:
    """Return a hash of what a template is made from: the shapes' hashes in order, and settings."""
    digest = hashlib.sha256(repr((vertices, ROUNDS)).encode())
    for content in contents:
        digest.update(content.encode())
    return digest.hexdigest()


def remove_mean_alignment(alignments: Sequence[AffineAlignment]) -> list[AffineAlignment]:
    """Move the template so that, on average, each of its points is carried to itself."""
    matrix, offset = _find_mean_affine(alignments)
    inverse = np.linalg.inv(matrix)
    moved = [(one.matrix @ inverse, one.offset_mm - one.matrix @ inverse @ offset) for one in alignments]
    return [AffineAlignment(*how, one.centre_mm) for how, one in zip(moved, alignments, strict=True)]


def mesh_field(field: DistanceField, *, vertices: int) -> Surface:
    """Return the zero level of a field as a smooth closed mesh of about `vertices` vertices.

    The field is resampled to the spacing at which marching cubes gives that many; the largest part
    is kept and smoothed. A ValueError where the field has no zero level.
    """
    # A rim of "outside" closes the surface of an organ that reaches the grid's end.
    values = np.pad(field.values_mm, 1, constant_values=CLIP_STEPS * field.grid_mm)
    if not values.min() < 0:
        raise ValueError("the mean shape is empty: the organs do not overlap after alignment")
    step = field.grid_mm
    surface = _march(values, field, step)
    for _ in range(4):
        count = len(surface.vertices_mm)
        if abs(count - vertices) <= 0.03 * vertices:
            break
        step *= float(np.sqrt(count / vertices))
        surface = _march(values, field, step)
    return smooth_surface(surface)


def _average(
    canvas: DistanceField,
    add_all: AddAll,
    shapes: Sequence[DistanceField],
    alignments: Sequence[AffineAlignment],
    step: AlignmentStep,
) -> tuple[DistanceField, list[ShapeSum]]:
    """Average shapes on a canvas, each where its scan can say; elsewhere it is outside."""
    parts = add_all(canvas, shapes, alignments, step)
    total = np.sum([part.total_mm for part in parts], axis=0)
    weight = np.sum([part.weight for part in parts], axis=0)
    mean = np.where(weight > 0, total / np.maximum(weight, 1), CLIP_STEPS * canvas.grid_mm)
    return replace(canvas, values_mm=mean.astype(np.float32)), parts


def _find_mean_affine(alignments: Sequence[AffineAlignment]) -> tuple[np.ndarray, np.ndarray]:
    matrix = np.mean([alignment.matrix for alignment in alignments], axis=0)
    return matrix, np.mean([alignment.offset_mm for alignment in alignments], axis=0)


def _remove_mean_affine(field: DistanceField, alignments: Sequence[AffineAlignment]) -> DistanceField:
    """Return a mean field as if the mean alignment had been taken out before adding up."""
    matrix, offset = _find_mean_affine(alignments)
    inverse = np.linalg.inv(matrix)
    transform = AffineAlignment(inverse, -inverse @ offset, np.zeros(3)).as_transform()
    outside_mm = CLIP_STEPS * field.grid_mm
    moved = sitk.Resample(field.as_image(), field.as_image(), transform, sitk.sitkBSpline, outside_mm)
    return replace(field, values_mm=sitk.GetArrayFromImage(moved))


def _crop(field: DistanceField) -> DistanceField:
    """Return a field without the margins in which it says nothing but "far outside"."""
    near = np.argwhere(field.values_mm < 0)
    if not len(near):
        return field
    margin = CLIP_STEPS + 1
    low = np.maximum(near.min(axis=0) - margin, 0)
    high = np.minimum(near.max(axis=0) + margin + 1, field.values_mm.shape)
    window = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
    values = np.ascontiguousarray(field.values_mm[window])
    return replace(field, values_mm=values, origin_mm=field.origin_mm + field.grid_mm * low[::-1])


def _march(values: np.ndarray, field: DistanceField, step: float) -> Surface:
    """Return the zero level of the padded field, sampled every `step` mm."""
    sizes = [int((size - 1) * field.grid_mm / step) + 1 for size in values.shape]
    axes = np.meshgrid(*[np.arange(size) * step / field.grid_mm for size in sizes], indexing="ij")
    # The grid may end before the field does: what lies beyond is outside the organ.
    resampled = np.pad(
        ndimage.map_coordinates(values, axes, order=3, mode="nearest"), 1, constant_values=float(values.max())
    )
    points, faces, _, _ = marching_cubes(resampled, 0.0, gradient_direction="ascent", allow_degenerate=False)
    placed = (points[:, ::-1].astype(float) - 1) * step + field.origin_mm - field.grid_mm
    return keep_largest_part(Surface(placed, faces.astype(np.int64)))


def _enclose(
    fields: Sequence[DistanceField], alignments: Sequence[AffineAlignment], scale_mm: np.ndarray
) -> DistanceField:
    """Return an empty canvas in template mm that holds every field's box."""
    corners = []
    for field, alignment in zip(fields, alignments, strict=True):
        last = field.origin_mm + field.grid_mm * (np.asarray(field.values_mm.shape[::-1]) - 1)
        box = np.stack(np.meshgrid(*np.stack([field.origin_mm, last], axis=1), indexing="ij"), axis=-1).reshape(-1, 3)
        corners.append((box - alignment.offset_mm) @ np.linalg.inv(alignment.matrix).T)
    grid_mm = fields[0].grid_mm
    low, high = np.concatenate(corners).min(axis=0), np.concatenate(corners).max(axis=0)
    shape = (np.ceil((high - low) / grid_mm).astype(int) + 1)[::-1]
    empty = np.full(shape, CLIP_STEPS * grid_mm, np.float32)
    return DistanceField(empty, grid_mm, low, np.zeros(3), scale_mm, np.zeros((3, 2), bool))
