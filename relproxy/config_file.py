"""From a YAML file to a `Configuration`, or to every problem with it at once.

Each problem is one line: where in the file, the path of the setting, and a sentence. The checks
between settings work on whatever could be read, so that a typo in one place hides no mistake in
another.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from relproxy.config import Configuration, Registry
from relproxy.config_types import takes_any_port
from relproxy.errors import ConfigurationError

PathParts = tuple[str | int, ...]
_Problem = tuple[PathParts, str]
_Lines = Mapping[PathParts, int]

_CONDITIONS = ("host", "path_prefix", "listener", "network")
_MERGE_TAG = "tag:yaml.org,2002:merge"


def load_configuration(path: Path) -> Configuration:
    """Read and check a configuration file.

    Raises `ConfigurationError` with one line for each problem.
    """
    return parse_configuration(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Read a configuration file. Raises `ConfigurationError` if that can't be done."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8"
        raise ConfigurationError((f"{path}: can't be read: {reason}.",)) from failure


def parse_configuration(text: str, name: str) -> Configuration:
    """Check the text of a configuration file of that name; raises `ConfigurationError`."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as failure:
        raise ConfigurationError((f"{name}{_syntax_problem(failure)}",)) from failure
    if not isinstance(tree, dict) or node is None:
        raise ConfigurationError((f"{name}: should be a mapping of settings.",))
    lines: dict[PathParts, int] = {}
    try:
        problems = list(_walk(node, (), lines))
    except RecursionError as failure:
        raise ConfigurationError((f"{name}: an alias contains itself.",)) from failure
    configuration, invalid = _validated(tree)
    problems += invalid
    problems += _between_settings(tree)
    if configuration is None or problems:
        raise ConfigurationError(tuple(_rendered(name, problems, lines)))
    return configuration


def _syntax_problem(failure: Exception) -> str:
    mark = getattr(failure, "problem_mark", None)
    what = getattr(failure, "problem", None) or " ".join(str(failure).split())
    where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
    return f"{where}: is not YAML: {what}."


