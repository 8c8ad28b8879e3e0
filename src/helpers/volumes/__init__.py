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
    grow_box,
    is_dicom_mask,
    join_boxes,
    read_dicom_mask,
    read_label_map,
    relabel,
)
from helpers.volumes.label_tables import list_lookup_tables
from helpers.volumes.reading import SUFFIXES, read_grid, read_on_grid, read_volume, write_volume
from helpers.volumes.regions import Region, find_body_x_mm, find_middle_x_mm, measure_regions
from helpers.volumes.resampling import RESAMPLING_ADVICE, check_same_scan, resample_nearest
from helpers.volumes.sides import index_to_x_mm, list_x_mm
