"""Reads YAML within limits: nested anchors can stand for more values than memory holds."""

from __future__ import annotations

from typing import Any, Final

MAX_TEXT: Final = 1 << 20
MAX_VALUES: Final = 100_000
"""Values after all aliases are replaced by what they stand for."""


def parse_yaml(text: str) -> Any:
    """Parse a YAML document of plain values. `ValueError` if it is damaged, or too large once aliases are expanded."""
    import yaml

    if len(text) > MAX_TEXT:
        raise ValueError(f"{len(text)} characters; expected at most {MAX_TEXT}")
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, set())
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    # Of values such as the date 2026-02-31, and a mapping as a key.
    except (TypeError, OverflowError, AttributeError) as error:
        raise ValueError(f"a value that cannot be read ({error})") from error
    finally:
        loader.dispose()


def _count(node: Any, known: dict[int, int], open_nodes: set[int]) -> int:
    """Count the values that a node stands for."""
    import yaml

    if id(node) in known:
        return known[id(node)]
    if id(node) in open_nodes:
        raise ValueError("an alias inside its own anchor")
    open_nodes.add(id(node))
    children: list[Any] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    total = 1
    for child in children:
        total += _count(child, known, open_nodes)
        if total > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values once aliases are expanded")
    open_nodes.discard(id(node))
    known[id(node)] = total
    return total
