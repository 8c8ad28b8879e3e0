"""`nninteractive`: a 3D network asked once per component (Isensee et al., arXiv 2503.08373).

Of the prompts that `sam` gets in every slice it is given those of one: the largest box of a
component, in its slice, or the points of the organ's middle slice, as a person would draw them.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers.errors import SegfairError
from helpers.models.components import group_boxes, take_slice
from helpers.models.devices import open_device
from helpers.models.loading import check_finite, describe_difference
from helpers.models.protocol import ScanCase, Segmentation, Spec, get_image
from helpers.models.torchvision_fix import declare_missing_operators
from helpers.models.trained_checkpoint import build_planned_network, read_trained_checkpoint
from helpers.models.trained_folder import read_folder, read_json
from helpers.prompts import Prompts


class NninteractiveSegmenter:
    """Drives an ``nnInteractiveInferenceSession``, organ by organ.

    The session gives masks without scores: a voxel that two organs claim stays with the one that
    comes first in the study.
    """

    def __init__(self, session: Any, device: str) -> None:
        self.session = session
        self.device = device
        self.precision = "float16" if device.startswith("cuda") else "float32"  # the package's own choice

    def segment(self, case: ScanCase) -> Segmentation:
        """Segment the organs of a scan from its image and prompts."""
        image = get_image(case)
        began = time.monotonic()
        with _silence():
            self.session.set_image(image[None], {})
            self.session.set_target_buffer(np.zeros(case.shape, np.uint8))
            found = [self._segment_draw(case, draw) for draw in (case.prompts, *case.repeats)]
            self.session._reset_session()  # lets go of the image
        labels = [drawn for drawn, _ in found]
        used = sum(count for _, count in found)
        seconds = time.monotonic() - began
        drawn = {organ: len(choose_prompts(prompts)) for organ, prompts in case.prompts.items()}
        return Segmentation(labels[0], case.shape[0], used, labels[1:], decode_seconds=seconds, drawn=drawn)

    def _segment_draw(self, case: ScanCase, draw: Mapping[str, Prompts]) -> tuple[np.ndarray, int]:
        """Return a draw's labels, and how many boxes and points were given."""
        labels = np.zeros(case.shape, np.uint8)
        used = 0
        for organ, organ_id in case.organ_ids.items():
            if organ not in draw:
                continue
            self.session.reset_interactions()
            for prompt in choose_prompts(draw[organ]):
                used += self._ask(prompt)
            labels[(self.session.target_buffer > 0) & (labels == 0)] = organ_id
        return labels, used

    def _ask(self, prompt: Prompts) -> int:
        z = int(prompt.slices[0])
        asked = 0
        if prompt.has_boxes:
            x0, y0, x1, y1 = (round(float(edge)) for edge in prompt.corners[0])
            box = [[z, z + 1], [y0, max(y1, y0 + 1)], [x0, max(x1, x0 + 1)]]
            self.session.add_bbox_interaction(box, include_interaction=True)
            asked += 1
        if prompt.has_points:
            for (x, y), label in zip(prompt.points[0], prompt.labels[0], strict=True):
                if label >= 0:
                    self.session.add_point_interaction((z, round(y), round(x)), include_interaction=bool(label))
                    asked += 1
        return asked


def choose_prompts(prompts: Prompts) -> list[Prompts]:
    """Return one prompt per component, the largest component first: as a person would go about it.

    Without boxes, components are not told apart: the points of the middle slice are one prompt.
    """
    chosen: list[tuple[float, Prompts]] = []
    for component in group_boxes(prompts):
        slices = prompts.slices[component]
        if prompts.has_boxes:
            sides = prompts.corners[component, 2:] - prompts.corners[component, :2]
            largest = int(np.argmax(sides.prod(axis=1)))
            chosen.append((float(sides[largest].prod()), take_slice(prompts, component, int(slices[largest]))))
        else:
            middle = np.unique(slices)
            chosen.append((0.0, take_slice(prompts, component, int(middle[len(middle) // 2]))))
    return [prompt for _, prompt in sorted(chosen, key=lambda pair: -pair[0])]


def load(spec: Spec) -> NninteractiveSegmenter:
    """Load the network of a folder as the package does, but without running code in its files.

    Raises a SegfairError: the folder's files are damaged, unsafe or not of one network.
    """
    device = open_device(spec)
    declare_missing_operators()
    from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

    with _silence():
        session = nnInteractiveInferenceSession(
            device=torch.device(device), torch_n_threads=torch.get_num_threads(), do_autozoom=True, enable_undo=False
        )
        session.initialize_from_loaded_artifacts(_load_artifacts(session, spec.options))
    return NninteractiveSegmenter(session, device)


def _load_artifacts(session: Any, folder: Path) -> dict[str, Any]:
    """Return what ``initialize_from_trained_model_folder`` would have read."""
    from nnInteractive.interaction.point import PointInteraction_stub
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    trained = read_folder(folder)
    checkpoint = read_trained_checkpoint(trained.checkpoint, ("network_weights", "init_args"))
    try:
        capability, radius, thickness, decay, padding = session._load_capability_and_runtime_defaults(str(folder))
        session._apply_capability(capability)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise SegfairError(f"{folder}: nnInteractive cannot use its inference_info.json: {error}") from error
    dataset = read_json(folder / "dataset.json")
    plans = PlansManager(dict(trained.plans))
    configuration = plans.get_configuration(checkpoint["init_args"]["configuration"])
    channels = determine_num_input_channels(plans, configuration, dataset) + session.num_interaction_channels
    network = build_planned_network(configuration, channels, 2)  # object and background
    weights = checkpoint["network_weights"]
    difference = describe_difference(network.state_dict(), weights)
    if difference:
        raise SegfairError(f"{trained.checkpoint}: does not fit plans.json: {difference}: unpack the model again")
    check_finite(weights, trained.checkpoint.name)
    network.load_state_dict(weights)
    return {
        "capability_content": capability,
        "point_interaction": PointInteraction_stub(radius, True),
        "preferred_scribble_thickness": thickness,
        "interaction_decay": decay,
        "pad_mode_data": padding,
        "network": network.to(session.device).eval(),
        "plans_manager": plans,
        "configuration_manager": configuration,
        "dataset_json": dataset,
        "trainer_name": checkpoint.get("trainer_name", ""),
        "label_manager": plans.get_label_manager(dataset),
        "license": "",
    }


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the package's prints out of notebooks."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