def _walk(node: yaml.Node, path: PathParts, lines: dict[PathParts, int]) -> Iterator[_Problem]:
    """Note the line of every setting, and find the keys that YAML would silently overwrite."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen and key.tag != _MERGE_TAG:
                yield (*path, name), "is given twice: YAML would silently take the last one"
            seen.add(name)
            lines[*path, name] = key.start_mark.line + 1
            yield from _walk(value, (*path, name), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _walk(item, (*path, index), lines)


def _validated(tree: dict[str, Any]) -> tuple[Configuration | None, list[_Problem]]:
    try:
        return Configuration.model_validate(tree), []
    except ValidationError as failure:
        details = failure.errors(include_url=False)
        return None, [_problem(detail) for detail in details if not _is_an_echo(detail)]


def _is_an_echo(detail: ErrorDetails) -> bool:
    """Tell whether pydantic only says that a list is short of the items it found invalid."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _problem(detail: ErrorDetails) -> _Problem:
    path = detail["loc"]
    kind = detail["type"]
    if kind == "missing":
        return path, "is required"
    if kind == "too_short":
        return path, "should have at least one item"
    if kind == "extra_forbidden":
        return path, f"is not a setting{_suggestion(path)}"
    sentence = detail["msg"].removeprefix("Value error, ")
    sentence = sentence.removeprefix("Input ")
    return path, f"{sentence} (it is {_shown(detail['input'])})"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _suggestion(path: PathParts) -> str:
    known = _settings_at(path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _settings_at(path: PathParts) -> list[str]:
    model: Any = Configuration
    for part in path:
        if isinstance(part, str):
            model = _section_in(model.model_fields[part].annotation)
    return list(model.model_fields)


def _section_in(annotation: Any) -> Any:  # noqa: ANN401 - a type as the annotations write it
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return _section_in(annotation.__args__[0])


def _between_settings(tree: dict[str, Any]) -> Iterator[_Problem]:
    """Find what no single setting can know: repeated names, and names that nothing has."""
    names = {kind: _names(tree, kind) for kind in ("listeners", "registries", "installations")}
    for kind in (*names, "routes"):
        yield from _repeated(tree, kind, "name")
    yield from _repeated(tree, "installations", "uuid")
    yield from _repeated(tree, "listeners", "bind")
    yield from _admin_bind(tree)
    yield from _fronts(tree)
    yield from _store(tree)
    yield from _identity(tree)
    yield from _certificates(tree)
    for index, registry in enumerate(_mappings(tree, "registries")):
        yield from _limits(registry, index)
        yield from _dialect(registry, index)
    yield from _tls(tree)
    for index, route in enumerate(_mappings(tree, "routes")):
        yield from _dangling(route, index, names)
    yield from _unreachable(tree)


def _fronts(tree: dict[str, Any]) -> Iterator[_Problem]:
    fronts = tree.get("fronts")
    settings = fronts if isinstance(fronts, dict) else {}
    listeners = _mappings(tree, "listeners")
    if settings.get("networks"):
        return
    is_fronted = any(each.get("fronted") is True for each in listeners)
    if not is_fronted and settings.get("header") in {"forwarded", "x-forwarded-for"}:
        yield ("fronts", "header"), "has a meaning with fronts.networks or a fronted listener only"
    for index, listener in enumerate(listeners):
        if listener.get("proxy_protocol") is True and listener.get("fronted") is not True:
            yield ("listeners", index, "proxy_protocol"), "needs fronts.networks: who may connect"


def _tls(tree: dict[str, Any]) -> Iterator[_Problem]:
    """Find settings of TLS for what is asked without."""
    sentence = "has a meaning with an https address only"
    for index, registry in enumerate(_mappings(tree, "registries")):
        urls = registry.get("endpoints")
        if registry.get("tls") is not None and isinstance(urls, list) and not _any_https(urls):
            yield ("registries", index, "tls"), sentence
        yield from _tls_of_credentials(registry, ("registries", index), sentence)
    identity = tree.get("identity")
    keystone = identity.get("keystone") if isinstance(identity, dict) else None
    yield from _tls_of_credentials(keystone, ("identity", "keystone"), sentence)


def _tls_of_credentials(section: object, path: PathParts, sentence: str) -> Iterator[_Problem]:
    credentials = section.get("credentials") if isinstance(section, dict) else None
    if not isinstance(credentials, dict) or credentials.get("tls") is None:
        return
    if not _any_https([credentials.get("auth_url")]):
        yield (*path, "credentials", "tls"), sentence


def _any_https(urls: list[Any]) -> bool:
    return any(str(url).startswith("https://") for url in urls)


def _store(tree: dict[str, Any]) -> Iterator[_Problem]:
    store = tree.get("store")
    if not isinstance(store, dict):
        return
    if store.get("driver") != "postgres":
        for name in ("dsn", "password_file"):
            if store.get(name) is not None:
                yield ("store", name), "has a meaning with driver postgres only"
    elif store.get("dsn") is None:
        yield ("store", "dsn"), "is required with driver postgres"


def _identity(tree: dict[str, Any]) -> Iterator[_Problem]:
    identity = tree.get("identity")
    if not isinstance(identity, dict):
        return
    provider, has_keystone = identity.get("provider"), identity.get("keystone") is not None
    if provider == "headers" and has_keystone:
        yield ("identity", "keystone"), "has a meaning with provider keystone only"
    if provider == "keystone" and not has_keystone:
        yield ("identity", "keystone"), "is required with provider keystone"
    if has_keystone and identity.get("trusted_networks"):
        path = ("identity", "trusted_networks")
        yield path, "has a meaning with provider headers only: nobody else is believed"


def _certificates(tree: dict[str, Any]) -> Iterator[_Problem]:
    trusted = tree.get("trusted_sources")
    names = trusted.get("certificates") if isinstance(trusted, dict) else None
    sections = [listener.get("tls") for listener in _mappings(tree, "listeners")]
    asking = (s.get("client_certificates") for s in sections if isinstance(s, dict))
    if names and not any(kind in {"optional", "required"} for kind in asking):
        path = ("trusted_sources", "certificates")
        yield path, "has a meaning with a listener only whose tls asks for client_certificates"


def _mappings(tree: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    items = tree.get(kind)
    if not isinstance(items, list):
        return []
    return [item if isinstance(item, dict) else {} for item in items]


def _names(tree: dict[str, Any], kind: str) -> list[str]:
    return [str(item["name"]) for item in _mappings(tree, kind) if "name" in item]


def _repeated(tree: dict[str, Any], kind: str, setting: str) -> Iterator[_Problem]:
    firsts: dict[str, int] = {}
    for index, item in enumerate(_mappings(tree, kind)):
        value = item.get(setting)
        if value is None or (setting == "bind" and takes_any_port(str(value))):
            continue  # Port 0 is a free one each time.
        first = firsts.setdefault(_folded(value, setting), index)
        if first != index:
            yield (kind, index, setting), f"'{value}' is also that of {kind}[{first}]"


def _admin_bind(tree: dict[str, Any]) -> Iterator[_Problem]:
    admin = tree.get("admin")
    bind = admin.get("bind") if isinstance(admin, dict) else None
    for index, listener in enumerate(_mappings(tree, "listeners")):
        if bind is not None and bind == listener.get("bind") and not takes_any_port(str(bind)):
            yield ("admin", "bind"), f"'{bind}' is also that of listeners[{index}]"


def _folded(value: object, setting: str) -> str:
    text = str(value).lower()
    return text.replace("-", "") if setting == "uuid" else text


def _limits(registry: dict[str, Any], index: int) -> Iterator[_Problem]:
    default, maximum = (
        registry.get(name, Registry.model_fields[name].default)
        for name in ("default_limit", "max_limit")
    )
    if isinstance(default, int) and isinstance(maximum, int) and default > maximum:
        yield ("registries", index, "default_limit"), f"{default} is over max_limit, {maximum}"


def _dialect(registry: dict[str, Any], index: int) -> Iterator[_Problem]:
    dialect = registry.get("dialect", "glance-v2")
    if dialect == "glance-v2":
        return
    if registry.get("sticky_staging") is True:
        path = ("registries", index, "sticky_staging")
        yield path, "has a meaning with dialect glance-v2 only: nothing else stages"
    if dialect == "glance-registry":
        if registry.get("assign_image_ids") is True:
            path = ("registries", index, "assign_image_ids")
            yield path, "has no meaning with dialect glance-registry: it chooses every id itself"
        if registry.get("upstream_identity") == "headers":
            path = ("registries", index, "upstream_identity")
            yield path, "has no meaning with dialect glance-registry: it believes no such headers"


def _dangling(
    route: dict[str, Any], index: int, names: Mapping[str, list[str]]
) -> Iterator[_Problem]:
    for setting, kind in (
        ("registry", "registries"),
        ("installation", "installations"),
        ("listener", "listeners"),
    ):
        value = route.get(setting)
        if isinstance(value, str) and value not in names[kind]:
            known = ", ".join(names[kind]) or "none"
            yield ("routes", index, setting), f"no {setting} is named '{value}'; known: {known}"


def _unreachable(tree: dict[str, Any]) -> Iterator[_Problem]:
    """Find routes behind one that takes all they would match."""
    routes = _mappings(tree, "routes")
    for index, route in enumerate(routes):
        for earlier, other in enumerate(routes[:index]):
            if all(_covers(condition, other, route) for condition in _CONDITIONS):
                yield ("routes", index), f"never matches: routes[{earlier}] before it takes it all"
                break


def _covers(condition: str, earlier: dict[str, Any], later: dict[str, Any]) -> bool:
    """Tell whether the earlier route takes all that this condition of the later one lets in."""
    wide, narrow = earlier.get(condition), later.get(condition)
    if wide is None or wide == narrow:
        return True
    if narrow is None:
        return False
    if condition == "path_prefix":
        return str(narrow).startswith(f"{wide}/")
    return condition == "network" and _is_within(str(narrow), str(wide))


def _is_within(narrow: str, wide: str) -> bool:
    try:
        inner, outer = ip_network(narrow), ip_network(wide)
    except ValueError:
        return False
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False


def _rendered(name: str, problems: list[_Problem], lines: _Lines) -> Iterator[str]:
    for path, sentence in sorted(problems, key=lambda p: (_line(p[0], lines), str(p[0]))):
        yield f"{name}:{_line(path, lines)}: {_dotted(path)}: {sentence}."


def _line(path: PathParts, lines: _Lines) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _dotted(path: PathParts) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(file)"
