"""A mask's surface at sub-voxel precision: smoothed occupancy, triangles, distances to them.

Points are (n, 3) in physical LPS millimetres: x to the person's left, y posterior, z superior.
Arrays are (z, y, x).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage, sparse
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from helpers.volumes import find_boxes

# The Gaussian that rounds off the voxels' steps, as a part of the largest voxel side. It is the
# same for a reference and its prediction, so that what it does to curved surfaces cancels.
SMOOTHING_VOXELS = 0.5
# Voxels finer than this are pooled first: nothing at issue is smaller, and it saves time.
FINEST_MM = 1.5
# How many triangles, nearest by centroid, are looked at for a point's nearest one.
CANDIDATE_TRIANGLES = 16
# An error below this part of a voxel is 0: no mask can resolve it, and the rounding of equal
# surfaces would be tested.
_RESOLVED_VOXELS = 0.01


@dataclass(frozen=True)
class VoxelFrame:
    """Where the voxels of an array lie in the world."""

    origin_mm: np.ndarray  # (3,): the first voxel's centre (x, y, z)
    spacing_mm: np.ndarray  # (3,): between voxels, (x, y, z)
    direction: np.ndarray  # (3, 3): its columns are the array axes x, y, z in LPS

    @classmethod
    def of_image(cls, image: sitk.Image) -> VoxelFrame:
        """Return the frame of a SimpleITK image."""
        direction = np.asarray(image.GetDirection()).reshape(3, 3)
        return cls(np.asarray(image.GetOrigin()), np.asarray(image.GetSpacing()), direction)

    @classmethod
    def upright(cls, origin_mm: np.ndarray, spacing_mm: float) -> VoxelFrame:
        """Return the frame of a grid along the body's axes with equal steps."""
        return cls(np.asarray(origin_mm, float), np.full(3, float(spacing_mm)), np.eye(3))

    def to_mm(self, index_xyz: np.ndarray) -> np.ndarray:
        """Return points in mm from continuous indices (n, 3)."""
        return self.origin_mm + (index_xyz * self.spacing_mm) @ self.direction.T

    def to_index(self, points_mm: np.ndarray) -> np.ndarray:
        """Return continuous indices (n, 3) in (x, y, z) order from points in mm."""
        return (points_mm - self.origin_mm) @ self.direction / self.spacing_mm

    def as_image(self, values: np.ndarray, *, vectors: bool = False) -> sitk.Image:
        """Return values (z, y, x), or vectors (z, y, x, 3), as a SimpleITK image in their place."""
        image = sitk.GetImageFromArray(values, isVector=vectors)
        image.SetOrigin(self.origin_mm.tolist())
        image.SetSpacing(self.spacing_mm.tolist())
        image.SetDirection(self.direction.ravel().tolist())
        return image


@dataclass(frozen=True)
class Occupancy:
    """How full of the organ each place is: the mask cropped, pooled and lightly smoothed.

    Where the organ reaches the end of the scan it may go on outside the field of view: it is cut,
    and its surface stays open.
    """

    values: np.ndarray  # float32, (z, y, x), 0 to 1; the organ's surface is where it crosses 0.5
    frame: VoxelFrame
    cut: np.ndarray  # bool, (3, 2): for the axes x, y, z at their low and high end

    def evaluate(self, points_mm: np.ndarray) -> np.ndarray:
        """Return the occupancy at points, trilinearly; beyond the array the nearest counts."""
        index = self.frame.to_index(points_mm)
        return ndimage.map_coordinates(self.values, index[:, ::-1].T, order=1, mode="nearest")

    def is_beyond_cut(self, points_mm: np.ndarray, *, tolerance_mm: float = 0.0) -> np.ndarray:
        """Return whether points lie outside the field of view on a side where the organ is cut.

        With a tolerance, points up to that far inside count as well: the rim of an open surface.
        """
        index = self.frame.to_index(points_mm)
        slack = tolerance_mm / self.frame.spacing_mm
        last = np.asarray(self.values.shape[::-1]) - 1
        low = self.cut[:, 0] & (index <= slack)
        high = self.cut[:, 1] & (index >= last - slack)
        return np.asarray((low | high).any(axis=1))

    def as_image(self) -> sitk.Image:
        """Return the occupancy as a SimpleITK image in its place."""
        return self.frame.as_image(self.values)


@dataclass(frozen=True)
class Surface:
    """Triangles: `vertices_mm` (n, 3) float64, `faces` (m, 3) int; normals point outwards."""

    vertices_mm: np.ndarray
    faces: np.ndarray


