"""`sam`: Segment Anything over volumes by slices, SamPredictor's masks several times sooner.

Per axial slice with prompts and per grey window there is one pass of the image encoder, shared by
all organs, components and draws of prompts; prompts of several slices are decoded together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from helpers.errors import SegfairError
from helpers.models.devices import choose_precision, open_device
from helpers.models.loading import build_sam_from_checkpoint
from helpers.models.protocol import ScanCase, Segmentation, Spec, get_image
from helpers.models.sam_decoder import decode, embed_prompts
from helpers.models.sam_encoder import FastImageEncoder
from helpers.models.sam_frames import SamFrame, SliceFrame
from helpers.models.windows import choose_window, find_levels
from helpers.parameters import Windows
from helpers.prompts import Prompts, join_prompts
from helpers.volumes import Levels

# Prompts decoded in one call: bounds the memory of the enlarged masks (4 MB per prompt at 1024²).
PROMPTS_PER_CALL = 64
# Places embedded at a time on the processor: one image of the published models, several of a small.
_PLACES_ON_CPU = 4096
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class _EncoderPass:
    """One slice seen in one window: a pass of the encoder, and what is asked of it."""

    z: int
    window: str
    asked: list[tuple[int, int, Prompts]] = field(default_factory=list)  # draw, organ id, prompts of this slice


class SamSegmenter:
    """Drives a `segment_anything.modeling.Sam` over volumes.

    Where components of an organ overlap they are united; where organs overlap, the pixel goes to
    the one with the higher mask score.

    The network is taken over: moved to the device, its encoder's weights cast to the precision,
    which is that of the encoder's products; everything else is float32. `batch` images are encoded
    at a time, by default as many as half of free memory holds; halved when memory runs out. `frame`
    says how slices enter and answers return, by default SAM's own way.
    """

    def __init__(
        self,
        sam: Any,
        device: str,
        *,
        precision: str = "float32",
        batch: int | None = None,
        frame: SliceFrame | None = None,
        windows: Windows | None = None,
    ) -> None:
        self.device = device
        self.precision = precision
        self.windows = windows or Windows()
        self.sam = sam.to(device).eval()
        self.frame = frame or SamFrame(sam)
        with torch.inference_mode():
            self.encoder = self._make_encoder(PRECISIONS[precision])
        self.batch = batch or self._choose_batch()

    def segment(self, case: ScanCase) -> Segmentation:
        """Segment the organs of a scan from its image and prompts.

        Raises a SegfairError: the scan has no image, or not even one slice fits into the device's
        memory.
        """
        image = get_image(case, refused=())  # what is no number is shown as the darkest value
        draws = [case.prompts, *case.repeats]
        labels = [np.zeros(case.shape, np.uint8) for _ in draws]
        views = _plan_views(case, draws, self.windows)
        windows = {view.window for view in views}
        levels = {window: find_levels(image, case.modality, window, self.windows) for window in windows}
        encode_seconds = decode_seconds = 0.0
        for group, prepared in self._prepare_ahead(image, views, levels):
            began = time.monotonic()
            embeddings = self._encode(prepared)
            self._wait()
            encoded = time.monotonic()
            self._decode_group(group, embeddings, case, labels)
            encode_seconds += encoded - began
            decode_seconds += time.monotonic() - encoded
        return Segmentation(
            labels[0],
            len({int(z) for prompts in case.prompts.values() for z in prompts.slices}),
            sum(len(prompts) for draw in draws for prompts in draw.values()),
            labels[1:],
            encode_seconds,
            decode_seconds,
            self.batch,
        )

    def predict_low(
        self, embeddings: torch.Tensor, owners: Sequence[int], prompts: Prompts, shape: tuple[int, int]
    ) -> torch.Tensor:
        """Return low-resolution logits, float32, (n, 1, a, a).

        Of embeddings as :func:`decode` takes them, the embedding each prompt belongs to (`owners`),
        and the shape (y, x) of the slices.
        """
        with torch.inference_mode():
            sparse = embed_prompts(self.sam, prompts, self.frame.scale(shape), self.device)
            places = torch.as_tensor(owners, dtype=torch.long, device=self.device)
            # The package's advice: the best of several masks where points alone are ambiguous.
            return decode(self.sam, embeddings, places, sparse, multimask=not prompts.has_boxes)

    def predict_scores(
        self, embeddings: torch.Tensor, owners: Sequence[int], prompts: Prompts, shape: tuple[int, int]
    ) -> torch.Tensor:
        """Return mask scores on the slices' pixels, float32, (n, y, x): inside where above 0."""
        with torch.inference_mode():
            return self.frame.enlarge(self.predict_low(embeddings, owners, prompts, shape), shape)

    def _make_encoder(self, dtype: torch.dtype) -> Any:
        """Return what embeds a batch of inputs, knows its places and estimates its memory."""
        return FastImageEncoder(self.sam.image_encoder, dtype)

    def _prepare_ahead(
        self, image: np.ndarray, views: list[_EncoderPass], levels: Mapping[str, Levels]
    ) -> Iterator[tuple[list[_EncoderPass], torch.Tensor]]:
        """Yield groups of passes with their inputs; the next is prepared while one is worked on."""
        groups = _group_views(views, self.batch)

        def prepare(group: list[_EncoderPass]) -> torch.Tensor:
            stacked = torch.stack([self.frame.prepare(levels[view.window].apply(image[view.z])) for view in group])
            return stacked.pin_memory() if self.device.startswith("cuda") else stacked

        if not groups:
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(prepare, groups[0])
            for place, group in enumerate(groups):
                prepared = ahead.result()
                if place + 1 < len(groups):
                    ahead = pool.submit(prepare, groups[place + 1])
                yield group, prepared

    def _encode(self, prepared: torch.Tensor) -> torch.Tensor:
        """Embed inputs, in halves where the device's memory does not hold them all."""
        found: list[torch.Tensor] = []
        start = 0
        with torch.inference_mode():
            while start < len(prepared):
                part = prepared[start : start + self.batch]
                try:
                    found.append(self.encoder(part.to(self.device, non_blocking=True)))
                except torch.OutOfMemoryError as error:
                    if len(part) == 1:
                        raise SegfairError(
                            f"{self.device} has too little memory for one slice of this model: use a smaller variant, "
                            "compute.precision bfloat16, or compute.device cpu"
                        ) from error
                    self.batch = len(part) // 2
                    torch.cuda.empty_cache()
                    continue
                start += len(part)
        return torch.cat(found)

    def _decode_group(
        self, group: list[_EncoderPass], embeddings: torch.Tensor, case: ScanCase, labels: list[np.ndarray]
    ) -> None:
        """Decode what is asked of a group of passes (whole slices) and write their labels."""
        shape = (case.shape[1], case.shape[2])
        keys, owners, parts = [], [], []
        for owner, view in enumerate(group):
            for draw, organ_id, prompts in view.asked:
                keys += [(draw, view.z, organ_id)] * len(prompts)
                owners += [owner] * len(prompts)
                parts.append(prompts)
        scores: dict[tuple[int, int, int], torch.Tensor] = {}
        together = join_prompts(parts)
        for start in range(0, len(keys), PROMPTS_PER_CALL):
            chosen = slice(start, start + PROMPTS_PER_CALL)
            found = self.predict_scores(embeddings, owners[chosen], together.take(chosen), shape)
            for key, score in zip(keys[chosen], found, strict=True):
                scores[key] = torch.maximum(scores[key], score) if key in scores else score
        for draw, merged in enumerate(labels):
            for z in {view.z for view in group}:
                # In the study's order, so that equal scores are settled alike whatever the windows.
                organs = [i for i in case.organ_ids.values() if (draw, z, i) in scores]
                merged[z] = _merge(organs, [scores[draw, z, i] for i in organs], shape)

    def _choose_batch(self) -> int:
        if not self.device.startswith("cuda"):
            return max(1, _PLACES_ON_CPU // self.encoder.places**2)
        free, _ = torch.cuda.mem_get_info(self.device)
        return int(np.clip(0.5 * free // self.encoder.estimate_bytes(), 1, 32))

    def _wait(self) -> None:
        """Let the clock see what the device has done."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


def make_segmenter(sam: Any, spec: Spec, *, frame: SliceFrame | None = None) -> SamSegmenter:
    """Put a loaded SAM on the device a spec asks for, with as many threads as it allows."""
    device = open_device(spec)
    precision = choose_precision(spec.precision, device)
    return SamSegmenter(sam, device, precision=precision, batch=spec.batch, frame=frame, windows=spec.windows)


def load(spec: Spec) -> SamSegmenter:
    """Load a published SAM, or one fine-tuned from it, from its checkpoint."""
    return make_segmenter(build_sam_from_checkpoint(spec.weights, spec.variant), spec)


def _plan_views(case: ScanCase, draws: Sequence[Mapping[str, Prompts]], windows: Windows) -> list[_EncoderPass]:
    """List the passes of the encoder, slice by slice, with every prompt that reads each."""
    views: dict[tuple[int, str], _EncoderPass] = {}
    for draw, by_organ in enumerate(draws):
        for organ, prompts in by_organ.items():
            window = choose_window(organ, case.modality, windows)
            for z in np.unique(prompts.slices):
                view = views.setdefault((int(z), window), _EncoderPass(int(z), window))
                view.asked.append((draw, case.organ_ids[organ], prompts.take(prompts.slices == z)))
    return [views[key] for key in sorted(views)]


def _group_views(views: list[_EncoderPass], size: int) -> list[list[_EncoderPass]]:
    """Group passes by about `size`, never parting those of one slice: they are merged together."""
    groups: list[list[_EncoderPass]] = []
    for view in views:
        if groups and (groups[-1][-1].z == view.z or len(groups[-1]) < size):
            groups[-1].append(view)
        else:
            groups.append([view])
    return groups


def _merge(organ_ids: Sequence[int], scores: Sequence[torch.Tensor], shape: tuple[int, int]) -> np.ndarray:
    """As :func:`helpers.models.protocol.merge_scores`, on the scores' own device."""
    if not organ_ids:
        return np.zeros(shape, np.uint8)
    labels = torch.zeros(shape, dtype=torch.uint8, device=scores[0].device)
    best = torch.zeros(shape, device=scores[0].device)
    for organ_id, score in zip(organ_ids, scores, strict=True):
        wins = score > best
        labels[wins] = organ_id
        best = torch.maximum(best, score)
    return labels.cpu().numpy()
