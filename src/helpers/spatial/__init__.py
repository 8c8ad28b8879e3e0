"""Where on an organ models err: templates, correspondence, errors, group maps, their tests."""

from helpers.spatial.frequency_slices import FrequencySlices, read_frequency_slices
from helpers.spatial.location import describe_location
from helpers.spatial.places import describe_places
from helpers.spatial.stage import map_errors
from helpers.spatial.template import Template

__all__ = [
    "FrequencySlices",
    "Template",
    "describe_location",
    "describe_places",
    "map_errors",
    "read_frequency_slices",
]
