"""`relproxy generate-installation-uuid`: a name for one Nova that is never used again."""

from __future__ import annotations

import argparse
import uuid
from pathlib import Path

from pydantic import ValidationError

from relproxy.cli import nova_conf, relproxy_yaml, replacement
from relproxy.cli.verbs import ending
from relproxy.config import Installation
from relproxy.errors import ConfigurationError

_YAML = {".yaml", ".yml"}
_INI = {".conf", ".ini"}

_SHOWN = """\
{uuid}

As a flag, as the blueprint has it:
--nova_installation_uuid={uuid}

In nova.conf, where its image service is switched on:
[relproxy]
nova_installation_uuid = {uuid}

In relproxy.yaml, below installations (the name is yours to choose):
  - {{name: {name}, uuid: {uuid}}}"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "generate-installation-uuid", help="make a nova_installation_uuid for the configuration"
    )
    parser.add_argument(
        "--write",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="put it into a nova.conf or a relproxy.yaml; may be given for several",
    )
    parser.add_argument(
        "--name", default="nova", help="what relproxy.yaml is to call the installation: nova"
    )
    parser.add_argument("--uuid", help="use this one, which was made before, instead of a new one")
    parser.add_argument(
        "--force", action="store_true", help="replace another one in a file; records keep that"
    )
    parser.set_defaults(run=ending(run))


def run(arguments: argparse.Namespace) -> str:
    """Return a new UUID with the lines for both files, or what has been written where."""
    asked = {"name": arguments.name, "uuid": arguments.uuid or str(uuid.uuid4())}
    try:
        installation = Installation.model_validate(asked)
    except ValidationError as failure:
        raise ConfigurationError(
            tuple(f"--{problem['loc'][0]}: {problem['msg']}." for problem in failure.errors())
        ) from failure
    if not arguments.write:
        return _SHOWN.format(name=installation.name, uuid=installation.uuid)
    written = _write(arguments.write, installation, replaces=arguments.force)
    return "\n".join([installation.uuid, *written])


def _write(files: list[Path], installation: Installation, *, replaces: bool) -> list[str]:
    """Change the files, and return a line about each. All of them are judged before one is."""
    originals = {(original := replacement.read(file)).path: original for file in files}
    changes = [
        (original, _with_installation(original, installation, replaces=replaces))
        for original in originals.values()
    ]
    said = []
    for original, text in changes:
        if text == original.text:
            said.append(f"{original.named}: has it already.")
        else:
            replacement.replace(original, text)
            said.append(f"{original.named}: written.")
    return said


def _with_installation(
    original: replacement.Original, installation: Installation, *, replaces: bool
) -> str:
    file, kind = str(original.named), original.named.suffix
    if kind in _INI:
        return nova_conf.with_installation(
            original.text, installation.uuid, file=file, replaces=replaces
        )
    if kind in _YAML:
        asked = {"name": installation.name, "uuid": installation.uuid}
        return relproxy_yaml.with_installation(original.text, asked, file=file, replaces=replaces)
    raise ConfigurationError(
        (f"{file}: is neither a nova.conf (.conf, .ini) nor a relproxy.yaml (.yaml, .yml).",)
    )
