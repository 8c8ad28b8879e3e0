"""What a parameter file may say: one YAML file per study, validated once."""

from helpers.parameters.models import (
    CommandModel,
    FusionModel,
    Model,
    NninteractiveModel,
    NnunetModel,
    Prompt,
    SatModel,
    TextModel,
    TotalSegmentatorModel,
)
from helpers.parameters.sections import Organ
from helpers.parameters.study import (
    BIDS,
    RESERVED_COLUMNS,
    RESERVED_ORGAN,
    SCORES,
    WHO_AGE_BINS,
    WHO_BMI_BINS,
    WHO_BMI_LABELS,
    Attribute,
    Cohort,
    Compute,
    Fairness,
    Parameters,
    Phantoms,
    Planted,
    PlantedEffect,
    ReadyScores,
    RelativeMargin,
    Windows,
    parse_override,
    read_parameters,
    read_raw,
)
