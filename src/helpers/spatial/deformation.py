"""From an affine alignment to a deformable one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from helpers.spatial.correspondence import AffineAlignment, DistanceField
from helpers.spatial.surfaces import VoxelFrame

# Coarse to fine: by how much the grid is thinned, and how many steps are made there.
LEVELS = ((2, 25), (1, 20))
COARSE = LEVELS[:1]
# The Gaussian (in steps of the level's grid) that keeps the deformation smooth.
ELASTICITY_STEPS = 1.0
# Displacements are kept as whole hundredths of a millimetre: far below a voxel, and small on disk.
STORED_MM = 0.01


@dataclass(frozen=True)
class DeformableAlignment:
    """``scan = affine(template + displacement(template))``, all in LPS mm."""

    affine: AffineAlignment
    displacement_mm: np.ndarray  # float32, (z, y, x, 3), along x, y, z, on the template's grid
    grid_mm: float
    origin_mm: np.ndarray  # (3,): where the first voxel lies (x, y, z) in template mm

    def displace(self, points_mm: np.ndarray) -> np.ndarray:
        """Return where template points (n, 3) lie deformed, before the affine alignment."""
        places = ((points_mm - self.origin_mm) / self.grid_mm)[:, ::-1].T
        moved = [
            ndimage.map_coordinates(self.displacement_mm[..., axis], places, order=1, mode="constant")
            for axis in range(3)
        ]
        return points_mm + np.stack(moved, axis=1)

    def map_points(self, points_mm: np.ndarray) -> np.ndarray:
        """Return where template points (n, 3) lie in the scan, LPS mm."""
        return self.affine.map_points(self.displace(points_mm))

    def as_transform(self) -> sitk.CompositeTransform:
        """Return the part from template mm to organ-centred mm as a SimpleITK transform."""
        # A composite applies what was added last first. The transform takes its image over.
        deform = sitk.DisplacementFieldTransform(self._as_image())
        return sitk.CompositeTransform([self.affine.as_transform(), deform])

    def measure_volume_change(self, points_mm: np.ndarray) -> np.ndarray:
        """Return how much the deformation swells (> 1) or shrinks (< 1) at template points, (n,).

        The determinant of its Jacobian at the nearest voxel, not positive where it folds; 1 beyond
        the grid.
        """
        change = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(self._as_image()))
        places = np.rint((points_mm - self.origin_mm) / self.grid_mm)[:, ::-1].T
        return ndimage.map_coordinates(change, places, order=0, mode="constant", cval=1.0)

    def _as_image(self) -> sitk.Image:
        frame = VoxelFrame.upright(self.origin_mm, self.grid_mm)
        return frame.as_image(self.displacement_mm.astype(np.float64), vectors=True)


def deform(
    template: DistanceField,
    field: DistanceField,
    affine: AffineAlignment,
    *,
    levels: Sequence[tuple[int, int]] = LEVELS,
) -> DeformableAlignment:
    """Find the smooth deformation that takes an affinely aligned template to a scan's organ.

    The two fields are clipped alike; `levels` as in :data:`LEVELS`. Displacements are rounded to
    0.01 mm, so that a stored alignment is the same as a new one.

    Notes
    -----
    Diffeomorphic demons with symmetric forces (SimpleITK), coarse to fine: the two fields agree
    where their surfaces do, and their difference, in mm, is how far a surface has still to move.
    What the scan cannot show (organs cut by the field of view) pulls at nothing. Deterministic.

    Sources: Vercauteren et al., Diffeomorphic demons: efficient non-parametric image registration,
    NeuroImage 45:S61-S72, 2009.
    """
    fixed = template.as_image()
    beyond_mm = float(template.values_mm.max())
    aligned = affine.as_transform()
    moving = sitk.Resample(field.as_image(), fixed, aligned, sitk.sitkLinear, beyond_mm)
    if field.known is not None:
        known = sitk.Resample(field.known_as_image(), fixed, aligned, sitk.sitkNearestNeighbor, 1)
        mixed = np.where(sitk.GetArrayViewFromImage(known) > 0, sitk.GetArrayViewFromImage(moving), template.values_mm)
        moving = sitk.GetImageFromArray(mixed.astype(np.float32))
        moving.CopyInformation(fixed)
    displacement = sitk.Image(fixed.GetSize(), sitk.sitkVectorFloat64, 3)
    displacement.CopyInformation(fixed)
    for thinning, steps in levels:
        if min(fixed.GetSize()) < 8 * thinning and thinning > 1:
            continue
        coarse_fixed, coarse_moving = (sitk.BinShrink(image, [thinning] * 3) for image in (fixed, moving))
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfThreads(1)
        demons.SetNumberOfIterations(steps)
        demons.SetUseGradientType(demons.Symmetric)
        demons.SmoothDisplacementFieldOn()
        demons.SetStandardDeviations(ELASTICITY_STEPS)
        start = sitk.Resample(displacement, coarse_fixed, sitk.Transform(), sitk.sitkLinear, 0.0)
        displacement = demons.Execute(coarse_fixed, coarse_moving, start)
    # The last level may have been a coarse one.
    found = sitk.GetArrayFromImage(sitk.Resample(displacement, fixed, sitk.Transform(), sitk.sitkLinear, 0.0))
    return DeformableAlignment(
        affine, quantise(found) * np.float32(STORED_MM), template.grid_mm, np.asarray(template.origin_mm)
    )


def quantise(displacement_mm: np.ndarray) -> np.ndarray:
    """Return displacements as int16 in steps of 0.01 mm (up to ±327 mm)."""
    return np.clip(np.rint(displacement_mm / STORED_MM), -32767, 32767).astype(np.int16)


def remove_mean_displacement(field: DistanceField, displacement_mm: np.ndarray) -> DistanceField:
    """Move a template so that, on average over the shapes, each of its points is carried to itself.

    `field` is the mean of the shapes in template space, `displacement_mm` (z, y, x, 3) that of
    their displacements, on the field's grid.
    """
    grid = field.as_image()
    mean = VoxelFrame.upright(field.origin_mm, field.grid_mm).as_image(displacement_mm.astype(np.float64), vectors=True)
    inverse = sitk.InvertDisplacementField(mean, maximumNumberOfIterations=20)
    outside_mm = float(field.values_mm.max())
    moved = sitk.Resample(grid, grid, sitk.DisplacementFieldTransform(inverse), sitk.sitkBSpline, outside_mm)
    return replace(field, values_mm=sitk.GetArrayFromImage(moved))
