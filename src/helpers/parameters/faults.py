"""What is wrong with a parameter file, in words: every fault at once, and where it comes from."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from helpers.errors import find_likely, quote, suggest
from helpers.parameters.models import OTHER, SECTIONS, Model
from helpers.parameters.sections import NAME_PATTERN, Section

_NAME = "up to 64 letters (A to Z), digits, - and _, beginning with a letter or a digit"
_SHAPES = {  # by key: what its pattern asks for
    "scheduler": "an address such as tcp://10.0.0.5:8786",
    "device": "auto, cpu, cuda, cuda:1 or mps",
}
_KINDS = {  # in place of pydantic's words
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "list": "a list",
    "dictionary": "keys and values",
}
_MOST, _MOST_UNKNOWN = 100, 20  # faults that are told; unknown keys beyond which the file is another's


def describe_faults(
    root: type[Section], raw: dict[str, Any], without: dict[str, Any], path: str, overrides: Sequence[str]
) -> list[str]:
    """Return a line per key that is wrong.

    `without` is what the file holds before `overrides`, whose keys these are, were laid over it:
    what is wrong with them and not without them is theirs.
    """
    own = {_identify(fault) for fault in find_faults(root, without)} if overrides else set()
    by_origin: dict[str, list[Any]] = {}
    for fault in find_faults(root, raw):
        origin = path if not overrides or _identify(fault) in own else _blame(fault, overrides, raw)
        by_origin.setdefault(origin, []).append(fault)
    lines = [line for origin, faults in by_origin.items() for line in _describe_all(root, origin, faults)]
    for key in overrides:  # said once
        lines = [line.replace(f"-o {key}: {key}: ", f"-o {key}: ", 1) for line in lines]
    return lines


def find_faults(root: type[Section], raw: dict[str, Any]) -> list[Any]:
    """Return all faults of pydantic's, those too that an unknown key keeps it from looking for.

    Rules that hold between keys are looked at only where each key is known: an unknown one counts
    as the known one that it looks like, else it is left out.
    """
    faults = _validate(root, raw)
    unknown = [fault for fault in faults if fault["type"] == "extra_forbidden"]
    if not unknown or len(unknown) > _MOST_UNKNOWN:
        return faults
    corrected = copy.deepcopy(raw)
    if not sum(_correct(root, corrected, fault["loc"]) for fault in unknown):
        return faults
    known = {_identify(fault) for fault in faults}
    later = [fault for fault in find_faults(root, corrected) if _identify(fault) not in known]
    # A key that is there under a wrong name is not missing.
    still_missing = {_identify(fault) for fault in _validate(root, corrected) if fault["type"] == "missing"}
    faults = [fault for fault in faults if fault["type"] != "missing" or _identify(fault) in still_missing]
    return faults + later


def _validate(root: type[Section], raw: dict[str, Any]) -> list[Any]:
    try:
        root.model_validate(raw)
    except ValidationError as error:
        return list(error.errors())[:_MOST]
    return []


def _identify(fault: Any) -> tuple[Any, ...]:
    return (*_plain_location(fault["loc"]), fault["type"], fault["msg"])


def _correct(root: type[Section], raw: Any, location: tuple[Any, ...]) -> bool:
    """Rename an unknown key to the one that it looks like, or remove it; False if not found."""
    *parents, key = _plain_location(location)
    try:
        for part in parents:
            raw = raw[part]
        value = raw.pop(key)
        likely = find_likely(key, _allowed_keys(root, location))
        if likely is not None and likely not in raw:
            raw[likely] = value
    except (KeyError, IndexError, TypeError, AttributeError):
        return False
    return True


def _blame(fault: Any, overrides: Sequence[str], raw: dict[str, Any]) -> str:
    """Return the overrides that a fault comes from: those of its key, else all."""
    place = [str(part) for part in _plain_location(fault["loc"])]
    keys = {key: list(_locate(key, raw)) for key in overrides}
    near = [key for key, parts in keys.items() if all(a == b for a, b in zip(parts, place, strict=False))]
    return " ".join(f"-o {key}" for key in near or overrides)


def _locate(key: str, raw: Any) -> Iterator[str]:
    """Yield the parts of an override's key, entries of a list by their place."""
    for part in key.split("."):
        names = [one.get("name") if isinstance(one, dict) else None for one in raw] if isinstance(raw, list) else []
        here = str(names.index(part)) if part in names else part
        yield here
        raw = raw.get(part) if isinstance(raw, dict) else raw[int(here)] if names and here.isdigit() else None


