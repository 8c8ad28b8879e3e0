"""`nnunet_demo`: a small nnU-Net that ships with the package, trained on drawn torsos alone.

It is an ordinary folder of nnU-Net v2 and goes the way of `kind: nnunet`
(:mod:`helpers.models.nnunet_folder`); ``weights/nnunet_demo.md`` is its card.
"""

from __future__ import annotations

from helpers.models import nnunet_folder
from helpers.models.protocol import Setup
from helpers.models.registry import NNUNET_DEMO
from helpers.parameters import Model, NnunetModel
from helpers.study import Study

FOLDER = NNUNET_DEMO.parents[1]


def check(model: Model, study: Study) -> list[str]:
    """Name what keeps the shipped folder from being used."""
    # That the weights are missing is said for every kind that ships some.
    return nnunet_folder.check(_name_folder(model), study) if NNUNET_DEMO.is_file() else []


def set_up(model: Model, study: Study) -> Setup:
    """Read the shipped folder, and where the study's organs are among its labels."""
    return nnunet_folder.set_up(_name_folder(model), study)


def _name_folder(model: Model) -> NnunetModel:
    # A window sees a whole torso: to overlap them would take longer and change little.
    return NnunetModel(**model.model_dump(), folder=str(FOLDER), step=1.0, mirroring=False)
