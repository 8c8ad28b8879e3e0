"""What every part of the parameter file is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Section(BaseModel):
    """A part of the parameter file: unknown keys are refused, values cannot change afterwards."""

    # Infinite bin edges must survive the snapshot that is written to study.yaml.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Organ(Section):
    """Where one organ is found in the masks.

    ``labels`` are its ids in a label map; its names where a model has a list of names; numbers,
    names or codes (``SCT:10200004``) of the parts of DICOM masks. ``files`` are its mask files
    (without suffix) in a folder of binary masks. Several are united. ``side`` keeps
    only the voxels on that side of the body, by physical position.
    """

    id: int | None = Field(default=None, ge=1, le=255)
    labels: list[Annotated[int, Field(ge=1)] | str] = []
    files: list[str] = []
    side: Literal["left", "right"] | None = None

    @property
    def label_ids(self) -> list[int]:
        """The labels that are ids."""
        return [label for label in self.labels if isinstance(label, int)]

    @property
    def label_names(self) -> list[str]:
        """The labels that are names."""
        return [label for label in self.labels if isinstance(label, str)]


def check_places(organs: Mapping[str, Organ]) -> None:
    """Refuse an organ of which nothing says where it is found in masks."""
    for name, organ in organs.items():
        if not organ.labels and not organ.files:
            raise ValueError(
                f"organs.{name}: an organ needs `labels` (ids in a label map) or `files` (mask file names)"
            )


def find_repeated(names: Sequence[str]) -> list[str]:
    """Return the names that a list holds more than once."""
    return [name for name, count in Counter(names).items() if count > 1]
