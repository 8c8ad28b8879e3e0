"""Which point of a person's organ each template vertex stands for.

Three steps: an affine registration of signed-distance fields, a deformable one of what it leaves
(:mod:`helpers.spatial.deformation`), and each vertex so carried is snapped to the closest point of
the person's own reference surface.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import edt
import numpy as np
import SimpleITK as sitk

from helpers.spatial.surfaces import Occupancy, Surface, VoxelFrame, find_closest_points
from helpers.storage import write_atomically

# Fields are clipped this many grid steps from the surface: beyond, they tell of size, not of shape.
CLIP_STEPS = 5
# The registration looks at this many grid steps on either side of the template's surface ...
BAND_STEPS = 3
# ... and, on large organs, at about this many points of that band.
METRIC_POINTS = 4000
# The optimiser's unit of length, in which an organ's turns and shifts weigh about alike.
OPTIMISER_UNIT_MM = 30.0
# A distance is poor over this part of the organ's radius, or as an outlier over the lower one.
POOR_RADIUS_FRACTION = 0.25
OUTLIER_RADIUS_FRACTION = 0.10
OUTLIER_ROBUST_SD = 3.0


@dataclass(frozen=True)
class DistanceField:
    """A signed-distance field of one organ on an isotropic grid along the body's axes."""

    values_mm: np.ndarray  # float32, (z, y, x): to the surface, negative inside, clipped
    grid_mm: float  # the spacing
    origin_mm: np.ndarray  # (3,): the first voxel (x, y, z), relative to the organ's centre
    centre_mm: np.ndarray  # (3,): the organ's centroid in the scan (LPS)
    scale_mm: np.ndarray  # (3,): SD of the organ's volume along x, y, z
    cut: np.ndarray  # bool, (3, 2): the organ reaches the end of the scan, see Occupancy
    known: np.ndarray | None = None  # bool, (z, y, x): where the scan can say; None: everywhere
    name: str = ""  # whose organ it is, for progress and failures

    @property
    def extent_mm(self) -> np.ndarray:
        """Where the organ begins and ends along x, y, z, (3, 2), organ-centred mm, to a voxel."""
        inside = self.values_mm < 0
        ends = [np.flatnonzero(inside.any(axis=other))[[0, -1]] for other in ((0, 1), (0, 2), (1, 2))]
        return self.origin_mm[:, None] + self.grid_mm * np.asarray(ends, float)

    def hash_content(self) -> str:
        """Return a hash of the shape, wherever in its scan it lies: SHA-256 in hex."""
        digest = hashlib.sha256(repr((self.grid_mm, self.values_mm.shape)).encode())
        for part in (self.values_mm, self.origin_mm, self.cut, self.known):
            digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def as_image(self) -> sitk.Image:
        """Return the field as a SimpleITK image in organ-centred mm."""
        return VoxelFrame.upright(self.origin_mm, self.grid_mm).as_image(self.values_mm)

    def known_as_image(self) -> sitk.Image:
        """Return where the scan can say as a uint8 image on the field's grid."""
        known = np.ones(self.values_mm.shape, np.uint8) if self.known is None else self.known.astype(np.uint8)
        return VoxelFrame.upright(self.origin_mm, self.grid_mm).as_image(known)

    def save(self, path: Path) -> None:
        """Write the field as .npz, atomically."""
        known = np.zeros((0, 0, 0), bool) if self.known is None else self.known
        with write_atomically(path) as temporary:
            np.savez(temporary, **(vars(self) | {"known": known}))

    @classmethod
    def load(cls, path: Path) -> DistanceField:
        """Read a field that :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            found = dict(stored)
        known = found["known"] if found["known"].size else None
        return cls(**(found | {"grid_mm": float(found["grid_mm"]), "known": known, "name": str(found["name"])}))


@dataclass(frozen=True)
class AffineAlignment:
    """``scan = centre + matrix · template + offset``, all in LPS mm."""

    matrix: np.ndarray  # (3, 3)
    offset_mm: np.ndarray  # (3,), relative to the organ's centre
    centre_mm: np.ndarray  # (3,), the organ's centroid in the scan

    def map_points(self, points_mm: np.ndarray) -> np.ndarray:
        """Return where template points (n, 3) lie in the scan, LPS mm."""
        return self.centre_mm + points_mm @ self.matrix.T + self.offset_mm

    def as_transform(self) -> sitk.AffineTransform:
        """Return the part from template mm to organ-centred mm as a SimpleITK transform."""
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(self.matrix.ravel().tolist())
        transform.SetTranslation(self.offset_mm.tolist())
        return transform


@dataclass(frozen=True)
class SurfaceMatch:
    """A person's surface point for every template vertex, and how far off these lay before."""

    points_mm: np.ndarray  # (n, 3), on the person's reference surface; NaN where missing
    distance_mm: float  # mean over the vertices carried there; NaN without any


