"""The one list of model kinds, without torch, so that the command line reads it at once.

A new family is one module with a ``load(spec) -> Segmenter`` and one line in :data:`KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from helpers import storage
from helpers.dicom import names_scans
from helpers.errors import SegfairError, suggest
from helpers.models import checkpoints
from helpers.models.protocol import IMAGE_FAULTS, Segmenter, Setup, Spec
from helpers.models.ready_masks import list_named_labels
from helpers.parameters import FusionModel, Model
from helpers.study import Study
from helpers.vocabulary.words import list_words

# What each type of prompt offers a model; a model that has never seen points is not given any.
_BOXES = ("box", "box3d")
_NO_CONTRAST = ("image_not_finite", "image_flat")
_ALL_PROMPTS = ("box", "box3d", "points", "box_points")
NNUNET_DEMO = (
    Path(__file__).parent / "weights/nnunet_demo/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_all/checkpoint_final.pth"
)


@dataclass(frozen=True)
class Kind:
    """A kind of model a parameter file can name."""

    name: str
    description: str
    module: str  # the one under helpers.models that has its load; imported when first used
    prompt_types: tuple[str, ...] = _BOXES  # those it takes; empty: none
    needs_image: bool = True  # whether a scan must have one
    refused: tuple[str, ...] = ()  # what else of an image fails a scan: keys of IMAGE_FAULTS
    needs_path: bool = False  # whether the parameter file must name ready-made masks
    # Whether it reads weights that do not ship with the package: the file that the parameters name,
    # else the published one in the checkpoints folder, where the catalogue has one.
    needs_checkpoint: bool = False
    variants: tuple[str, ...] = ()  # architectures within the family, the default first; empty: there is one
    weights: Path | None = None  # those that ship with the package
    gives_probabilities: bool = False  # whether it can hand them to a fusion
    reads_masks: bool = False  # whether its masks are another program's, which may lie on another grid
    # Whether its masks have labels of their own, which `models[].organs` names.
    has_labels: bool = False
    # The module under helpers.models, without torch, that knows its further keys: ``check(model,
    # study) -> list[str]`` names every fault, ``set_up(model, study) -> Setup`` reads them.
    setup: str | None = None
    requires: tuple[str, ...] = ()  # what must be importable, and is not among the package's dependencies
    extra: str | None = None  # the optional dependencies that bring it: pip install 'segfair[nnunet]'

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
            "ready_masks",
            prompt_types=(),
            needs_image=False,
            needs_path=True,
            reads_masks=True,
            has_labels=True,
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
        Kind(
            "nnunet_demo",
            "a small nnU-Net that ships with this package, trained on synthetic torsos alone "
            "(for trying out, not for care)",
            "nnunet",
            prompt_types=(),
            refused=_NO_CONTRAST,
            weights=NNUNET_DEMO,
            gives_probabilities=True,
            has_labels=True,
            setup="nnunet_demo",
            requires=("nnunetv2",),
            extra="nnunet",
        ),
        Kind(
            "nnunet",
            "a trained nnU-Net v2 (Apache-2.0; the weights have their own licence): `folder` with plans.json and folds",
            "nnunet",
            prompt_types=(),
            refused=_NO_CONTRAST,
            gives_probabilities=True,
            has_labels=True,
            setup="nnunet_folder",
            requires=("nnunetv2",),
            extra="nnunet",
        ),
        Kind(
            "totalsegmentator",
            "TotalSegmentator's published networks (Apache-2.0), without its package: variant total, total_fast (CT), "
            "total_mr or total_mr_fast (MR)",
            "totalsegmentator",
            prompt_types=(),
            refused=_NO_CONTRAST,
            variants=("total", "total_fast", "total_mr", "total_mr_fast"),
            has_labels=True,
            setup="totalsegmentator_tasks",
            requires=("nnunetv2",),
            extra="nnunet",
        ),
        Kind(
            "fusion",
            "the masks of other models of the study made into one: method majority, staple or mean",
            "fusion",
            prompt_types=(),
            needs_image=False,
            setup="fusion_setup",
        ),
        Kind(
            "sat",
            "SAT asked by words, variant nano or pro: `checkpoint` and `embeddings` (`segfair checkpoints embed`) are "
            "yours to get; its publishers state no licence for code or weights: ask them before use; experimental: "
            "not compared with the published weights' own masks; a graphics card of 24 GB (nano) or 34 GB (pro)",
            "sat",
            prompt_types=(),
            refused=("image_not_finite",),
            gives_probabilities=True,
            needs_checkpoint=True,
            variants=("nano", "pro"),
            setup="sat_setup",
            requires=("dynamic_network_architectures",),
            extra="sat",
        ),
        Kind(
            "command",
            "any other program: a line that starts it, per scan or once for all",
            "command",
            prompt_types=(),
            reads_masks=True,
            has_labels=True,
            setup="command",
        ),
        Kind(
            "sam2",
            "SAM 2.1 (Apache-2.0) on axial slices, prompted as sam is: variant tiny, small, base_plus or large; "
            "`checkpoint` for a fine-tuned one",
            "sam2",
            prompt_types=_ALL_PROMPTS,
            needs_checkpoint=True,
            variants=("tiny", "small", "base_plus", "large"),
            requires=("transformers",),
            extra="sam2",
        ),
        Kind(
            "medsam2",
            "MedSAM2: the box of a component's middle slice, propagated both ways; `checkpoint`: MedSAM2_latest.pt of "
            "https://huggingface.co/wanglab/MedSAM2 (code Apache-2.0; read the weights' licence there)",
            "medsam2",
            refused=_NO_CONTRAST,
            needs_checkpoint=True,
            requires=("transformers",),
            extra="sam2",
        ),
        Kind(
            "nninteractive",
            "nnInteractive: one box or point per component, in one slice; `folder` of its weights (published under "
            "CC BY-NC-SA 4.0: no commercial use); a graphics card of 10 GB",
            "nninteractive",
            prompt_types=_ALL_PROMPTS,
            refused=_NO_CONTRAST,
            setup="nninteractive_setup",
            requires=("nnInteractive", "nnunetv2"),
            extra="nninteractive",
        ),
        Kind(
            "voxtell",
            "VoxTell asked by words, without prompts: `folder` of its weights and `embeddings`, the file of the words' "
            "vectors, both of https://huggingface.co/mrokuss/VoxTell (code Apache-2.0; read the weights' licence "
            "there); a graphics card",
            "voxtell",
            prompt_types=(),
            refused=_NO_CONTRAST,
            setup="voxtell_setup",
            requires=("voxtell", "nnunetv2", "transformers"),
            extra="voxtell",
        ),
    )
}


def find_kind(model: Model) -> Kind:
    """Return the kind a model names; a SegfairError where there is none of that name."""
    if model.kind not in KINDS:
        likely = suggest(model.kind, KINDS)
        raise SegfairError(f"models.{model.name}.kind must be one of {', '.join(KINDS)}; got {model.kind!r}{likely}")
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
    if model.organs is not None and not kind.has_labels:
        problems.append(f"{where}.organs: {kind.name} has no labels of its own: remove the key")
    elif kind.setup is None:
        problems += list_named_labels(model)
    if model.resample is not None and not kind.reads_masks:
        problems.append(f"{where}.resample: {kind.name} draws on the reference's own grid: remove the key")
    try:
        study.list_training_scans(model)
    except SegfairError as error:
        problems.append(str(error))
    problems += _check_requirements(kind, where) + _check_probabilities(model, study)
    if kind.setup is not None:
        problems += _import_setup(kind).check(model, study)
    if kind.weights is not None and not kind.weights.is_file():
        problems.append(
            f"{where}: the weights that ship with this package are missing at {kind.weights}: install it again"
        )
    return problems


def describe_model(model: Model, study: Study) -> list[str]:
    """Say in sentences what a model that can run was taken to mean, and which organs it lacks."""
    kind = find_kind(model)
    notes = [] if kind.setup is None else list(_import_setup(kind).set_up(model, study).notes)
    lacking = sorted(set(study.organ_ids) - set(model.organs or study.organ_ids))
    if lacking:
        notes.append(f"{list_words(lacking)}: not among its organs, so not drawn by it and not scored")
    return [f"models.{model.name}: {note}" for note in notes]


def list_templates(study: Study) -> dict[str, str]:
    """Return where ready-made masks lie, by the model's name; places with a fault are left out."""
    named = [model for model in study.parameters.models if model.kind in KINDS and KINDS[model.kind].needs_path]
    usable = [model for model in named if model.path is not None and not _check_template(model, study)]
    return {model.name: study.template_masks(str(model.path)) for model in usable}


