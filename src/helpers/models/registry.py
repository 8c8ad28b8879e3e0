"""The one list of model kinds, without torch, so that the command line reads it at once.

A new family is one module with a ``load(spec) -> Segmenter`` and one line in :data:`KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from helpers import storage
from helpers.errors import SegfairError
from helpers.models import checkpoints
from helpers.models.protocol import Segmenter, Spec
from helpers.parameters import Model
from helpers.study import Study

# What each type of prompt offers a model; a model that has never seen points is not given any.
_BOXES = ("box", "box3d")
_ALL_PROMPTS = ("box", "box3d", "points", "box_points")


@dataclass(frozen=True)
class Kind:
    """A kind of model a parameter file can name."""

    name: str
    description: str
    module: str  # the one under helpers.models that has its load; imported when first used
    prompt_types: tuple[str, ...] = _BOXES  # those it takes; empty: none
    needs_image: bool = True  # whether a scan must have one
    needs_path: bool = False  # whether the parameter file must name ready-made masks
    # Whether it reads weights that do not ship with the package: the file that the parameters name,
    # else the published one in the checkpoints folder.
    needs_checkpoint: bool = False
    variants: tuple[str, ...] = ()  # architectures within the family, the default first; empty: there is one
    weights: Path | None = None  # those that ship with the package

    @property
    def needs_prompts(self) -> bool:
        """Whether it is given prompts."""
        return bool(self.prompt_types)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "prompt_only",
            "the ellipse inscribed in each box: what the prompt alone gives away (no image needed)",
            "prompt_only",
            needs_image=False,
        ),
        Kind(
            "precomputed",
            "ready-made masks from files: path with {scan} or {subject}",
            "precomputed",
            prompt_types=(),
            needs_image=False,
            needs_path=True,
        ),
        Kind(
            "sam",
            "Segment Anything on axial slices: variant vit_b, vit_l or vit_h; `checkpoint` for a fine-tuned one",
            "sam",
            prompt_types=_ALL_PROMPTS,
            needs_checkpoint=True,
            variants=("vit_b", "vit_l", "vit_h"),
        ),
        Kind(
            "medsam",
            "MedSAM on axial slices, with its own preprocessing; `checkpoint` for a fine-tuned one",
            "medsam",
            needs_checkpoint=True,
        ),
        Kind(
            "sam_demo",
            "a small SAM that ships with this package, trained on synthetic slices alone "
            "(for trying out, not for care)",
            "sam_demo",
            weights=Path(__file__).parent / "weights" / "sam_demo.safetensors",
        ),
    )
}


def find_kind(model: Model) -> Kind:
    """Return the kind a model names; a SegfairError where there is none of that name."""
    if model.kind not in KINDS:
        raise SegfairError(f"models.{model.name}.kind must be one of {', '.join(KINDS)}; got {model.kind!r}")
    return KINDS[model.kind]


def check_model(model: Model, study: Study) -> list[str]:
    """List everything wrong with a model of a study, in sentences; empty when it can run."""
    where = f"models.{model.name}"
    try:
        kind = find_kind(model)
    except SegfairError as error:
        return [str(error)]
    problems = []
    if kind.needs_path and model.path is None:
        problems.append(
            f"{where}.path is missing: {kind.name} needs the masks' place, such as "
            f'"{model.name}/{{scan}}.nii.gz", relative to the participants table'
        )
    elif kind.needs_path:
        problems += _check_template(model, study)
    elif model.path is not None:
        problems.append(f"{where}.path: {kind.name} reads no masks: remove the key or use kind: precomputed")
    if model.variant is not None and model.variant not in kind.variants:
        allowed = f"must be one of {', '.join(kind.variants)}" if kind.variants else f"{kind.name} has no variants"
        problems.append(f"{where}.variant: {allowed}; got {model.variant!r}")
    if kind.needs_checkpoint:
        problems += _check_checkpoint(model, study)
    elif model.checkpoint is not None:
        problems.append(f"{where}.checkpoint: {kind.name} takes none: remove the key")
    if kind.needs_prompts and model.prompt.type not in kind.prompt_types:
        problems.append(
            f"{where}.prompt.type: {kind.name} takes {', '.join(kind.prompt_types)}; got {model.prompt.type!r}"
        )
    if kind.weights is not None and not kind.weights.is_file():
        problems.append(
            f"{where}: the weights that ship with this package are missing at {kind.weights}: install it again"
        )
    return problems


def list_templates(study: Study) -> dict[str, str]:
    """Return where ready-made masks lie, by the model's name; places with a fault are left out."""
    named = [model for model in study.parameters.models if model.kind in KINDS and KINDS[model.kind].needs_path]
    usable = [model for model in named if model.path is not None and not _check_template(model, study)]
    return {model.name: study.template_masks(str(model.path)) for model in usable}


