"""`relproxy explain`: why a project does or does not see an image.

Works beside a running relproxy, and without one; it changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from relproxy.admin.explain import shown
from relproxy.app import explainer_beside
from relproxy.cli.verbs import ending
from relproxy.config_file import load_configuration
from relproxy.explanation import Question

_RECORD = (
    *("project", "nova_installation_uuid", "instance_id", "grade", "created_at", "recorded_at"),
    "deleted_at",
)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser("explain", help="say why a project does or does not see an image")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--project", required=True, help="whose eyes to look with")
    parser.add_argument("--image", required=True, metavar="ID", help="the image's id")
    parser.add_argument("--registry", help="in this registry (default: in each)")
    parser.add_argument(
        "--role", nargs="+", action="extend", default=[], metavar="ROLE", help="of the caller"
    )
    parser.add_argument("--json", action="store_true", help="as the admin listener says it")
    parser.set_defaults(run=ending(_explain))


def _explain(arguments: argparse.Namespace) -> str:
    explanation = asyncio.run(_explained(arguments))
    if arguments.json:
        return json.dumps(explanation)
    return "\n".join(_lines(explanation))


async def _explained(arguments: argparse.Namespace) -> dict[str, Any]:
    question = Question(
        arguments.project, arguments.image, frozenset(arguments.role), arguments.registry
    )
    async with explainer_beside(load_configuration(arguments.config)) as explainer:
        return shown(await explainer.explain(question))


def _lines(explanation: Mapping[str, Any]) -> Iterator[str]:
    roles = ", ".join(explanation["roles"]) or "none"
    admin_roles = ", ".join(explanation["admin_roles"]) or "none"
    yield f"image: {explanation['image_id']}"
    yield f"project: {explanation['project']}"
    yield f"roles: {roles}; admin: {_said(explanation['is_admin'])} (by {admin_roles})"
    yield f"identity provider: {explanation['provider']}"
    for found in explanation["registries"]:
        yield ""
        yield from _registry_lines(found)


def _registry_lines(found: Mapping[str, Any]) -> Iterator[str]:
    tenancy, identity = found["tenancy"], found["upstream_identity"]
    yield f"registry: {found['registry']} (tenancy {tenancy}, upstream_identity {identity})"
    if found["shadow_routes"]:
        yield f"  in shadow, so nothing is hidden there: route {', '.join(found['shadow_routes'])}"
    for name, title in (("in_lists", "in lists"), ("by_id", "by id")):
        answer = found[name]
        yield f"  {title}: {_verdict(answer)}"
        yield f"    {answer['sentence']}"
    yield f"  the project's own: {_said(found['is_own'])}"
    if found["image"] is not None:
        yield "  the registry shows:"
        yield from (f"    {name}: {_said(value)}" for name, value in found["image"].items())
    for record in found["records"]:
        yield from _record_lines(record)
    for entry in found["in_doubt"]:
        yield f"  in doubt: {entry['kind']} {entry['entry']} of {_said(entry['project'])}"
        yield f"    {_said(entry['reason'])}"
    if not found["records"] and not found["unknown"]:
        yield "  no record"
    yield from (f"  not learned: {sentence}" for sentence in found["unknown"])


def _record_lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield f"  record of the image shown: {_said(record['is_of_the_image'])}"
    yield from (f"    {name}: {_said(record[name])}" for name in _RECORD)
    pending = ", ".join(record["pending"])
    where = f"this host's journal still has: {pending}" if pending else "delivered to the store"
    yield f"    {where}"


def _verdict(answer: Mapping[str, Any]) -> str:
    words = {True: "shown", False: "hidden", None: "not relproxy's to say, or not known"}
    rule = f" ({answer['rule']})" if answer["rule"] else ""
    return words[answer["is_visible"]] + rule


def _said(value: object) -> str:
    """Return a value as one printable line; a registry's own text may be anything."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "-" if value is None else str(value)
    return text if text.isprintable() else ascii(text)
