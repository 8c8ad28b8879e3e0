"""Where on an organ a model errs: templates, correspondence, signed errors, group maps and their tests."""

from helpers.spatial.frequency_slices import FrequencySlices, read_frequency_slices
from helpers.spatial.location import describe_location
from helpers.spatial.places import describe_places
from helpers.spatial.results import SpatialMaps, read_errors, read_maps
from helpers.spatial.stage import map_errors
from helpers.spatial.template import Template

__all__ = [
    "FrequencySlices",
    "SpatialMaps",
    "Template",
    "describe_location",
    "describe_places",
    "map_errors",
    "read_errors",
    "read_frequency_slices",
    "read_maps",
]