def _describe_all(root: type[Section], origin: str, faults: Sequence[Any]) -> list[str]:
    """Return a line per key that is wrong; the branches of a union are joined with "or"."""
    by_place: dict[tuple[Any, ...], list[Any]] = {}
    for fault in faults:
        by_place.setdefault(tuple(_plain_location(fault["loc"])), []).append(fault)
    lines = []
    for together in by_place.values():
        first = _describe(root, origin, together[0])
        others = [_plain_words(fault["msg"]) for fault in together[1:]]
        lines.append(first if not others else first.replace("; got ", f", or {', or '.join(others)}; got ", 1))
    return lines


def _plain_location(location: tuple[Any, ...]) -> list[Any]:
    """Drop what pydantic adds to a location to name the branch of a union it tried."""
    branch = re.compile(r"[\[\]()]|^(constrained-)?(int|float|str)$|^list$|^literal")
    plain = [part for part in location if not (isinstance(part, str) and branch.search(part))]
    return [part for place, part in enumerate(plain) if not _is_kind(plain, place)]


def _is_kind(location: Sequence[Any], place: int) -> bool:
    """Tell whether a part of a location is a model's kind, by which its section was chosen."""
    return place == 2 and location[0] == "models" and location[2] in (*SECTIONS, OTHER)


def _describe(root: type[Section], origin: str, fault: Any) -> str:
    location = _plain_location(fault["loc"])
    where = ".".join(str(part) for part in location) or "the file"
    if fault["type"] == "extra_forbidden":
        parent = ".".join(str(part) for part in location[:-1]) or "the top level"
        known = _allowed_keys(root, fault["loc"])
        hint = suggest(location[-1], known) or _suggest_elsewhere(root, location[-1])
        return f"{origin}: {where}: unknown key{hint}; allowed under {parent}: {', '.join(known)}"
    message = _plain_words(fault["msg"])
    if fault["type"] == "missing":
        return f"{origin}: {where}: required but missing"
    if fault["type"] in ("value_error", "assertion_error"):
        return f"{origin}: {where}: {message}"
    if fault["type"] == "string_pattern_mismatch":
        pattern = fault["ctx"]["pattern"]
        message = _NAME if pattern == NAME_PATTERN else _SHAPES.get(str(location[-1]), f"text that matches {pattern}")
    if fault["type"] == "string_type" and isinstance(fault["input"], (bool, int, float)):
        # YAML reads a bare 1 as a number, and a bare No as false.
        return f"{origin}: {where}: must be text; got {quote(fault['input'])}: put it in quotes, as the table has it"
    return f"{origin}: {where}: must be {message}; got {quote(fault['input'])}"


def _plain_words(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input should be ")
    return re.sub(r"^a valid (\w+)\b.*", lambda found: _KINDS.get(found[1], found[0]), message)


def _suggest_elsewhere(root: type[Section], key: Any) -> str:
    """Return the suggestion of a key's whole path, where it was written without its section."""
    paths = [path for path in _list_paths(root) if path.rpartition(".")[2] == key]
    return f" (did you mean {' or '.join(paths)}?)" if paths else ""


def _list_paths(section: type[Section], above: str = "") -> Iterator[str]:
    """Yield the dotted path of every key below a section, lists and mappings left out."""
    for name, field in section.model_fields.items():
        yield f"{above}{name}"
        if (inner := _find_section(field.annotation)) is not None:
            yield from _list_paths(inner, f"{above}{name}.")


def _allowed_keys(root: type[Section], location: tuple[Any, ...]) -> list[str]:
    """Return the keys of the section around a location of pydantic's, by walking the types."""
    plain = _plain_location(location)
    kind: Any = root
    if len(location) > 2 and _is_kind(location, 2):
        kind, plain = SECTIONS.get(location[2], Model), plain[2:]
    for part in plain[:-1]:
        section = _find_section(kind)
        if section is not None and part in section.model_fields:
            kind = section.model_fields[part].annotation
        else:  # an entry of a list or a mapping: step to its value type
            kind = _find_entry(kind)
    section = _find_section(kind)
    return sorted(section.model_fields) if section is not None else []


def _find_section(kind: Any) -> type[Section] | None:
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind
    if get_origin(kind) in (list, dict):
        return None
    return next((found for argument in get_args(kind) if (found := _find_section(argument))), None)


def _find_entry(kind: Any) -> Any:
    return get_args(kind)[-1] if get_origin(kind) in (list, dict) else kind
