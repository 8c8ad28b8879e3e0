"""`medsam2`: one box in the middle slice of a component, propagated both ways (Ma et al., 2025).

MedSAM2 is SAM 2.1 tiny at 512 × 512, trained to follow an organ through a volume as SAM 2 follows
an object through a video (arXiv 2504.03600). It is given the windows of `sam`, and of its prompts
the one box that a person would draw; a component is followed over the slices that `sam` is prompted
in, and of what is found the largest connected part is kept, as its authors do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
import torch

from helpers.models.components import group_boxes, take_slice
from helpers.models.devices import choose_precision, open_device
from helpers.models.protocol import ScanCase, Segmentation, Spec, get_image
from helpers.models.sam import PRECISIONS
from helpers.models.sam2 import place_points
from helpers.models.sam2_network import load_network
from helpers.models.sam_frames import MedSam2Frame
from helpers.models.windows import choose_window, find_levels
from helpers.parameters import Windows
from helpers.prompts import Prompts

SIDE = 512


@dataclass(frozen=True)
class Track:
    """A component to be followed."""

    prompt: Prompts  # the one box, on its middle slice
    first: int  # slice
    last: int


class MedSam2Segmenter:
    """Drives a ``transformers.Sam2VideoModel`` through volumes.

    Where components of an organ overlap they are united; where organs overlap, the pixel goes to
    the one with the higher logit.
    """

    def __init__(self, network: Any, device: str, *, precision: str, windows: Windows, side: int = SIDE) -> None:
        self.network = network.to(device)
        self.device = device
        self.precision = precision
        self.windows = windows
        self.frame = MedSam2Frame(side)

    def segment(self, case: ScanCase) -> Segmentation:
        """Segment the organs of a scan from its image and boxes."""
        image = get_image(case)
        began = time.monotonic()
        draws = [{o: find_tracks(p) for o, p in draw.items()} for draw in (case.prompts, *case.repeats)]
        labels = [self._segment_draw(case, image, tracks) for tracks in draws]
        followed = {z for tracks in draws[0].values() for track in tracks for z in range(track.first, track.last + 1)}
        return Segmentation(
            labels[0],
            len(followed),
            sum(len(tracks) for draw in draws for tracks in draw.values()),
            labels[1:],
            decode_seconds=time.monotonic() - began,
            batch=1,
            drawn={organ: len(tracks) for organ, tracks in draws[0].items()},
        )

    def _segment_draw(self, case: ScanCase, image: np.ndarray, tracks: Mapping[str, list[Track]]) -> np.ndarray:
        labels = np.zeros(case.shape, np.uint8)
        best = np.zeros(case.shape, np.float32)
        for organ in case.organ_ids:
            if not tracks.get(organ):
                continue
            levels = find_levels(image, case.modality, choose_window(organ, case.modality, self.windows), self.windows)
            for track in tracks[organ]:
                seen = (levels.apply(image[z]) for z in range(track.first, track.last + 1))
                scores = self.follow(np.stack(list(seen)), track)
                place = slice(track.first, track.last + 1)
                wins = _keep_largest(scores > 0) & (scores > best[place])
                labels[place][wins] = case.organ_ids[organ]
                best[place][wins] = scores[wins]
        return labels

    def follow(self, grey: np.ndarray, track: Track) -> np.ndarray:
        """Return a component's logits, float32, (slices, y, x), on its slices (uint8, the same)."""
        from transformers import Sam2VideoInferenceSession

        frames = torch.stack([self.frame.prepare(plane) for plane in grey])
        shape = (grey.shape[1], grey.shape[2])
        points, kinds = place_points(track.prompt, self.frame.scale(shape), self.device)
        key = int(track.prompt.slices[0]) - track.first
        scores = np.zeros((len(frames), *shape), np.float32)
        dtype = PRECISIONS[self.precision]
        with (
            torch.inference_mode(),
            torch.autocast(torch.device(self.device).type, dtype, enabled=dtype != torch.float32),
        ):
            for reverse in (False, True):
                session = Sam2VideoInferenceSession(
                    frames,
                    *shape,
                    inference_device=self.device,
                    inference_state_device=self.device,
                    dtype=torch.float32,
                )
                place = session.obj_id_to_idx(1)
                session.add_point_inputs(place, key, {"point_coords": points[None], "point_labels": kinds[None]})
                session.obj_with_new_inputs = [1]
                end = -1 if reverse else len(frames)
                for z in range(key, end, -1 if reverse else 1):
                    low = self.network(inference_session=session, frame_idx=z, reverse=reverse).pred_masks
                    scores[z] = self.frame.enlarge(low, shape)[0].cpu().numpy()
        return scores


def _keep_largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest part of a mask, 26-connected."""
    return cc3d.largest_k(mask, k=1, connectivity=26) > 0 if mask.any() else mask


def find_tracks(prompts: Prompts) -> list[Track]:
    """Return the components that boxes outline, each with the box of its middle slice."""
    tracks = []
    for component in group_boxes(prompts):
        slices = np.unique(prompts.slices[component])
        middle = int(slices[len(slices) // 2])
        tracks.append(Track(take_slice(prompts, component, middle), int(slices[0]), int(slices[-1])))
    return tracks


def load(spec: Spec) -> MedSam2Segmenter:
    """Load MedSAM2 from its checkpoint."""
    device = open_device(spec)
    network = load_network(spec.weights, "tiny", side=SIDE)
    return MedSam2Segmenter(network, device, precision=choose_precision(spec.precision, device), windows=spec.windows)