def smooth_mask(
    labels: np.ndarray, frame: VoxelFrame, *, label: int = 1, box: tuple[slice, ...] | None = None
) -> Occupancy:
    """Crop a mask to its organ and turn it into a smooth occupancy whose 0.5 level is the surface.

    A ValueError where the mask is empty.

    `labels`, bool or uint8, (z, y, x), is a mask, or a label map, of the whole scan, which lies at
    `frame`; `label` says which label is the organ, `box` its bounding box, from :func:`find_boxes`;
    found when not given.

    Notes
    -----
    Voxels are pooled in blocks up to the larger of 1.5 mm and half the largest voxel side, whose
    filled fraction keeps the surface's place below the voxel. The Gaussian (σ) moves the surface of
    a ball of radius R inwards by about σ²/R, of a reference and its prediction alike.
    """
    if box is None:
        box = find_boxes((labels == label).view(np.uint8)).get(1)
    if box is None:
        raise ValueError("mask must not be empty")
    spacing = frame.spacing_mm[::-1]
    smoothing_mm = SMOOTHING_VOXELS * float(spacing.max())
    finest_mm = max(FINEST_MM, 0.5 * float(spacing.max()))
    factors = np.maximum(1, np.floor(finest_mm / spacing + 1e-6)).astype(int)
    margin = np.ceil(4 * smoothing_mm / spacing).astype(int) + 2 * factors
    shape = np.asarray(labels.shape)
    start = np.asarray([part.start for part in box])
    stop = np.asarray([part.stop for part in box])
    cut = np.stack([start == 0, stop == shape], axis=1)
    start, stop = np.maximum(start - margin, 0), np.minimum(stop + margin, shape)
    window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    crop = (labels[window] == label).astype(np.float32)
    crop = np.pad(crop, [(0, int(extra)) for extra in -(stop - start) % factors], mode="edge")
    blocks = [part for size, factor in zip(crop.shape, factors, strict=True) for part in (size // factor, factor)]
    pooled = crop.reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float32) if factors.max() > 1 else crop
    values = ndimage.gaussian_filter(pooled, smoothing_mm / (spacing * factors), mode="nearest", truncate=3.0)
    if values.max() <= 0.5:  # too thin to survive: better stepped than lost
        values = pooled if pooled.max() > 0.5 else pooled / pooled.max()
    first = (start + (factors - 1) / 2)[::-1]
    place = VoxelFrame(frame.to_mm(first[None])[0], frame.spacing_mm * factors[::-1], frame.direction)
    return Occupancy(np.ascontiguousarray(values), place, cut[::-1])


def extract_surface(occupancy: Occupancy) -> Surface:
    """Return the 0.5 level of an occupancy as triangles (marching cubes, Lewiner's tables).

    Open where the field of view cuts the organ; no triangles where the organ fills all there is.
    """
    if not occupancy.values.min() < 0.5 < occupancy.values.max() or min(occupancy.values.shape) < 2:
        return Surface(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    vertices, faces, _, _ = marching_cubes(occupancy.values, 0.5, gradient_direction="descent", allow_degenerate=False)
    return Surface(occupancy.frame.to_mm(vertices[:, ::-1].astype(float)), faces.astype(np.int64))


def find_closest_points(surface: Surface, points_mm: np.ndarray) -> np.ndarray:
    """Return for each point the closest point of a surface, exact on its triangles, (n, 3) in mm.

    NaN where the surface has no triangles or the point is NaN. Candidates are the sixteen triangles
    of nearest centroid: exact where triangles are of even size, as those of marching cubes are.
    """
    closest = np.full(points_mm.shape, np.nan)
    finite = np.isfinite(points_mm).all(axis=1)
    if not len(surface.faces) or not finite.any():
        return closest
    points_mm = points_mm[finite]
    corners = surface.vertices_mm[surface.faces]
    count = min(CANDIDATE_TRIANGLES, len(corners))
    _, nearest = cKDTree(corners.mean(axis=1)).query(points_mm, k=count)
    nearest = nearest.reshape(len(points_mm), count)
    feet = _project_on_triangles(np.repeat(points_mm[:, None], count, axis=1), corners[nearest])
    distances = np.linalg.norm(feet - points_mm[:, None], axis=2)
    closest[finite] = feet[np.arange(len(points_mm)), distances.argmin(axis=1)]
    return closest


def measure_signed_errors(points_mm: np.ndarray, prediction: Occupancy, surface: Surface) -> np.ndarray:
    """Measure how far the predicted surface lies from points of the reference surface, with a sign.

    `points_mm`, (n, 3), are on the reference surface (LPS mm), NaN for a vertex that is missing in
    this scan; `prediction` and `surface` are the predicted organ and its surface, smoothed as the
    reference's was. Returns float32, (n,), the distance in mm to the closest point of the predicted
    surface: positive where the point lies inside the prediction (over-segmentation), negative where
    it lies outside. NaN for a missing point, and where the prediction has no surface in the scan;
    0 below a hundredth of the prediction's smallest voxel side.

    Notes
    -----
    A hole or an island counts like the outer surface, and at a thin tip the nearest surface may be
    that of the other side.
    """
    errors = np.full(len(points_mm), np.nan, np.float32)
    finite = np.isfinite(points_mm).all(axis=1)
    if not finite.any():
        return errors
    points = points_mm[finite]
    distances = np.linalg.norm(points - find_closest_points(surface, points), axis=1)
    distances[distances < _RESOLVED_VOXELS * prediction.frame.spacing_mm.min()] = 0.0
    errors[finite] = np.where(prediction.evaluate(points) > 0.5, distances, -distances)
    return errors


def measure_vertex_areas(vertices_mm: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the area (mm²) each vertex stands for: a third of each triangle it is in, (n,)."""
    a, b, c = vertices_mm[faces].swapaxes(0, 1)
    thirds = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return np.bincount(faces.ravel(), np.repeat(thirds, 3), minlength=len(vertices_mm))


def measure_enclosed_volume(vertices_mm: np.ndarray, faces: np.ndarray) -> float:
    """Return the volume (mm³) in a closed surface; negative where its triangles face inwards."""
    a, b, c = vertices_mm[faces].swapaxes(0, 1)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def smooth_surface(surface: Surface) -> Surface:
    """Smooth a surface without shrinking it (Taubin, SIGGRAPH 1995, section 3).

    Each of ten rounds moves every vertex towards the mean of its neighbours, then back by a little
    more.
    """
    average = _average_neighbours(len(surface.vertices_mm), surface.faces)
    vertices = surface.vertices_mm
    for _ in range(10):
        for step in (0.5, -0.53):
            vertices = vertices + step * (average @ vertices - vertices)
    return replace(surface, vertices_mm=vertices)


def keep_largest_part(surface: Surface) -> Surface:
    """Keep the connected part with most vertices."""
    count = len(surface.vertices_mm)
    start, end = surface.faces[:, [0, 1]].ravel(), surface.faces[:, [1, 2]].ravel()
    links = sparse.coo_matrix((np.ones(len(start)), (start, end)), shape=(count, count))
    _, part = sparse.csgraph.connected_components(links, directed=False)
    keep = part == np.bincount(part).argmax()
    number = np.cumsum(keep) - 1
    faces = surface.faces[keep[surface.faces].all(axis=1)]
    return Surface(surface.vertices_mm[keep], number[faces])


def _average_neighbours(count: int, faces: np.ndarray) -> sparse.csr_matrix:
    """Return the matrix that replaces each vertex by the mean of its neighbours."""
    start, end = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    links = sparse.coo_matrix((np.ones(len(start)), (start, end)), shape=(count, count)).tocsr()
    links = ((links + links.T) > 0).astype(float)
    return sparse.diags(1 / np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)) @ links


def _project_on_triangles(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the closest point of each triangle (…, 3, 3) to each point (…, 3).

    That is the projection on its plane where it falls inside, else the closest on its three edges.
    """
    a, b, c = (triangles[..., place, :] for place in range(3))
    normal = np.cross(b - a, c - a)
    squared = np.einsum("...i,...i", normal, normal)
    height = np.einsum("...i,...i", points - a, normal) / np.maximum(squared, 1e-30)
    best = points - height[..., None] * normal
    inside = squared > 1e-20
    for start, end in ((a, b), (b, c), (c, a)):
        inside &= np.einsum("...i,...i", np.cross(end - start, best - start), normal) >= 0
    nearest = np.where(inside, 0.0, np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        along = np.einsum("...i,...i", points - start, edge) / np.maximum(np.einsum("...i,...i", edge, edge), 1e-30)
        foot = start + np.clip(along, 0, 1)[..., None] * edge
        gap = np.einsum("...i,...i", points - foot, points - foot)
        closer = gap < nearest
        best = np.where(closer[..., None], foot, best)
        nearest = np.where(closer, gap, nearest)
    return best
