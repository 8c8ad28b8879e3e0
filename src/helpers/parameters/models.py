"""What a parameter file may say of a model: the keys of every kind, and those of some."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from helpers.parameters.sections import Name, Organ, Section, check_places


class Prompt(Section):
    """The prompts a promptable model is given, simulated from the reference mask.

    ``jitter`` moves each side of a box by up to this fraction of the box's size, uniformly;
    ``jitter_mm``, where given, by up to this many mm instead. ``draws`` repeats the whole set with
    other random numbers: the first is what is evaluated, the others tell how much the masks depend
    on how the prompt was drawn. ``every`` above 1 draws boxes on each so-many-th slice of a
    component (and on its last) and takes those between by straight lines: less work for a person.
    """

    type: Literal["box", "box3d", "points", "box_points"] = "box"
    per: Literal["component", "organ"] = "component"
    every: int = Field(default=1, ge=1)
    jitter: float = Field(default=0.05, ge=0, le=0.5)
    jitter_mm: Annotated[float, Field(ge=0)] | None = None
    min_area_mm2: float = Field(default=30.0, ge=0)
    positive: int = Field(default=1, ge=0, le=20)
    negative: int = Field(default=0, ge=0, le=20)
    placement: Literal["center", "random"] = "center"
    draws: int = Field(default=1, ge=1, le=20)

    @model_validator(mode="after")
    def _has_points(self) -> Prompt:
        if self.type in ("points", "box_points") and self.positive + self.negative == 0:
            raise ValueError(f"type {self.type!r} needs `positive` or `negative` points")
        if self.type == "points" and self.positive == 0:
            raise ValueError("type 'points' needs at least one `positive` point")
        if self.every > 1 and self.type != "box":
            raise ValueError(f"every: only boxes can be taken between slices: use type 'box'; got {self.type!r}")
        return self


class Card(Section):
    """What a model's card says that an audit cannot know; whatever is empty is not recorded."""

    version: str = ""
    intended_use: str = ""
    training_data: str = ""
    licence: str = ""
    contact: str = ""
    citation: str = ""


class Model(Section):
    """One segmenter of the study: the keys of every kind.

    ``organs`` says where organs are found in this model's own masks, for the kinds that have labels
    of their own; organs that it leaves out are not drawn by it. ``annotator: true`` says that the
    ready-made masks of this one were drawn by a person: with two or more such, their agreement with
    each other is measured, per group too, so that a model's gap can be read against the humans'.
    ``resample: nearest`` brings masks that lie on another grid of the scan to the reference's.
    ``mask_series`` and ``fractions`` are of its DICOM masks, as in :class:`Cohort`.
    ``planted: true`` says that they carry the errors of ``cohort.phantoms.planted``: what is found
    in them is told beside what was planted. ``prompted`` says of masks made elsewhere whether their
    model was told where the organ lies. ``trained_on`` names public data sets that it was trained
    on, beside those known of its kind; ``trained_on_scans`` lists scans (or is a file with one per
    line) that it was trained on, which are then left out of its scores. ``card`` says for its model
    card what no audit can know.
    """

    # The keys that name a file or folder of what the model is made of.
    _places: ClassVar[tuple[str, ...]] = ("checkpoint",)

    name: Name
    kind: str
    path: str | None = None
    checkpoint: str | None = None
    variant: str | None = None
    organs: Annotated[dict[Name, Organ], Field(min_length=1)] | None = None
    resample: Literal["nearest"] | None = None
    mask_series: str | None = None
    fractions: Literal["half"] | None = None
    annotator: bool = False
    planted: bool = False
    prompted: bool | None = None
    trained_on: list[str] | None = None
    trained_on_scans: list[str] | str | None = None
    prompt: Prompt = Prompt()
    card: Card = Card()

    @model_validator(mode="after")
    def _has_ready_masks(self) -> Model:
        check_places(self.organs or {})
        if self.annotator and self.kind != "precomputed":
            raise ValueError(
                f"annotator: true needs kind precomputed (masks that a person drew); got kind {self.kind!r}"
            )
        if self.planted and self.kind != "precomputed":
            raise ValueError(
                f"planted: true needs kind precomputed (masks with planted errors); got kind {self.kind!r}"
            )
        return self

    @property
    def files(self) -> list[str]:
        """The files and folders that its masks depend on, ready-made masks apart."""
        named = (getattr(self, key) for key in self._places)
        return [place for place in named if place is not None]