def list_refused(study: Study) -> dict[str, dict[str, str]]:
    """Return what fails a scan of its image, by model: kinds of fault and their sentences."""
    kinds = {model.name: KINDS[model.kind] for model in study.parameters.models if model.kind in KINDS}
    return {
        name: {fault: IMAGE_FAULTS[fault] for fault in ("image_missing", *kind.refused)}
        for name, kind in kinds.items()
        if kind.needs_image
    }


def try_model(model: Model, study: Study) -> list[str]:
    """Load a model, as a worker will; return why that fails.

    It is one that :func:`check_model` has no fault of. Where other machines are to do the work,
    this one's devices are not asked for.
    """
    where = f"models.{model.name}: "
    try:
        spec = make_spec(model, study)
        load_segmenter(spec if not study.parameters.compute.is_remote else replace(spec, device="auto"))
    except SegfairError as error:
        return [where + str(error).removeprefix(where)]
    except Exception as error:  # whatever libraries raise of files that are none of theirs
        told = " ".join(str(error).split()) or "no message"
        return [f"{where}it cannot be loaded ({type(error).__name__}: {told}): get its files again from their source"]
    return []


def make_spec(model: Model, study: Study) -> Spec:
    """Return what a worker process needs to load a model; a SegfairError says why it cannot run."""
    problems = check_model(model, study)
    if problems:
        raise SegfairError("\n".join(problems))
    compute = study.parameters.compute
    kind = find_kind(model)
    setup = Setup() if kind.setup is None else _import_setup(kind).set_up(model, study)
    return Spec(
        name=model.name,
        kind=model.kind,
        organs=setup.organs or model.organs or study.parameters.cohort.organs,
        checkpoint=find_checkpoint(model, study),
        template=None if model.path is None else study.template_masks(str(model.path)),
        variant=_choose_variant(model, kind),
        device=compute.device,
        precision=compute.precision,
        batch=compute.batch,
        windows=study.parameters.windows,
        mask_series=model.mask_series,
        halve=study.parameters.allows_halving(model),
        resample=kind.reads_masks and study.parameters.allows_resampling(model),
        together=setup.together,
        options=setup.options,
        depends_on=setup.depends_on,
        want_probabilities=any(
            isinstance(one, FusionModel) and one.method == "mean" and model.name in one.of
            for one in study.parameters.models
        ),
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
    published = _name_published(model, kind)
    return None if published is None else checkpoints.locate(published)


def hash_checkpoint(path: Path) -> str:
    """Return a weights file's SHA-256; asked again for an unchanged file, it is not read again."""
    status = path.stat()
    return _hash_once(path, status.st_size, status.st_mtime_ns)


@cache
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    return storage.hash_file(path)


def _check_probabilities(model: Model, study: Study) -> list[str]:
    """Name the members of which a fusion cannot average probabilities."""
    if not isinstance(model, FusionModel) or model.method != "mean":
        return []
    without = [
        one.name
        for one in study.parameters.models
        if one.name in model.of and not (one.kind in KINDS and KINDS[one.kind].gives_probabilities)
    ]
    fault = (
        f"models.{model.name}.method: {list_words(without)} give masks without probabilities: use majority or staple"
    )
    return [fault] if without else []


def _import_setup(kind: Kind) -> Any:
    return import_module(f"helpers.models.{kind.setup}")


def _check_requirements(kind: Kind, where: str) -> list[str]:
    """Name what must be installed for a kind and is not, and how."""
    missing = [name for name in kind.requires if find_spec(name) is None]
    if not missing:
        return []
    return [f"{where}: {kind.name} needs {list_words(missing)}: run pip install 'segfair[{kind.extra}]'"]


def _check_template(model: Model, study: Study) -> list[str]:
    where = f"models.{model.name}.path"
    try:
        template = study.template_masks(str(model.path))
    except SegfairError as error:
        return [f"{where}: {error}"]
    if not names_scans(template) and not (study.parameters.cohort.source == "dicom" and Path(template).is_dir()):
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
    if path is None:
        return [f"{where} is missing: {kind.name} needs the file of weights, which only its publishers hand out"]
    if path.is_file() and path.stat().st_size:
        return []
    if model.checkpoint is None and published is not None:
        return [f"models.{model.name}: its weights are not here: {checkpoints.explain_fetching(published)}"]
    fault = f"{path} is empty" if path.is_file() else f"there is no file {path}"
    if published is None:
        return [f"{where}: {fault}: put the weights exactly there or correct the path"]
    return [f"{where}: {fault}: put your weights exactly there, or remove the key to use the published {published}"]


def _choose_variant(model: Model, kind: Kind) -> str | None:
    """Return the architecture: as named, else a fine-tuned file's own (None), else the default."""
    if model.variant is not None or model.checkpoint is not None:
        return model.variant
    return kind.variants[0] if kind.variants else None


def _name_published(model: Model, kind: Kind) -> str | None:
    """Return the catalogue's name of the weights a model uses when it names none; None without."""
    variant = model.variant if model.variant in kind.variants else next(iter(kind.variants), None)
    name = kind.name if variant is None else f"{kind.name}_{variant}"
    return name if name in checkpoints.CHECKPOINTS else None