def measure_field(occupancy: Occupancy, *, grid_mm: float, name: str = "") -> DistanceField:
    """Turn an organ's occupancy into a clipped signed-distance field around its centroid.

    Distances are taken on a grid of half the spacing `grid_mm` and averaged. `name` is whose it is.
    """
    image = occupancy.as_image()
    inside_zyx = np.argwhere(occupancy.values > 0.5)
    places_mm = occupancy.frame.to_mm(inside_zyx[:, ::-1].astype(float))
    centre, scale = places_mm.mean(axis=0), np.maximum(places_mm.std(axis=0), grid_mm / 4)
    clip_mm = CLIP_STEPS * grid_mm
    low, high = places_mm.min(axis=0) - centre - clip_mm, places_mm.max(axis=0) - centre + clip_mm
    shape = 2 * np.ceil((high - low) / grid_mm).astype(int)
    step = grid_mm / 2
    # Beyond the scan the nearest value counts (the last argument): a cut organ goes on.
    fine = sitk.Resample(
        image, shape.tolist(), sitk.Transform(), sitk.sitkLinear, (centre + low).tolist(), [step] * 3,
        np.eye(3).ravel().tolist(), 0.0, sitk.sitkFloat32, True,
    )  # fmt: skip
    inside = sitk.GetArrayViewFromImage(fine) > 0.5
    spacing = (step, step, step)
    # The nearest voxel centre of the other side lies beyond the surface by half a voxel where it
    # runs along the grid, by nearly nothing where it runs across: a quarter is right on average.
    distance = edt.edt(~inside, anisotropy=spacing, parallel=1) - step / 4
    distance[inside] = step / 4 - edt.edt(inside, anisotropy=spacing, parallel=1)[inside]
    nz, ny, nx = (size // 2 for size in distance.shape)
    distance = np.clip(distance, -clip_mm, clip_mm).reshape(nz, 2, ny, 2, nx, 2).mean(axis=(1, 3, 5))
    origin = low + step / 2
    known = None
    if occupancy.cut.any():
        axes = [origin[axis] + centre[axis] + grid_mm * np.arange(size) for axis, size in enumerate((nx, ny, nz))]
        z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
        points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
        known = ~occupancy.is_beyond_cut(points).reshape(nz, ny, nx)
    return DistanceField(distance.astype(np.float32), grid_mm, origin, centre, scale, occupancy.cut, known, name)


def guess_alignment(
    field: DistanceField, template_scale_mm: np.ndarray, template_extent_mm: np.ndarray | None = None
) -> AffineAlignment:
    """Return the alignment that matches centroid and size along each axis, to start from.

    Along an axis on which the organ is cut its size is not known and is taken as the template's.
    Where it is cut at one end, its other end is put on the template's (`template_extent_mm`, see
    :attr:`DistanceField.extent_mm`).
    """
    cut = field.cut.any(axis=1)
    factors = np.where(cut, 1.0, field.scale_mm / template_scale_mm)
    offset = np.zeros(3)
    if template_extent_mm is not None:
        for axis in np.flatnonzero(field.cut.sum(axis=1) == 1):
            end = int(field.cut[axis, 0])  # the one that is not cut
            offset[axis] = field.extent_mm[axis, end] - template_extent_mm[axis, end]
    return AffineAlignment(np.diag(factors), offset, field.centre_mm)


def register_affine(template: DistanceField, field: DistanceField, start: AffineAlignment) -> AffineAlignment:
    """Find the affine alignment from a template to a scan's organ.

    Mean squared difference of the signed-distance fields within a band around the template's
    surface, minimised by L-BFGS-B from `start` (SimpleITK). Deterministic. A ValueError where the
    fields do not overlap, or the optimiser left the field.
    """
    fixed, moving = template.as_image(), field.as_image()
    band_mm = BAND_STEPS * template.grid_mm
    band = sitk.Cast(sitk.Abs(fixed) < band_mm, sitk.sitkUInt8)
    inside_band = int(sitk.GetArrayViewFromImage(band).sum())
    known = field.known_as_image() if field.known is not None else None
    for image in (fixed, moving, band, known):
        if image is not None:
            image.SetSpacing([step / OPTIMISER_UNIT_MM for step in image.GetSpacing()])
            image.SetOrigin([place / OPTIMISER_UNIT_MM for place in image.GetOrigin()])
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(start.matrix.ravel().tolist())
    transform.SetTranslation((start.offset_mm / OPTIMISER_UNIT_MM).tolist())
    registration = sitk.ImageRegistrationMethod()
    registration.SetNumberOfThreads(1)
    registration.SetMetricAsMeanSquares()
    registration.SetMetricFixedMask(band)
    if known is not None:
        registration.SetMetricMovingMask(known)
    if inside_band > METRIC_POINTS:
        registration.SetMetricSamplingStrategy(registration.REGULAR)
        # Each point is moved at random within its voxel: by the clock, unless a seed is given.
        registration.SetMetricSamplingPercentage(METRIC_POINTS / inside_band, seed=1)
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetOptimizerAsLBFGSB(
        gradientConvergenceTolerance=1e-4, numberOfIterations=60, maximumNumberOfFunctionEvaluations=100,
        costFunctionConvergenceFactor=1e12,
    )  # fmt: skip
    registration.SetInitialTransform(transform, inPlace=True)
    warns = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # a trial step off the field is no news
    try:
        registration.Execute(fixed, moving)
        mismatch = registration.GetMetricValue()
    except RuntimeError:
        mismatch = math.inf
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warns)
    # Clipped fields differ by twice the clip at most; without a common point the metric is huge.
    if not mismatch <= (2 * CLIP_STEPS * template.grid_mm) ** 2:
        raise ValueError("the organ could not be registered to the template: the two do not overlap")
    matrix = np.asarray(transform.GetMatrix()).reshape(3, 3)
    # SimpleITK gives `matrix · (x − c) + c + translation`; the fixed centre c is the origin here.
    offset = np.asarray(transform.TransformPoint((0.0, 0.0, 0.0))) * OPTIMISER_UNIT_MM
    if not np.isfinite(matrix).all() or not 0.05 < np.linalg.det(matrix) < 20:
        raise ValueError("the organ could not be registered to the template: the alignment collapsed")
    return AffineAlignment(matrix, offset, field.centre_mm)


