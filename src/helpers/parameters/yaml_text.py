"""YAML as plain values, of a size and a depth that a person could have written."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from helpers.errors import ParameterError, quote, shorten

LARGEST_BYTES = 2_000_000  # some ten seconds of PyYAML; a list of 50,000 scans takes half of it
_MOST_VALUES = 1_000_000  # with every alias written out: 400 bytes of aliases can stand for billions
_DEEPEST = 50
_KINDS = {"timestamp": "date", "int": "number", "float": "number", "bool": "yes or no", "binary": "base64 text"}


def load_yaml(text: str, what: str) -> Any:
    """Return what a YAML text holds; two equal keys, which YAML passes over, are refused.

    `what` the text is begins every message. No tag makes anything but plain values.

    Raises a ParameterError: it is no YAML, its values are none of their kind (a date such as
    2024-02-30), or it is too large, too deep, or holds itself.
    """
    if "\0" in text or len(text) > LARGEST_BYTES:
        fault = "holds NUL characters" if "\0" in text else f"is larger than {LARGEST_BYTES // 10**6} MB"
        raise ParameterError(f"{what}: {fault}, which no list of settings is: give the parameter file")
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_extent(node, what)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise ParameterError(f"{what}: is not valid YAML: {shorten(said, 300)}") from error
    except RecursionError:
        raise _refuse_depth(what) from None
    finally:
        if loader is not None:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """Says of each value that is none of its kind where it stands."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            held = quote(node.value) if isinstance(node, yaml.ScalarNode) else "what stands here"
            kind = _KINDS.get(node.tag.rpartition(":")[2], "value of its kind")
            raise yaml.constructor.ConstructorError(
                None, None, f"{held} is no {kind}: put it in quotes if it is text", node.start_mark
            ) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                fault = "a key must be one word or number; it is a list or a section"
                raise yaml.constructor.ConstructorError(None, None, fault, key_node.start_mark)
            if key in seen:
                fault = f"key {quote(key)} appears twice"
                raise yaml.constructor.ConstructorError(None, None, fault, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _check_extent(root: yaml.Node, what: str) -> None:
    """Refuse what would be too large or too deep with every alias in it written out."""
    sizes: dict[int, int] = {}

    def measure(node: yaml.Node, depth: int) -> int:
        if depth > _DEEPEST:  # a node within itself, too
            raise _refuse_depth(what)
        if id(node) not in sizes:
            parts = node.value if isinstance(node, yaml.CollectionNode) else []
            inner = [part for pair in parts for part in pair] if isinstance(node, yaml.MappingNode) else parts
            sizes[id(node)] = 1 + sum(measure(part, depth + 1) for part in inner)
        return sizes[id(node)]

    if measure(root, 0) > _MOST_VALUES:
        raise ParameterError(
            f"{what}: stands for more than {_MOST_VALUES:,} values once its aliases (*name) are written out: "
            "write out what is meant"
        )


def _refuse_depth(what: str) -> ParameterError:
    return ParameterError(f"{what}: is nested more than {_DEEPEST} levels deep, or within itself: flatten it")
