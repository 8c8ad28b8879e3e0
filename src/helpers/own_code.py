"""What the package's own code holds, and what of it results depend on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers import storage

_IMPORT = re.compile(
    r"^\s*(?:from helpers(?:\.([\w.]+))? import (\([^)]*\)|.*)|import helpers\.([\w.]+))", re.MULTILINE
)
# They carry cases and results about; no number of a scan comes from them.
_PLUMBING = {f"{name}.py" for name in ("compute", "errors", "jobs", "kept", "resuming", "schema", "storage", "study")}


@dataclass(frozen=True)
class OwnCode:
    """The helpers' source: what each file holds, and which modules it imports."""

    hashes: dict[str, str]  # SHA-256 by path below the package, of whatever is shipped
    imports: dict[str, list[str]]  # dotted names that each imports, at its head or within functions

    @classmethod
    def read(cls, package: Path = Path(__file__).parent) -> OwnCode:
        """Read the package."""
        files = {
            file.relative_to(package).as_posix(): file
            for file in sorted(package.rglob("*"))
            if file.is_file() and file.suffix != ".pyc"
        }
        imports = {name: list(_list_imports(file)) for name, file in files.items() if file.suffix == ".py"}
        return cls({name: storage.hash_file(file) for name, file in files.items()}, imports)

    def hash_code(self, rooms: Sequence[str], *, numbers: bool = False) -> str:
        """Hash every file of some rooms, and of the modules that they import, directly or not.

        With `numbers`, only what a scan's numbers may come from: neither what carries them about,
        nor what else lies in the package of a module that is imported. A ValueError for a room that
        there is not.
        """
        reached: set[str] = set()
        waiting: list[str] = []
        for room in rooms:
            place = room.replace(".", "/")
            found = [name for name in self.hashes if name.startswith(f"{place}/") or name == f"{place}.py"]
            if not found:
                raise ValueError(f"rooms must be of the package; got {room!r}")
            waiting += found
        while waiting:
            name = waiting.pop()
            if name not in reached and not (numbers and name in _PLUMBING):
                reached.add(name)
                for module in self.imports.get(name, ()):
                    waiting += self._find_files(module, alone=numbers)
        return storage.hash_value({name: self.hashes[name] for name in sorted(reached)})

    def _find_files(self, module: str, *, alone: bool) -> list[str]:
        """Return the files of a module, and unless `alone` of the packages it lies in."""
        parts = module.split(".")
        places = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        found = [f"{place}/__init__.py" for place in (places[-1:] if alone else places)] + [f"{places[-1]}.py"]
        return [name for name in found if name in self.hashes]


def _list_imports(file: Path) -> Iterator[str]:
    """Yield the modules of the package that a module imports, as dotted names below it."""
    for room, names, plain in _IMPORT.findall(file.read_text(encoding="utf-8")):
        yield plain or room
        # `from helpers import volumes` names modules; `from helpers.spatial import tables` may.
        yield from (f"{room}.{name}".strip(".") for name in re.findall(r"\w+", names))