class NnunetModel(Model):
    """A trained nnU-Net v2: the folder that holds plans.json, dataset.json and the folds.

    ``folds`` are averaged (all that are there by default); ``step`` is the sliding window's, as a
    part of its size; ``mirroring`` averages over the flips the training allowed, eight times the
    work. ``trust: true`` lets a checkpoint run code of its own when it is read.
    """

    _places = ("folder",)

    folder: str
    folds: Annotated[list[Annotated[int, Field(ge=0)] | Literal["all"]], Field(min_length=1)] | None = None
    step: float = Field(default=0.5, gt=0, le=1)
    mirroring: bool = True
    trust: bool = False


class TotalSegmentatorModel(Model):
    """TotalSegmentator's published weights: the folder that holds Dataset291_… and its siblings.

    By default it is where ``segfair checkpoints fetch`` puts them.
    """

    _places = ("folder",)

    folder: str | None = None


class TextModel(Model):
    """A model asked by words: ``texts`` are an organ's, where its name is not what to ask for.

    ``folder`` holds its weights; ``embeddings`` is the file of the words' vectors.
    """

    _places = ("folder", "embeddings")

    folder: str
    embeddings: str
    texts: dict[Name, str] = {}


class SatModel(Model):
    """SAT: ``checkpoint`` is its weights, ``embeddings`` the file of the words' vectors.

    ``texts`` are what is asked for an organ, where that is not its name.
    """

    _places = ("checkpoint", "embeddings")

    embeddings: str
    texts: dict[Name, Annotated[str, Field(min_length=1)]] = {}


class NninteractiveModel(Model):
    """nnInteractive: the folder of its weights, with plans.json and fold_0."""

    _places = ("folder",)

    folder: str


class CommandModel(Model):
    """Any other program, started per scan or once for all of them (``batch``).

    ``command`` holds words, never a shell line, with ``{image}`` and ``{output}`` (files) to be
    filled in, or ``{images}`` and ``{outputs}`` (folders) with ``batch: true``. ``image_name`` is
    what an image is called, and ``orientation`` the order of its axes (to the person's left, back
    and head, or right, front and head). ``timeout_minutes`` limits one start: by default 60
    minutes, of a batch 10 minutes a scan if that is more. ``environment`` adds to the little that a
    program is given of segfair's. ``depends_on`` names files and folders (weights, scripts) and
    ``version_command`` a program whose answer tells one version from another: where they change,
    masks are made anew.
    """

    command: str
    batch: bool = False
    image_name: str = "{scan}.nii.gz"
    orientation: Literal["LPS", "RAS"] = "LPS"
    timeout_minutes: Annotated[float, Field(gt=0)] | None = None
    environment: dict[str, str] = {}
    depends_on: list[str] = []
    version_command: str | None = None

    @property
    def files(self) -> list[str]:
        """What tells one version from another."""
        return self.depends_on

    @property
    def commands(self) -> list[str]:
        """All that a study with this model starts."""
        return [command for command in (self.command, self.version_command) if command is not None]


class FusionModel(Model):
    """The masks of other models of the study, made into one."""

    of: list[Name] = Field(min_length=2)
    method: Literal["majority", "staple", "mean"] = "majority"
    tie: Literal["background", "first"] | None = None


SECTIONS: dict[str, type[Model]] = {
    "nnunet": NnunetModel,
    "totalsegmentator": TotalSegmentatorModel,
    "sat": SatModel,
    "voxtell": TextModel,
    "nninteractive": NninteractiveModel,
    "command": CommandModel,
    "fusion": FusionModel,
}
OTHER = "any other kind"


def _choose_section(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) and kind in SECTIONS else OTHER


# A kind with keys of its own has its section; pydantic finds it by the kind.
AnyModel = Annotated[
    Annotated[NnunetModel, Tag("nnunet")]
    | Annotated[TotalSegmentatorModel, Tag("totalsegmentator")]
    | Annotated[SatModel, Tag("sat")]
    | Annotated[TextModel, Tag("voxtell")]
    | Annotated[NninteractiveModel, Tag("nninteractive")]
    | Annotated[CommandModel, Tag("command")]
    | Annotated[FusionModel, Tag("fusion")]
    | Annotated[Model, Tag(OTHER)],
    Discriminator(_choose_section),
]
