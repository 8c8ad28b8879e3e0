"""`sam`: the segment-anything package on axial slices of volumes, one box per organ component and slice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.errors import SegfairError
from helpers.models.protocol import ScanCase, Segmentation, Spec, merge_scores
from helpers.models.torchvision_fix import import_segment_anything
from helpers.models.windows import apply_window, choose_window

if TYPE_CHECKING:
    import torch

# Boxes decoded in one call: bounds the memory of the enlarged masks (about 4 MB per box at 1024²).
BOXES_PER_CALL = 32
_WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


class SamSegmenter:
    """Drives a `segment_anything.modeling.Sam` over a volume through SamPredictor.

    Per axial slice with prompts and per window: one pass of the image encoder (`set_image`), then all
    boxes of that slice and window in one decoder call (`multimask_output=False`), which gives the masks
    of calling `predict` box by box. Components of an organ are united; where organs overlap, the pixel
    goes to the one with the higher mask logit.
    """

    precision = "float32"

    def __init__(self, sam: Any, device: str) -> None:
        package = import_segment_anything()
        self.device = device
        self.predictor = package.SamPredictor(sam.to(device).eval())

    def segment(self, case: ScanCase) -> Segmentation:
        """Segment the organs of a scan from its image and boxes.

        Raises
        ------
        SegfairError
            The scan has no image.
        """
        if case.image is None:
            raise SegfairError(
                "this model needs an image and the scan has none: add an `image` column or leave the model out"
            )
        _, height, width = case.shape
        labels = np.zeros(case.shape, np.uint8)
        windows: dict[str, list[str]] = {}
        for organ, boxes in case.prompts.items():
            if len(boxes):
                windows.setdefault(choose_window(organ, case.modality), []).append(organ)
        images = {name: apply_window(case.image, case.modality, name) for name in windows}
        used = sorted({int(z) for boxes in case.prompts.values() for z in boxes.slices})
        for z in used:
            scores: dict[int, np.ndarray] = {}
            for window, organs in windows.items():
                owners, corners = _collect_boxes(case, organs, z)
                if not owners:
                    continue
                logits = self.predict_boxes(images[window][z], corners)
                for organ in dict.fromkeys(owners):
                    mine = [index for index, owner in enumerate(owners) if owner == organ]
                    scores[case.organ_ids[organ]] = logits[mine].max(axis=0)
            # In the study's order, so that equal logits are settled alike whatever the windows.
            ordered = {organ_id: scores[organ_id] for organ_id in case.organ_ids.values() if organ_id in scores}
            labels[z] = merge_scores(ordered, (height, width))
        return Segmentation(labels, len(used), sum(len(boxes) for boxes in case.prompts.values()))

    def predict_boxes(self, grey: np.ndarray, corners: np.ndarray) -> np.ndarray:
        """Return the mask logits of several boxes in one slice.

        Parameters
        ----------
        grey : ndarray of uint8, (y, x)
            The windowed slice; repeated to three channels.
        corners : ndarray of float, (n, 4)
            x0, y0, x1, y1 in pixels.

        Returns
        -------
        ndarray of float32, (n, y, x)
            A pixel is inside where its logit is above the model's threshold (0).
        """
        import torch

        predictor = self.predictor
        predictor.set_image(np.repeat(grey[:, :, None], 3, axis=2))
        # As SamPredictor.predict does it: scaled in float64, then given as float32.
        scaled = predictor.transform.apply_boxes(np.asarray(corners, np.float64), grey.shape)
        found = []
        for start in range(0, len(scaled), BOXES_PER_CALL):
            boxes = torch.as_tensor(scaled[start : start + BOXES_PER_CALL], dtype=torch.float, device=self.device)
            logits, _, _ = predictor.predict_torch(None, None, boxes=boxes, multimask_output=False, return_logits=True)
            found.append(logits[:, 0].float().cpu().numpy())
        predictor.reset_image()
        return np.concatenate(found) - np.float32(predictor.model.mask_threshold)


def choose_device(wanted: str) -> str:
    """Return the device to use: ``auto`` is the first GPU where torch sees one, else the processor.

    Raises
    ------
    SegfairError
        The wanted device is not there.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = wanted.partition(":")
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present[kind]:
        raise SegfairError(f"compute.device {wanted}: torch sees no such device here: use auto or cpu")
    return wanted


def load_sam(checkpoint: Path, variant: str) -> torch.nn.Module:
    """Build a published SAM and load its weights (tensors only, every key and shape as expected).

    Raises
    ------
    SegfairError
        The file is no checkpoint, or one of another architecture; the message says which it looks like.
    """
    package = import_segment_anything()
    import pickle

    import torch

    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise SegfairError(
            f"{checkpoint.name}: cannot be read as a checkpoint of tensors, it may be damaged or of another format: download it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SegfairError(f"{checkpoint.name}: must hold a state dict of tensors, as segment-anything's own files do")
    sam = package.sam_model_registry[variant]()
    try:
        sam.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise SegfairError(
            f"{checkpoint.name}: does not fit {variant}: it looks like {describe_architecture(state)}: correct `variant` or the file"
        ) from error
    return sam


def describe_architecture(state: dict[str, torch.Tensor]) -> str:
    """Say which architecture a state dict looks like, by the width of its patch embedding."""
    kernel = state.get("image_encoder.patch_embed.proj.weight")
    if kernel is None or kernel.ndim != 4:
        return "no SAM"
    width = int(kernel.shape[0])
    return _WIDTHS.get(width, f"a SAM of encoder width {width}")


def make_segmenter(sam: torch.nn.Module, spec: Spec) -> SamSegmenter:
    """Put a loaded SAM on the device a spec asks for, with as many threads as it allows."""
    import torch

    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    return SamSegmenter(sam, choose_device(spec.device))


def load(spec: Spec) -> SamSegmenter:
    """Load a published SAM from its checkpoint."""
    if spec.checkpoint is None or spec.variant is None:
        raise SegfairError(f"models.{spec.name}: sam needs a checkpoint and a variant")
    return make_segmenter(load_sam(spec.checkpoint, spec.variant), spec)


def _collect_boxes(case: ScanCase, organs: list[str], z: int) -> tuple[list[str], np.ndarray]:
    """Return the boxes of one slice and the organ of each."""
    owners: list[str] = []
    corners = [np.zeros((0, 4))]
    for organ in organs:
        boxes = case.prompts[organ]
        found = boxes.corners[boxes.slices == z]
        owners += [organ] * len(found)
        corners.append(found)
    return owners, np.concatenate(corners)
