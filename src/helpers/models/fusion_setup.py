"""What the parameter file says of a fusion: its members, the method and what a tie means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers.models.protocol import Setup
from helpers.parameters import FusionModel
from helpers.study import Study
from helpers.vocabulary.words import list_words

# From so many members on, "more than half" and the members' reliability mean something. Two can
# only agree or tie, and STAPLE believes the one that draws less.
_FEWEST = 3


@dataclass(frozen=True)
class FusionOptions:
    """A fusion's members and method."""

    members: tuple[str, ...]
    folders: Mapping[str, Path]  # of each member's predictions
    method: str  # majority, staple or mean
    tie: str | None  # background or first
    needed: int  # members that must draw an organ


def check(model: FusionModel, study: Study) -> list[str]:
    """Name what is wrong with a fusion's keys."""
    where = f"models.{model.name}"
    problems = []
    others = {one.name: one for one in study.parameters.models if one.name != model.name}
    for name in model.of:
        if name not in others:
            problems.append(f"{where}.of: there is no model {name!r} to fuse; there are {', '.join(others)}")
        elif isinstance(others[name], FusionModel):
            problems.append(f"{where}.of: {name} is a fusion itself: name its members instead")
    if len(set(model.of)) < len(model.of):
        problems.append(f"{where}.of: names a model more than once")
    if len(model.of) < _FEWEST and model.method == "staple":
        problems.append(
            f"{where}.method: staple needs {_FEWEST} members or more, since two cannot tell which of them errs"
        )
    if len(model.of) < _FEWEST and model.method == "majority" and model.tie is None:
        problems.append(
            f"{where}: two members tie wherever they differ: say what that means by `tie: background` or `tie: first` "
            f"(the first of `of` decides), or name {_FEWEST} members or more"
        )
    if model.method != "majority" and model.tie is not None:
        problems.append(f"{where}.tie: {model.method} knows no ties: remove the key")
    return problems


def set_up(model: FusionModel, study: Study) -> Setup:
    """Return what a fusion needs, and its rules in words."""
    needed = 2 if model.method == "mean" or model.tie is not None else _FEWEST
    folders = {name: study.inference_path(name).parent for name in model.of}
    options = FusionOptions(tuple(model.of), folders, model.method, model.tie, needed)
    undecided = "the first decides" if model.tie == "first" else "it is background"
    rules = {
        "majority": f"a voxel belongs to an organ where more than half of the members that draw it say so; at a tie "
        f"{undecided}",
        "staple": "STAPLE, each organ in the box around all members' masks of it; above one half it is the organ",
        "mean": "the members' probabilities are averaged; above one half it is the organ",
    }
    return Setup(
        options,
        depends_on={"of": list(model.of), "method": model.method, "tie": model.tie},
        notes=(f"made of {list_words(model.of)}: {rules[model.method]}",),
    )
