"""`sat`: SAT asked by words, over windows of a whole scan, without a prompt from the reference.

The published inference: half-overlapping windows, sigmoids averaged under a Gaussian, more than
0.5. What differs is stated: averages are kept in float32, and each word's probability is brought
back to the scan's own voxels before organs that overlap are settled, by the higher probability.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import product

import numpy as np
import torch
from torch.nn import functional

from helpers.errors import SegfairError
from helpers.models.devices import open_device
from helpers.models.protocol import ScanCase, Segmentation, Spec, get_image
from helpers.models.sat_network import SatNetwork, build_sat_from_checkpoint
from helpers.models.sat_scan import enter_scan
from helpers.models.sat_setup import MODALITIES, SatOptions, explain_unknown, read_embeddings

WINDOW = (288, 288, 96)  # voxels (x, y, z)
_SIGMA_SHARE = 0.125  # of a window's side
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class SatSegmenter:
    """Drives a :class:`SatNetwork` over scans.

    The network is taken over: moved to the device. `vectors` are float32 per word and modality
    (``ct``, ``mri``), `texts` what is asked for each organ; `precision` is that of the network's
    products (autocast). A `window` is voxels (x, y, z), multiples of 32; `batch` of them are worked
    on at a time, halved when memory runs out.
    """

    def __init__(
        self,
        network: SatNetwork,
        device: str,
        *,
        vectors: Mapping[tuple[str, str], np.ndarray],
        texts: Mapping[str, str],
        precision: str = "float32",
        window: tuple[int, int, int],
        batch: int | None = None,
    ) -> None:
        self.device = device
        self.precision = precision
        self.network = network.to(device).eval()
        self.vectors = vectors
        self.texts = texts
        self.batch = batch or 1
        self.window = window

    def segment(self, case: ScanCase) -> Segmentation:
        """Segment the organs of a scan from its image; those SAT does not know are not drawn.

        Raises a SegfairError: the scan has no image or one that cannot be used, or not even one
        window fits into the device's memory.
        """
        image = get_image(case, refused=("image_not_finite",))
        modality = MODALITIES[case.modality]
        reasons = {organ: explain_unknown(self.texts[organ], modality) for organ in case.organ_ids}
        asked = [organ for organ, reason in reasons.items() if not reason]
        labels = np.zeros(case.shape, np.uint8)
        probabilities: dict[str, np.ndarray] = {}
        began = time.monotonic()
        if asked:
            scan = enter_scan(image, case.grid.spacing, case.modality)
            queries = np.stack([self.vectors[self.texts[organ], modality] for organ in asked])
            found = self._predict(scan.volume, torch.from_numpy(queries))
            best = np.full(case.shape, 0.5, np.float32)
            # As protocol.merge_scores: of equal ones the organ that comes first keeps the voxel.
            for organ, coarse in zip(asked, found, strict=True):
                probability = scan.bring_back(coarse)
                wins = probability > best
                labels[wins] = case.organ_ids[organ]
                best[wins] = probability[wins]
                probabilities[organ] = np.rint(255 * probability).astype(np.uint8)
        return Segmentation(
            labels,
            case.shape[0],
            0,
            encode_seconds=time.monotonic() - began,
            batch=self.batch,
            not_drawn={organ: reason for organ, reason in reasons.items() if reason},
            probabilities=probabilities,
        )

    def _predict(self, volume: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """Return probabilities, float32, (words, x, y, z), of a volume (x, y, z) on the processor.

        Sums stay on the processor, so that the device holds a batch of windows and no more.
        """
        lacking = [max(0, side - count) for side, count in zip(self.window, volume.shape, strict=True)]
        padded = functional.pad(volume, [0, lacking[2], 0, lacking[1], 0, lacking[0]])
        places = [
            tuple(slice(start, start + side) for start, side in zip(starts, self.window, strict=True))
            for starts in product(*map(list_starts, padded.shape, self.window))
        ]
        weight = weigh_window(self.window)
        total = torch.zeros(len(queries), *padded.shape)
        weights = torch.zeros(padded.shape)
        done = 0
        while done < len(places):
            group = places[done : done + self.batch]
            try:
                found = self._run(torch.stack([padded[place] for place in group]), queries)
            except torch.OutOfMemoryError as error:
                if len(group) == 1:
                    raise SegfairError(
                        f"{self.device} has too little memory for one window of SAT: use variant nano, "
                        "compute.precision float16, or compute.device cpu"
                    ) from error
                self.batch = len(group) // 2
                torch.cuda.empty_cache()
                continue
            for place, one in zip(group, found, strict=True):
                total[(slice(None), *place)] += weight * one
                weights[place] += weight
            done += len(group)
        x, y, z = volume.shape
        return (total / weights)[:, :x, :y, :z]

    def _run(self, windows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """Return probabilities (n, words, x, y, z) of windows (n, x, y, z), on the processor."""
        kind = self.device.split(":")[0]
        precision = _PRECISIONS[self.precision]
        with torch.inference_mode(), torch.autocast(kind, precision, enabled=precision != torch.float32):
            inputs = windows.to(self.device)[:, None].expand(-1, 3, -1, -1, -1)
            found = self.network(inputs, queries.to(self.device)).float().sigmoid().cpu()
        if not found.isfinite().all():
            raise SegfairError("SAT gave numbers that are not finite: set compute.precision to float32")
        return found


def list_starts(length: int, side: int) -> list[int]:
    """Return where windows of `side` begin on an axis: half a side apart, the last shifted back."""
    return [*range(0, length - side, side // 2), length - side]


def weigh_window(sides: tuple[int, ...]) -> torch.Tensor:
    """Return a window's weights, float32, (x, y, z): a Gaussian of an eighth of each side.

    It is 1 at the voxel half a side from the first, as in nnU-Net's importance map.
    """
    weight = torch.ones(sides)
    for axis, side in enumerate(sides):
        along = torch.exp(-0.5 * ((torch.arange(side) - side // 2) / (_SIGMA_SHARE * side)) ** 2)
        weight *= along.view([-1 if one == axis else 1 for one in range(len(sides))])
    return weight


def load(spec: Spec) -> SatSegmenter:
    """Load a SAT from its checkpoint, and the vectors of the words it is asked by."""
    options: SatOptions = spec.options
    device = open_device(spec)
    precision = spec.precision
    if precision == "auto":
        precision = "float16" if device.startswith("cuda") else "float32"  # as published, where it is faster
    return SatSegmenter(
        build_sat_from_checkpoint(spec.weights, spec.variant),
        device,
        vectors=read_embeddings(options.embeddings).vectors,
        texts=options.texts,
        precision=precision,
        window=WINDOW,
        batch=spec.batch,
    )
