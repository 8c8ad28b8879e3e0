"""`nnunet`: any trained nnU-Net v2, loaded once and fed arrays; its masks are nnU-Net's own.

The network is built from its plans, so that no trainer has to be found, and its checkpoints are
read as tensors and plain values. Preprocessing, sliding window and resampling are nnU-Net's, in
this process; its logits are resampled class by class, which takes a small part of the memory.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from helpers import volumes
from helpers.errors import SegfairError
from helpers.models.devices import open_device
from helpers.models.loading import describe_difference
from helpers.models.nnunet_folder import (
    CHECKPOINT,
    NnunetOptions,
    TrainedNnunet,
    check_configuration,
    merge_configuration,
    read_trained,
)
from helpers.models.protocol import ScanCase, Segmentation, Spec, get_image
from helpers.models.trained_checkpoint import build_planned_network, read_trained_checkpoint
from helpers.parameters import Organ

# What of a configuration decides the masks beside the weights, so that plans of another training
# are told from the checkpoint's own.
_DECIDING = ("spacing", "patch_size", "normalization_schemes", "use_mask_for_norm")
_DECIDING_PLANS = ("transpose_forward", "image_reader_writer", "foreground_intensity_properties_per_channel")


class Network:
    """A trained nnU-Net on its device."""

    def __init__(self, trained: TrainedNnunet, options: NnunetOptions, device: str) -> None:
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        from helpers.models.nnunet_mirrors import MirrorPredictor

        checkpoints = [
            read_trained_checkpoint(
                trained.path / fold / CHECKPOINT,
                ("network_weights", "init_args", "trainer_name"),
                trust=options.trust,
                advice="use another, or set `trust: true` if you know who made it",
            )
            for fold in options.folds
        ]
        name = _find_configuration(trained, checkpoints)
        self.trained = trained
        self.plans = PlansManager(dict(trained.plans))
        with warnings.catch_warnings():
            # Weights of 2023 have plans whose architecture nnU-Net reconstructs.
            warnings.filterwarnings("ignore", "Detected old nnU-Net plans format", UserWarning)
            self.configuration = self.plans.get_configuration(name)
        with contextlib.redirect_stdout(None):  # it prints that a processor is no graphics card
            self.predictor = MirrorPredictor(
                tile_step_size=options.step,
                use_mirroring=options.mirroring,
                perform_everything_on_device=device.startswith("cuda"),
                device=torch.device(device),
                allow_tqdm=False,
            )
        states = [checkpoint["network_weights"] for checkpoint in checkpoints]
        self.predictor.manual_initialization(
            self._build(states),
            self.plans,
            self.configuration,
            states,
            dict(trained.dataset),
            checkpoints[0]["trainer_name"],
            checkpoints[0].get("inference_allowed_mirroring_axes"),
        )
        self.device = device
        # nnU-Net's own choice: half precision on a graphics card.
        self.precision = "float16" if device.startswith("cuda") else "float32"
        self.heads = self.predictor.label_manager.regions_class_order
        self.has_regions = self.predictor.label_manager.has_regions
        self.remark = ""  # of the scan before: what had to be done otherwise than in training

    def predict(self, image: np.ndarray, spacing_zyx_mm: Sequence[float]) -> np.ndarray:
        """Return the label map of one image, with the network's own ids.

        Raises a SegfairError: not even small tiles fit into the device's memory.

        Parameters
        ----------
        image : ndarray, (z, y, x)
            Intensities in the axis order that the network was trained with.

        Returns
        -------
        ndarray of uint8 or uint16, (z, y, x)
            On the image's grid, equal to that of ``nnUNetPredictor``, voxel by voxel.
        """
        return self._predict(image, spacing_zyx_mm, {})[0]

    def predict_probabilities(
        self, image: np.ndarray, spacing_zyx_mm: Sequence[float], organs: Mapping[str, Organ]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the label map as :meth:`predict`, and 255 times each organ's probability, uint8.

        An organ of several labels has the sum of theirs. Where regions were trained, an organ has
        that of the region with its labels; without such a region it is left out.
        """
        return self._predict(image, spacing_zyx_mm, self._find_channels(organs))

    def _build(self, states: Sequence[Mapping[str, torch.Tensor]]) -> torch.nn.Module:
        """Build the architecture that the plans name, and see that every state fills it."""
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

        configuration, dataset = self.configuration, dict(self.trained.dataset)
        channels = determine_num_input_channels(self.plans, configuration, dataset)
        heads = self.plans.get_label_manager(dataset).num_segmentation_heads
        network = build_planned_network(configuration, channels, heads)
        expected = network.state_dict()
        for state in states:
            difference = describe_difference(expected, state)
            if difference:
                raise SegfairError(
                    f"{self.trained.path}: the checkpoint does not fit plans.json and dataset.json: {difference}: "
                    "put the three files of one training together"
                )
            broken = next((key for key, value in state.items() if not torch.isfinite(value.sum())), None)
            if broken is not None:
                raise SegfairError(f"{self.trained.path}: {broken} holds values that are not finite: train it again")
        return network

    def _predict(
        self, image: np.ndarray, spacing_zyx_mm: Sequence[float], channels: Mapping[str, Sequence[int]]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        properties: dict[str, Any] = {"spacing": [float(value) for value in spacing_zyx_mm]}
        self.remark = ""
        preprocessor = self.configuration.preprocessor_class(verbose=False)
        with _explain_memory(self.predictor.device):
            data, _, properties = preprocessor.run_case_npy(
                np.ascontiguousarray(image[None], np.float32),
                None,
                properties,
                self.plans,
                self.configuration,
                self.predictor.dataset_json,
            )
            logits = self._slide(torch.from_numpy(data))
            labels, found = self._decide(logits, properties, channels)
        return self._uncrop(labels, properties), {
            organ: self._uncrop(value, properties) for organ, value in found.items()
        }

    def _slide(self, data: torch.Tensor) -> torch.Tensor:
        """Return the logits of a preprocessed image, (classes, …), in tiles that fit into memory.

        Where those of the training do not, they are halved along their longest side, this scan
        alone; :attr:`remark` says so, for the masks may differ where tiles meet.
        """
        settings = self.configuration.configuration
        trained = settings["patch_size"]
        try:
            while True:
                try:
                    logits = self.predictor.predict_logits_from_preprocessed_data(data).cpu()
                except (MemoryError, RuntimeError) as error:
                    smaller = _halve(settings["patch_size"], self._strides)
                    if smaller is None or not _is_memory(error):
                        raise
                    settings["patch_size"] = smaller
                    continue
                if settings["patch_size"] != trained:
                    sides = (" × ".join(map(str, tile)) for tile in (settings["patch_size"], trained))
                    self.remark = "memory ran out: in tiles of {} voxels in place of {}".format(*sides)
                return logits
        finally:
            settings["patch_size"] = trained

    @property
    def _strides(self) -> list[int]:
        """What each side of a tile must be a multiple of: the product of the network's strides."""
        strides = self.configuration.network_arch_init_kwargs["strides"]
        return [int(product) for product in np.prod(np.atleast_2d(strides), axis=0)]

    def _decide(
        self, logits: torch.Tensor, properties: Mapping[str, Any], channels: Mapping[str, Sequence[int]]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Resample logits to the image's voxels, a class at a time, and keep the winner of each.

        nnU-Net holds every class at full size (8 GB for 25 classes of 512 × 512 × 300); the classes
        do not meet before the winner is chosen, so that labels are the same.
        """
        wanted = {channel for several in channels.values() for channel in several}
        kept: dict[int, np.ndarray] = {}
        labels = best = total = None
        for channel in range(len(logits)):
            logit = self._resample(logits[channel : channel + 1], properties)
            if channel in wanted:
                kept[channel] = logit
            if labels is None or best is None:
                labels, best = np.zeros(logit.shape, self._label_type), logit
                if self.has_regions:
                    labels[_squash(logit) > 0.5] = self.heads[0]
                total = np.ones(logit.shape, np.float32) if wanted else None
                continue
            if self.has_regions:
                labels[_squash(logit) > 0.5] = self.heads[channel]
                continue
            wins = logit > best  # the first of equals stays, as argmax has it
            if total is not None:
                highest = np.maximum(best, logit).astype(np.float32)
                total = total * np.exp(best - highest) + np.exp(logit - highest)
            labels[wins] = channel
            best[wins] = logit[wins]
        if labels is None or best is None:
            raise SegfairError(f"{self.trained.path}: the network has no classes: train it again")
        probabilities = {}
        for organ, several in channels.items():
            if self.has_regions:
                value = _squash(kept[several[0]])
            else:
                value = sum(np.exp(kept[channel] - best.astype(np.float32)) for channel in several) / total
            probabilities[organ] = np.rint(255 * np.clip(value, 0, 1)).astype(np.uint8)
        return labels, probabilities

    def _resample(self, logits: torch.Tensor, properties: Mapping[str, Any]) -> np.ndarray:
        """Bring one class, (1, …), to the voxels of the cropped image."""
        spacing = [properties["spacing"][axis] for axis in self.plans.transpose_forward]
        shape = properties["shape_after_cropping_and_before_resampling"]
        current = self.configuration.spacing
        if len(current) < len(shape):  # a network of slices leaves the distance between them
            current = [spacing[0], *current]
        resampled = self.configuration.resampling_fn_probabilities(logits, shape, current, spacing)
        return torch.as_tensor(resampled).numpy()[0].copy()  # some plans resample by torch

    def _uncrop(self, values: np.ndarray, properties: Mapping[str, Any]) -> np.ndarray:
        """Put values back to where the image was cropped, in the image's own axis order."""
        whole = np.zeros(properties["shape_before_cropping"], values.dtype)
        whole[tuple(slice(*side) for side in properties["bbox_used_for_cropping"])] = values
        return whole.transpose(self.plans.transpose_backward)

    def _find_channels(self, organs: Mapping[str, Organ]) -> dict[str, Sequence[int]]:
        """Return the channels of the logits whose probabilities make up an organ's."""
        if not self.has_regions:
            return {name: organ.label_ids for name, organ in organs.items()}
        regions = [set(ids) for ids in self.trained.labels.values()]
        places = {name: set(organ.label_ids) for name, organ in organs.items()}
        return {name: [regions.index(ids)] for name, ids in places.items() if ids in regions}

    @property
    def _label_type(self) -> type[np.unsignedinteger]:
        return np.uint8 if len(self.predictor.label_manager.foreground_labels) < 255 else np.uint16


class NnunetSegmenter:
    """Shows a network whole scans, in the axis order of its training."""

    def __init__(self, network: Network, spec: Spec) -> None:
        self.network = network
        self.spec = spec
        self.device = network.device
        self.precision = network.precision

    def segment(self, case: ScanCase) -> Segmentation:
        """Segment a whole scan; a SegfairError where it has no image, or memory is too small."""
        began = time.monotonic()
        image = get_image(case)
        code = "RAS" if self.network.trained.turns_to_ras else None
        seen = turn(image, case, code)
        spacing_zyx_mm = volumes.get_spacing_zyx_mm(seen)
        array = sitk.GetArrayFromImage(seen)
        organs = self.spec.organs if self.spec.want_probabilities else {}
        labels, found = self.network.predict_probabilities(array, spacing_zyx_mm, organs)
        grid = volumes.get_grid(seen)
        labels = turn_back(labels, grid)
        drawn = volumes.relabel(labels, case.grid, self.spec.organs, case.organ_ids, midline_x_mm=case.midline_x_mm)
        probabilities = {
            name: _keep_side(turn_back(value, grid), self.spec.organs[name], case) for name, value in found.items()
        }
        seconds = time.monotonic() - began
        remark = self.network.remark
        return Segmentation(drawn, len(drawn), 0, encode_seconds=seconds, probabilities=probabilities, remark=remark)


def load(spec: Spec) -> NnunetSegmenter:
    """Load the folds that the parameter file names, else all."""
    return NnunetSegmenter(load_network(spec.options, spec), spec)


def load_network(options: NnunetOptions, spec: Spec) -> Network:
    """Load a trained network on the device a spec asks for, with as many threads as it allows.

    Raises a SegfairError: the folder cannot be used
    (:func:`helpers.models.nnunet_folder.read_trained`), a checkpoint asks for more than tensors, or
    the files are not of one training.
    """
    device = open_device(spec)
    return Network(read_trained(options.folder), options, device)


def turn(image: np.ndarray, case: ScanCase, code: str | None) -> sitk.Image:
    """Return an axial image with its axes as `code` has them, else as in the scan's own file."""
    axial = volumes.make_image(image, case.grid)
    if code is not None:
        return sitk.DICOMOrient(axial, code)
    return volumes.from_axial(axial, case.stored or case.grid)


def turn_back(values: np.ndarray, grid: volumes.Grid) -> np.ndarray:
    """Return values on `grid`, (z, y, x), in the study orientation."""
    return sitk.GetArrayFromImage(volumes.to_axial(volumes.make_image(np.ascontiguousarray(values), grid)))


def _keep_side(values: np.ndarray, organ: Organ, case: ScanCase) -> np.ndarray:
    """Set an organ's probability to 0 on the other side of the body."""
    if organ.side is None or case.midline_x_mm is None:
        return values
    left = volumes.list_x_mm(case.grid) > case.midline_x_mm
    return np.where(left if organ.side == "left" else ~left, values, 0).astype(np.uint8)


def _squash(logits: np.ndarray) -> np.ndarray:
    """Return what nnU-Net's regions are thresholded by: the sigmoid in float32."""
    return torch.sigmoid(torch.from_numpy(logits).float()).numpy()


def _find_configuration(trained: TrainedNnunet, checkpoints: Sequence[Mapping[str, Any]]) -> str:
    """Return the configuration that checkpoints were trained in, having compared their plans."""
    arguments = [checkpoint["init_args"] for checkpoint in checkpoints]
    names = sorted({str(one["configuration"]) for one in arguments})
    if len(names) > 1:
        raise SegfairError(f"{trained.path}: its folds are of different networks ({', '.join(names)}): unpack it again")
    check_configuration(trained.plans, names[0])
    for one in arguments:
        _compare_plans(trained, names[0], one.get("plans"), one.get("dataset_json"))
    return names[0]


def _compare_plans(trained: TrainedNnunet, name: str, plans: Any, dataset: Any) -> None:
    """Refuse plans and labels that differ from those a checkpoint was trained with."""
    advice = "put the plans.json and dataset.json of the checkpoint's own training beside it"
    if isinstance(plans, dict) and name in plans.get("configurations", {}):
        ours, theirs = merge_configuration(trained.plans, name), merge_configuration(plans, name)
        differing = [key for key in _DECIDING if key in theirs and ours.get(key) != theirs[key]]
        differing += [key for key in _DECIDING_PLANS if key in plans and trained.plans.get(key) != plans[key]]
        if differing:
            raise SegfairError(
                f"{trained.path}: plans.json is of another training than the checkpoint, of "
                f"{plans.get('dataset_name', 'another dataset')} ({differing[0]} differs): {advice}"
            )
    if isinstance(dataset, dict) and dataset.get("labels", trained.dataset["labels"]) != trained.dataset["labels"]:
        raise SegfairError(
            f"{trained.path}: dataset.json names other labels than the checkpoint was trained with: {advice}"
        )


def _is_memory(error: Exception) -> bool:
    """Return whether memory ran out, on the processor or a card."""
    return isinstance(error, MemoryError) or "memory" in str(error)


def _halve(tile: Sequence[int], strides: Sequence[int]) -> list[int] | None:
    """Return a tile of half the longest side, a multiple of its stride; None for the smallest."""
    longest = max(range(len(tile)), key=lambda axis: tile[axis])
    side = int(tile[longest]) // 2 // strides[longest] * strides[longest]
    if side < 2 * strides[longest]:  # the coarsest level keeps two places to normalise over
        return None
    return [side if axis == longest else int(size) for axis, size in enumerate(tile)]


@contextlib.contextmanager
def _explain_memory(device: torch.device) -> Iterator[None]:
    """Turn a memory that does not suffice into a sentence; anything else passes."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        raise SegfairError(
            f"{device} has too little memory for this scan: use fewer compute.workers, a larger machine, or "
            "compute.device cpu"
        ) from error
