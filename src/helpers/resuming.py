"""One map over the cases of a study that works out only what is not kept yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.compute import CaseFailure, map_cases
from helpers.kept import Contents, Ingredients, Kept, Reading, encode, is_same, read_place
from helpers.parameters import Compute

Missing = Mapping[Any, str | None]


@dataclass(frozen=True)
class _Remainder:
    function: Callable[[Any, Missing], dict[Any, Any]]
    case: Any
    missing: Missing
    unread: tuple[Path, ...]


def map_kept(
    function: Callable[[Any, Missing], dict[Any, Any]],
    cases: Sequence[Any],
    wanted: Sequence[Mapping[Any, Ingredients]],
    *,
    kept: Kept,
    ids: Sequence[str],
    compute: Compute,
    label: str,
    keep_if: Callable[[Any], bool] = bool,
    is_whole: Callable[[str, Any], bool] | None = None,
) -> Iterator[dict[Any, Any] | CaseFailure]:
    """Work out what is wanted of every case and not kept yet; yield each case's results in order.

    Each result is kept as soon as it is there, so a kill costs the cases at work. What is yielded
    comes out of what is kept, one case at a time, whenever it was worked out; at the end what no
    case wanted is swept.

    Parameters
    ----------
    function : callable
        Takes a case, and the names of what is missing of it with their keys (None where a file was
        not read before); returns values that JSON can hold, by name. It must pickle, as the cases.
    wanted : sequence of mapping
        By case and by name, what each result depends on.
    keep_if : callable
        Tells of a value whether it is kept; others are worked out again the next time.
    is_whole : callable, optional
        Tells of a key and value that are kept whether what belongs to them is there too.
    """
    _read_changed(kept.contents, wanted, compute)
    keys = [{name: kept.make_key(one) for name, one in parts.items()} for parts in wanted]
    todo, jobs = [], []
    for index, (case, parts, found) in enumerate(zip(cases, wanted, keys, strict=True)):
        missing = {name: key for name, key in found.items() if key is None or not _has(kept, key, is_whole)}
        if missing:
            places = dict.fromkeys(place for name in missing for place in parts[name].places)
            unread = tuple(
                place for place in places if None in missing.values() and kept.contents.recall(place) is None
            )
            todo.append(index)
            jobs.append(_Remainder(function, case, missing, unread))
    loose: dict[int, CaseFailure | dict[Any, Any]] = {}

    def receive(place: int, result: Any) -> None:
        index = todo[place]
        if isinstance(result, CaseFailure):
            loose[index] = result
            return
        values, readings = result
        kept.contents.learn(readings)
        unkept = {}
        for name, value in values.items():
            key = keys[index][name] = keys[index][name] or kept.make_key(wanted[index][name])
            if key is not None and keep_if(value):
                kept.records.put(key, value)
            else:
                unkept[name] = json.loads(encode(value))
        if unkept:
            loose[index] = unkept

    if jobs:
        map_cases(_work_out, jobs, ids=[ids[index] for index in todo], compute=compute, label=label, receive=receive)
    for index, found in enumerate(keys):
        outside = loose.get(index, {})
        if isinstance(outside, CaseFailure):
            yield outside
        else:
            yield {
                name: outside[name] if name in outside or key is None else kept.records.get(key)
                for name, key in found.items()
            }
    kept.sweep({key for found in keys for key in found.values() if key is not None})
    kept.contents.flush()


def read_contents(contents: Contents, places: Iterable[Path], compute: Compute) -> None:
    """Read and note the places that are not known as they are now, wherever the study computes."""
    unread = [place for place in dict.fromkeys(places) if contents.recall(place) is None]
    _read(contents, unread, compute)


def verify_contents(contents: Contents, compute: Compute) -> int:
    """Read every place again that was ever read; return how many hold something else."""
    places = contents.list_places()
    before = [contents.recall(place) for place in places]
    _read(contents, places, compute)
    return sum(one is not None and one != contents.recall(place) for place, one in zip(places, before, strict=True))


def _read(contents: Contents, places: Sequence[Path], compute: Compute) -> None:
    if not places:
        return

    def receive(index: int, reading: Any) -> None:
        if isinstance(reading, Reading):
            contents.learn([reading])

    ids = [f"file {number}" for number in range(1, len(places) + 1)]
    map_cases(read_place, places, ids=ids, compute=compute, label="reading files", receive=receive)


def _read_changed(contents: Contents, wanted: Sequence[Mapping[Any, Ingredients]], compute: Compute) -> None:
    """Read files whose stamp is new but which were read before: what they hold may be the same."""
    places = dict.fromkeys(place for parts in wanted for one in parts.values() for place in one.places)
    _read(contents, [place for place in places if contents.is_changed(place)], compute)


def _has(kept: Kept, key: str, is_whole: Callable[[str, Any], bool] | None) -> bool:
    return key in kept.records and (is_whole is None or is_whole(key, kept.records.get(key)))


def _work_out(work: _Remainder) -> tuple[dict[Any, Any], list[Reading]]:
    """Work out what is missing; with it what was read, unless a file was changed meanwhile."""
    readings = [reading for place in work.unread if (reading := read_place(place)) is not None]
    values = work.function(work.case, work.missing)
    return values, [reading for reading in readings if is_same(reading)]
