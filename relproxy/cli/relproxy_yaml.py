"""The text of a relproxy.yaml with an installation in it: everything else stays as it was written.

Where to write is known from the marks of PyYAML's nodes. What comes out is read again, and given
only if it says what was meant and nothing else: a layout that isn't understood is left to a person.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import yaml

from relproxy.errors import ConfigurationError

_KEY = "installations"


def with_installation(
    text: str, installation: Mapping[str, str], *, file: str, replaces: bool
) -> str:
    """Return the text with an installation, a mapping of `name` and `uuid`, among its own.

    Raises `ConfigurationError` where that name has another UUID, unless that is to be replaced, or
    the UUID has another name, or the file can't be changed surely.
    """
    tree, node = _parsed(text, file)
    known: list[Any] = tree.get(_KEY) or []
    if not isinstance(known, list) or not all(isinstance(item, dict) for item in known):
        raise ConfigurationError((f"{file}: {_KEY} should be a list of mappings.",))
    if any(_is(item, installation) for item in known):
        return text
    place = _place(known, installation, file, replaces=replaces)
    wanted = [*known[:place], dict(installation), *known[place + 1 :]]
    changed = _changed(text, node, place, installation)
    if _reread(changed) != {**tree, _KEY: wanted}:
        line = f"- {_item(installation)}"
        raise ConfigurationError((f"{file}: can't be changed surely: add by hand {line!r}.",))
    return changed


def _parsed(text: str, file: str) -> tuple[dict[str, Any], yaml.MappingNode | None]:
    """Return what the file says, and the node that says it; None where it is empty."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as failure:
        raise ConfigurationError((f"{file}: can't be read as YAML.",)) from failure
    if node is None:
        return {}, None
    if not isinstance(tree, dict) or not isinstance(node, yaml.MappingNode):
        raise ConfigurationError((f"{file}: should be a mapping of settings.",))
    return tree, node


def _place(
    known: list[dict[str, Any]], installation: Mapping[str, str], file: str, *, replaces: bool
) -> int:
    """Return which item it is to be: that of its name, or one after the last."""
    for place, item in enumerate(known):
        if item.get("name") == installation["name"]:
            if not replaces or set(item) != {"name", "uuid"}:
                sentence = f"{file}: installation {item['name']!r} has another uuid"
                raise ConfigurationError((f"{sentence}; --force replaces it.",))
            return place
        if item.get("uuid") == installation["uuid"]:
            raise ConfigurationError(
                (f"{file}: this uuid is that of installation {item.get('name')!r}.",)
            )
    return len(known)


def _is(item: Mapping[str, Any], installation: Mapping[str, str]) -> bool:
    """Tell whether an item is this installation, in whatever spelling of its UUID."""
    try:
        same = uuid.UUID(str(item.get("uuid"))) == uuid.UUID(installation["uuid"])
    except ValueError:
        return False
    return same and item.get("name") == installation["name"]


def _changed(
    text: str, root: yaml.MappingNode | None, place: int, installation: Mapping[str, str]
) -> str:
    found = [pair for pair in (root.value if root else ()) if pair[0].value == _KEY]
    if not found:
        eol = _eol(text)
        begun = text if not text or text.endswith("\n") else f"{text}{eol}"
        return f"{begun}{_KEY}:{eol}  - {_item(installation)}{eol}"
    key, items = found[-1]
    if not isinstance(items, yaml.SequenceNode):
        return _with_line(text, key.end_mark.index, f"  - {_item(installation)}")
    if place < len(items.value):
        uuid = next(value for name, value in items.value[place].value if name.value == "uuid")
        before, after = text[: uuid.start_mark.index], text[uuid.end_mark.index :]
        return f"{before}{installation['uuid']}{after}"
    return _appended(text, items, installation)


def _appended(text: str, items: yaml.SequenceNode, installation: Mapping[str, str]) -> str:
    item = _item(installation)
    if not items.value:
        return f"{text[: items.start_mark.index]}[{item}]{text[items.end_mark.index :]}"
    end = _end(items.value[-1])
    if items.flow_style:
        return f"{text[:end]}, {item}{text[end:]}"
    return _with_line(text, end, f"{' ' * items.start_mark.column}- {item}")


def _end(node: yaml.Node) -> int:
    """Return where a node's last letter is: the mark of a block's end is after what follows it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    end: int = node.end_mark.index
    return end


def _with_line(text: str, index: int, line: str) -> str:
    """Put a line behind the one that has the letter at `index`."""
    end = text.find("\n", index)
    if end < 0:
        return f"{text}\n{line}\n"
    return f"{text[: end + 1]}{line}{_eol(text)}{text[end + 1 :]}"


def _eol(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _item(installation: Mapping[str, str]) -> str:
    name = installation["name"]
    # Such a one as 123 or null.
    plain = name if yaml.safe_load(name) == name else f'"{name}"'
    return f"{{name: {plain}, uuid: {installation['uuid']}}}"


def _reread(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return None