def match_vertices(carried_mm: np.ndarray, occupancy: Occupancy, reference: Surface) -> SurfaceMatch:
    """Snap template vertices carried into a scan (n, 3) to the person's reference surface.

    A vertex that lands outside the field of view of a cut organ, or on the rim where the surface
    was cut, is missing (NaN): the person's organ has no such place in this scan.
    """
    snapped = find_closest_points(reference, carried_mm)
    missing = occupancy.is_beyond_cut(carried_mm) | occupancy.is_beyond_cut(snapped, tolerance_mm=1e-3)
    distances = np.linalg.norm(carried_mm - snapped, axis=1)[~missing]
    distances = distances[np.isfinite(distances)]
    snapped[missing] = np.nan
    return SurfaceMatch(snapped, float(distances.mean()) if distances.size else math.nan)


def flag_poor_matches(distances_mm: Sequence[float], *, radius_mm: float) -> list[str]:
    """Return per scan "" or why it does not fit the template well enough to be used.

    The limits are :data:`POOR_RADIUS_FRACTION` of the organ's radius, and for outliers above the
    scans' median :data:`OUTLIER_ROBUST_SD` robust SDs (1.4826 times the median absolute deviation),
    but at least :data:`OUTLIER_RADIUS_FRACTION`; a distance of NaN is poor.
    """
    distances = np.asarray(distances_mm, float)
    finite = distances[np.isfinite(distances)]
    median = float(np.median(finite)) if finite.size else math.nan
    spread = 1.4826 * float(np.median(np.abs(finite - median))) if finite.size else math.nan
    limit = POOR_RADIUS_FRACTION * radius_mm
    outlier = max(median + OUTLIER_ROBUST_SD * spread, OUTLIER_RADIUS_FRACTION * radius_mm)
    reasons = []
    for distance in distances:
        said = f"after registration the template lies {distance:.1f} mm from the organ's surface on average, "
        if not math.isfinite(distance):
            reasons.append("no part of the template's surface falls into the scan")
        elif distance > limit:
            reasons.append(f"{said}over a quarter of the organ's radius ({limit:.1f} mm)")
        elif distance > outlier:
            reasons.append(f"{said}against a median of {median:.1f} mm over the scans")
        else:
            reasons.append("")
    return reasons
