"""Images and masks: grids and orientation, reading and writing, label maps, sides, grey levels.

Arrays are in NumPy's order (z, y, x); SimpleITK images in its own (x, y, z). An image brought to
the *study orientation* (:func:`to_axial`) has its axes closest to the body's: z towards the head
(superior), y towards the back (posterior), x towards the person's left, so that an axial slice is
``array[z]`` whatever the storage order of the file.
"""

from helpers.volumes.grey_levels import Levels, find_grey_faults, find_levels
from helpers.volumes.grid import (
    Grid,
    check_grid,
    from_axial,
    get_grid,
    get_spacing_zyx_mm,
    make_image,
    orient_grid,
    to_axial,
)
from helpers.volumes.label_maps import (
    LabelMap,
    find_boxes,
    find_mask_files,
    is_dicom_mask,
    join_boxes,
    read_dicom_mask,
    read_label_map,
    relabel,
)
from helpers.volumes.label_tables import list_lookup_tables
from helpers.volumes.reading import SUFFIXES, is_series, read_grid, read_on_grid, read_volume, write_volume
from helpers.volumes.regions import Region, find_body_x_mm, find_middle_x_mm, measure_regions
from helpers.volumes.resampling import RESAMPLING_ADVICE, check_same_scan, resample_nearest
from helpers.volumes.sides import find_midline, index_to_x_mm, list_x_mm

__all__ = [
    "RESAMPLING_ADVICE",
    "SUFFIXES",
    "Grid",
    "LabelMap",
    "Levels",
    "Region",
    "check_grid",
    "check_same_scan",
    "find_body_x_mm",
    "find_boxes",
    "find_grey_faults",
    "find_levels",
    "find_mask_files",
    "find_middle_x_mm",
    "find_midline",
    "from_axial",
    "get_grid",
    "get_spacing_zyx_mm",
    "index_to_x_mm",
    "is_dicom_mask",
    "is_series",
    "join_boxes",
    "list_lookup_tables",
    "list_x_mm",
    "make_image",
    "measure_regions",
    "orient_grid",
    "read_dicom_mask",
    "read_grid",
    "read_label_map",
    "read_on_grid",
    "read_volume",
    "relabel",
    "resample_nearest",
    "to_axial",
    "write_volume",
]
