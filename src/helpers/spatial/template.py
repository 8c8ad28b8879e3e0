"""An organ's mean shape over a cohort, as a field and as a triangle mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from skimage.measure import marching_cubes

from helpers.errors import StageError
from helpers.spatial.correspondence import (
    CLIP_STEPS,
    AffineAlignment,
    Field,
    guess_alignment,
)
from helpers.spatial.surfaces import (
    Surface,
    keep_largest_part,
    measure_enclosed_volume,
    measure_vertex_areas,
    smooth_surface,
)
from helpers.storage import write_atomically

ROUNDS = 2
MIN_SHAPES = 3

# Called with a template and, per shape, a field and where to start; returns an alignment per shape, None where it failed.
Register = Callable[[Field, Sequence[Field], Sequence[AffineAlignment]], list[AffineAlignment | None]]


@dataclass(frozen=True)
class Template:
    """A cohort's mean organ.

    Attributes
    ----------
    vertices_mm : ndarray, (n, 3)
        LPS millimetres about the mean of the surface: x to the person's left, y posterior, z superior.
    faces : ndarray of int, (m, 3)
    field : Field
        The mean signed-distance field in the same millimetres.
    subjects : int
        How many shapes were averaged.
    """

    vertices_mm: np.ndarray
    faces: np.ndarray
    field: Field
    subjects: int

    @property
    def radius_mm(self) -> float:
        """Three times volume over surface: a ball's radius."""
        area = measure_vertex_areas(self.vertices_mm, self.faces).sum()
        return 3 * abs(measure_enclosed_volume(self.vertices_mm, self.faces)) / float(area)

    @property
    def areas_mm2(self) -> np.ndarray:
        """The area each vertex stands for, (n,)."""
        return measure_vertex_areas(self.vertices_mm, self.faces)

    def save(self, path: Path) -> None:
        """Write the template as .npz (vertices, faces in LPS mm; the field and its grid), atomically."""
        with write_atomically(path) as temporary:
            np.savez_compressed(
                temporary,
                vertices=self.vertices_mm.astype(np.float32),
                faces=self.faces.astype(np.int32),
                field=self.field.values_mm.astype(np.float32),
                field_origin=self.field.origin_mm,
                field_grid=np.float64(self.field.grid_mm),
                field_scale=self.field.scale_mm,
                subjects=np.int32(self.subjects),
            )

    @classmethod
    def load(cls, path: Path) -> Template:
        """Read a template that :meth:`save` wrote.

        Raises
        ------
        StageError
            The file is missing or holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                field = Field(
                    stored["field"],
                    float(stored["field_grid"]),
                    stored["field_origin"],
                    np.zeros(3),
                    stored["field_scale"],
                    np.zeros((3, 2), bool),
                )
                return cls(
                    stored["vertices"].astype(float), stored["faces"].astype(np.int64), field, int(stored["subjects"])
                )
        except FileNotFoundError:
            raise StageError(f"{path} is missing: run 04_spatial") from None
        except (KeyError, ValueError, OSError) as error:
            raise StageError(f"{path} is not a template: delete it and run 04_spatial again") from error


def build_template(fields: Sequence[Field], register: Register, *, vertices: int, rounds: int = ROUNDS) -> Template:
    """Average organs to a shape that favours none of them.

    Parameters
    ----------
    fields : sequence of Field
        One per person. Organs cut by the field of view are left out where at least three whole ones remain.
    register : callable
        Registers fields to a template (how and where is the caller's).
    vertices : int
        About how many vertices the mesh gets.
    rounds : int
        How often shapes are registered to the mean and averaged again.

    Returns
    -------
    Template

    Raises
    ------
    ValueError
        No shape is left to average.

    Notes
    -----
    The first mean matches only centroids and sizes along the axes. In each round every shape is
    registered to the mean by an affine alignment, the mean of all alignments is taken out (so that
    the template keeps the cohort's mean place, size and proportions; Guimond et al. 2000), and the
    fields are averaged in template space, each where its scan can say.

    References
    ----------
    Guimond, Meunier, Thirion, Average brain models: a convergence study, CVIU 77:192-210, 2000.
    """
    whole = [field for field in fields if not field.cut.any()]
    shapes = whole if len(whole) >= MIN_SHAPES else list(fields)
    if not shapes:
        raise ValueError("a template needs at least one shape")
    scale = np.exp(np.mean([np.log(field.scale_mm) for field in shapes], axis=0))
    alignments = [guess_alignment(field, scale) for field in shapes]
    mean = average_fields(shapes, alignments, scale)
    for _ in range(rounds):
        found = register(mean, shapes, alignments)
        kept = [place for place, alignment in enumerate(found) if alignment is not None]
        if not kept:
            break
        shapes = [shapes[place] for place in kept]
        alignments = remove_mean_alignment([alignment for alignment in found if alignment is not None])
        mean = average_fields(shapes, alignments, scale)
    surface = mesh_field(mean, vertices=vertices)
    middle = np.average(surface.vertices_mm, axis=0, weights=measure_vertex_areas(surface.vertices_mm, surface.faces))
    return Template(
        surface.vertices_mm - middle, surface.faces, replace(mean, origin_mm=mean.origin_mm - middle), len(shapes)
    )


def remove_mean_alignment(alignments: Sequence[AffineAlignment]) -> list[AffineAlignment]:
    """Move the template so that, over all shapes, each of its points is carried to itself on average."""
    mean_matrix = np.mean([alignment.matrix for alignment in alignments], axis=0)
    mean_offset = np.mean([alignment.offset_mm for alignment in alignments], axis=0)
    inverse = np.linalg.inv(mean_matrix)
    return [
        AffineAlignment(
            alignment.matrix @ inverse,
            alignment.offset_mm - alignment.matrix @ inverse @ mean_offset,
            alignment.centre_mm,
        )
        for alignment in alignments
    ]


def average_fields(fields: Sequence[Field], alignments: Sequence[AffineAlignment], scale_mm: np.ndarray) -> Field:
    """Average fields in template space, each where its scan can say; elsewhere the clipped outside value."""
    grid_mm = fields[0].grid_mm
    clip_mm = CLIP_STEPS * grid_mm
    low, high = _enclose(fields, alignments)
    size = (np.ceil((high - low) / grid_mm).astype(int) + 1).tolist()
    canvas = sitk.Image(size, sitk.sitkFloat32)
    canvas.SetSpacing([grid_mm] * 3)
    canvas.SetOrigin(low.tolist())
    total, weight = np.zeros(size[::-1]), np.zeros(size[::-1])
    for field, alignment in zip(fields, alignments, strict=True):
        transform = alignment.as_transform()
        # Linear interpolation would pull the convex surface inwards, by a third of a millimetre at an organ's poles.
        # Copies, not views: a view does not keep the image it looks into alive.
        values = sitk.GetArrayFromImage(sitk.Resample(field.as_image(), canvas, transform, sitk.sitkBSpline, clip_mm))
        if field.known is None:
            total += values
            weight += 1
        else:
            known = sitk.Resample(field.known_as_image(), canvas, transform, sitk.sitkNearestNeighbor, 0)
            seen = sitk.GetArrayFromImage(known) > 0
            total += np.where(seen, values, 0)
            weight += seen
    mean = np.where(weight > 0, total / np.maximum(weight, 1), clip_mm).astype(np.float32)
    return Field(mean, grid_mm, low, np.zeros(3), scale_mm, np.zeros((3, 2), bool))


def mesh_field(field: Field, *, vertices: int) -> Surface:
    """Return the zero level of a field as a smooth closed mesh of about `vertices` vertices.

    The field is resampled to the spacing at which marching cubes gives that many, largest part kept, then smoothed.

    Raises
    ------
    ValueError
        The field has no zero level.
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


def _march(values: np.ndarray, field: Field, step: float) -> Surface:
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


def _enclose(fields: Sequence[Field], alignments: Sequence[AffineAlignment]) -> tuple[np.ndarray, np.ndarray]:
    """Return the box in template mm that holds every field's box."""
    corners = []
    for field, alignment in zip(fields, alignments, strict=True):
        last = field.origin_mm + field.grid_mm * (np.asarray(field.values_mm.shape[::-1]) - 1)
        box = np.stack(np.meshgrid(*np.stack([field.origin_mm, last], axis=1), indexing="ij"), axis=-1).reshape(-1, 3)
        corners.append((box - alignment.offset_mm) @ np.linalg.inv(alignment.matrix).T)
    return np.concatenate(corners).min(axis=0), np.concatenate(corners).max(axis=0)