def make_spec(model: Model, study: Study) -> Spec:
    """Return what a worker process needs to load a model; a SegfairError says why it cannot run."""
    problems = check_model(model, study)
    if problems:
        raise SegfairError("\n".join(problems))
    compute = study.parameters.compute
    return Spec(
        name=model.name,
        kind=model.kind,
        organs=study.parameters.cohort.organs,
        checkpoint=find_checkpoint(model, study),
        template=None if model.path is None else study.template_masks(str(model.path)),
        variant=_choose_variant(model, find_kind(model)),
        device=compute.device,
        precision=compute.precision,
        batch=compute.batch,
        windows=study.parameters.windows,
    )


def load_segmenter(spec: Spec) -> Segmenter:
    """Load a model; a SegfairError where its files cannot be used."""
    return import_module(f"helpers.models.{KINDS[spec.kind].module}").load(spec)


def find_checkpoint(model: Model, study: Study) -> Path | None:
    """Return a model's weights file (shipped, named or published), present or not; None without."""
    kind = find_kind(model)
    if kind.weights is not None or not kind.needs_checkpoint:
        return kind.weights
    if model.checkpoint is not None:
        return study.resolve(model.checkpoint)
    return checkpoints.locate(_name_published(model, kind))


def hash_checkpoint(path: Path) -> str:
    """Return a weights file's SHA-256; asked again for an unchanged file, it is not read again."""
    status = path.stat()
    return _hash_once(path, status.st_size, status.st_mtime_ns)


@cache
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    return storage.hash_file(path)


def _check_template(model: Model, study: Study) -> list[str]:
    where = f"models.{model.name}.path"
    try:
        template = study.template_masks(str(model.path))
    except SegfairError as error:
        return [f"{where}: {error}"]
    if template.format(scan="a", subject="a") == template.format(scan="b", subject="b"):
        return [f"{where}: must hold {{scan}} or {{subject}}, else every scan gets the same mask; got {model.path!r}"]
    return []


def _check_checkpoint(model: Model, study: Study) -> list[str]:
    where = f"models.{model.name}.checkpoint"
    kind = find_kind(model)
    published = _name_published(model, kind)
    try:
        path = find_checkpoint(model, study)
    except SegfairError as error:
        return [f"{where}: {error}"]
    if path is None or (path.is_file() and path.stat().st_size):
        return []
    if model.checkpoint is None:
        return [f"models.{model.name}: its weights are not here: {checkpoints.explain_fetching(published)}"]
    fault = f"{path} is empty" if path.is_file() else f"there is no file {path}"
    return [f"{where}: {fault}: put your weights exactly there, or remove the key to use the published {published}"]


def _choose_variant(model: Model, kind: Kind) -> str | None:
    """Return the architecture: as named, else a fine-tuned file's own (None), else the default."""
    if model.variant is not None or model.checkpoint is not None:
        return model.variant
    return kind.variants[0] if kind.variants else None


def _name_published(model: Model, kind: Kind) -> str:
    """Return the catalogue's name of the weights a model uses when it names none."""
    variant = model.variant if model.variant in kind.variants else next(iter(kind.variants), None)
    return kind.name if variant is None else f"{kind.name}_{variant}"
