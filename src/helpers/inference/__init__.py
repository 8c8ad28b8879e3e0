"""A segmenter × a cohort → masks on disk: resumable, failures kept apart."""

from helpers.inference.agreement import summarise_sensitivity
from helpers.inference.montage import MontagePanel, OrganPlane, load_montage, load_planes
from helpers.inference.stage import hash_checkpoints, list_failures, read_organs, run_inference, summarise_inference
