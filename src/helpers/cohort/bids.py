"""BIDS: participants, sessions and raw images, and the masks that derivatives hold of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from helpers.cohort.table_files import read_table_file
from helpers.errors import SegfairError
from helpers.study import Study
from helpers.volumes.label_tables import split_name

DERIVATIVES, RAW = "derivatives", "rawdata"
SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}
IMAGES = (".nii.gz", ".nii")
# Entities that a derivative adds to those of the file it was made from.
ADDED = ("space", "res", "den", "label", "desc", "seg", "atlas", "hemi")


@dataclass(frozen=True)
class _File:
    path: Path

    @cached_property
    def entities(self) -> dict[str, str]:
        return split_name(self.path.name)[0]

    @property
    def suffix(self) -> str:
        return split_name(self.path.name)[1]

    @cached_property
    def scan(self) -> str:
        """What tells the scan: the entities of the file that a derivative was made from."""
        return "_".join(f"{name}-{value}" for name, value in self.entities.items() if name not in ADDED)

    @property
    def modality(self) -> str | None:
        """CT by folder or suffix, MR for anatomical images; else it is not known."""
        if "ct" in (self.path.parent.name, self.suffix.lower()):
            return "CT"
        return "MR" if self.path.parent.name == "anat" else None


def read_bids(study: Study) -> tuple[pd.DataFrame, Path]:
    """Read a BIDS data set, or one of its derivatives, by ``cohort.path``.

    References are the label maps ``_dseg.nii.gz`` under derivatives/; where there is none, folders
    of masks ``_label-…_mask.nii.gz``. The image of a reference is the raw one with the same
    entities. ``cohort.entities`` chooses where there are several: of a reference by its entities
    (desc, label, space, …), of an image by its suffix.

    A row per reference: subject (``sub-01``), scan (``sub-01_ses-02``), session, modality (of
    the image; CT by suffix or folder ct, MR in anat), image, reference, and the columns of
    participants.tsv and of sessions.tsv, which counts where both know something. Sex is in
    words.

    Raises a SegfairError: there is no mask; two masks or two images are of one scan; there is no
    participants.tsv (and no ``cohort.people``), or it lacks its key or names somebody twice.
    """
    cohort = study.parameters.cohort
    folder = study.resolve(str(cohort.path))
    raw, derived = _find_parts(folder)
    chosen = dict(cohort.entities)
    suffix = chosen.pop("suffix", None)
    references = _list_references(derived, chosen)
    if not references:
        raise SegfairError(
            f"{folder}: holds no masks: files such as derivatives/manual/sub-01/anat/sub-01_dseg.nii.gz are expected"
            + (f" with {', '.join(f'{name}-{value}' for name, value in chosen.items())}" if chosen else "")
        )
    images = _group(file for file in _list_files(raw, "sub-*/**") if suffix in (None, file.suffix))
    table = pd.DataFrame([_describe(scan, file, images.get(scan, [])) for scan, file in references.items()])
    if (raw / "participants.tsv").exists():
        people = _read_people(raw / "participants.tsv", "participant_id", "sub")
        table = table.merge(people.rename(columns={"participant_id": "subject"}), on="subject", how="left")
    elif cohort.people is None:
        raise SegfairError(f"{raw}: holds no participants.tsv: add it, or name a table of people under cohort.people")
    return _lay_sessions(table, raw), folder


def _find_parts(folder: Path) -> tuple[Path, Path]:
    """Return the folder of raw data and that of derivatives; they may lie side by side."""
    if folder.parent.name == DERIVATIVES:
        above, derived = folder.parents[1], folder
    else:
        above, derived = folder, folder / DERIVATIVES
    return (above / RAW if (above / RAW).is_dir() else above), derived


def _list_references(derived: Path, chosen: dict[str, str]) -> dict[str, Path]:
    """Return each scan's label map, or folder of masks."""
    files = [file for file in _list_files(derived, "**") if chosen.items() <= file.entities.items()]
    maps = _group(file for file in files if file.suffix == "dseg")
    for scan, several in maps.items():
        if len(several) > 1:
            names = ", ".join(file.path.name for file in several)
            raise SegfairError(
                f"{scan} has {len(several)} label maps ({names}): choose by cohort.entities, such as "
                "{desc: manual}, or let cohort.path be one derivative"
            )
    if maps:
        return {scan: several[0].path for scan, several in maps.items()}
    masks = _group(file for file in files if file.suffix == "mask" and "label" in file.entities)
    return {scan: several[0].path.parent for scan, several in masks.items()}


def _list_files(folder: Path, below: str) -> list[_File]:
    """Return the images named after a person in the folders that the pattern `below` stands for."""
    return [_File(file) for file in sorted(file for end in IMAGES for file in folder.glob(f"{below}/sub-*{end}"))]


def _group(files: Iterable[_File]) -> dict[str, list[_File]]:
    """Return files by the scan that they are of."""
    found: dict[str, list[_File]] = {}
    for file in files:
        found.setdefault(file.scan, []).append(file)
    return found


def _describe(scan: str, reference: Path, images: list[_File]) -> dict[str, str | None]:
    of_it = _File(reference if reference.name.endswith(IMAGES) else next(iter(sorted(reference.glob("sub-*")))))
    beside = [image for image in images if image.path.parent.name == of_it.path.parent.name] or images
    if len(beside) > 1:
        raise SegfairError(
            f"{scan} has {len(beside)} images ({', '.join(image.path.name for image in beside)}): choose by "
            f"cohort.entities, such as {{suffix: {beside[0].suffix}}}"
        )
    image = beside[0] if beside else None
    session = of_it.entities.get("ses")
    return {
        "subject": f"sub-{of_it.entities['sub']}",
        "scan": scan,
        "session": None if session is None else f"ses-{session}",
        "modality": (image or of_it).modality,
        "image": None if image is None else str(image.path),
        "reference": str(reference),
    }


def _read_people(path: Path, key: str, prefix: str) -> pd.DataFrame:
    """Return a table of participants or sessions with its key as in file names, sex in words."""
    people = read_table_file(path, what=f"table {path.name}")
    if key not in people:
        raise SegfairError(f"{path}: has no column {key}: BIDS' own table is expected")
    people = people.mask(people == "n/a")  # BIDS' word for what is not known
    people[key] = f"{prefix}-" + people[key].str.removeprefix(f"{prefix}-")
    for twice in people.loc[people[key].duplicated(), key]:
        raise SegfairError(f"{path}: {key} names {twice} twice: remove one of the rows")
    if "sex" in people:
        people["sex"] = people["sex"].str.lower().map(SEXES).fillna(people["sex"])
    return people.drop(columns=[name for name in ("scan", "modality", "image", "reference") if name in people])


def _lay_sessions(table: pd.DataFrame, raw: Path) -> pd.DataFrame:
    """Lay what a person's sessions.tsv tells of a session over what is told of the person."""
    for subject in table["subject"].unique():
        path = raw / subject / f"{subject}_sessions.tsv"
        if not path.exists():
            continue
        sessions = _read_people(path, "session_id", "ses").set_index("session_id")
        rows = table.index[(table["subject"] == subject) & table["session"].isin(sessions.index)]
        for column in sessions:
            told = table.loc[rows, "session"].map(sessions[column])
            if column not in table:
                table[column] = pd.Series(None, index=table.index, dtype="str")
            table.loc[rows, column] = told.fillna(table.loc[rows, column])
    return table
