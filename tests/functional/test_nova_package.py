"""Nova's package, without a cloud: what of it our image service goes by, and what it reads."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from lab import venvs
from lab.nova import TREE
from lab.relproxy import command
from relproxy.config import MetadataHeaderNames
from relproxy.nova.identification import INSTALLATION_HEADER, INSTANCE_HEADER

MAY_CREATE = re.compile(
    r"image_api\.create|\(\)\.create|create_image\(|get_default_image_service", re.IGNORECASE
)


@pytest.fixture(scope="module")
def source() -> dict[str, ast.Module]:
    """Nova's own modules that create an image or say so, by their paths."""
    (package,) = (venvs.ensure("nova") / "lib").glob("python*/site-packages/nova")
    texts = {
        str(file.relative_to(package)): file.read_text(encoding="utf-8")
        for file in package.rglob("*.py")
    }
    return {
        name: ast.parse(text)
        for name, text in texts.items()
        if not name.startswith("tests") and MAY_CREATE.search(text)
    }


def functions_that_call(source: dict[str, ast.Module], called: str) -> set[tuple[str, str]]:
    """Return the file and the function of each call whose words end so."""
    return {
        (name, function.name)
        for name, tree in source.items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func).lower().endswith(called)
    }


def test_nova_creates_images_of_instances_where_we_look_and_nowhere_else(
    source: dict[str, ast.Module],
) -> None:
    """Another place in another Nova's source is one where no instance would be named."""
    creating = {("compute/utils.py", "create_image"), ("compute/api.py", "snapshot_volume_backed")}
    assert functions_that_call(source, "image_api.create") == creating
    assert functions_that_call(source, "glance.api().create") == set()
    # By its module, so that what is bound there anew is what is called.
    assert {file for file, _ in functions_that_call(source, "compute_utils.create_image")} == {
        "compute/api.py",
        "conductor/tasks/cross_cell_migrate.py",
    }
    assert functions_that_call(source, "get_default_image_service") == {
        ("image/glance.py", "get_remote_image_service"),
        ("image/glance.py", "_get_session"),
    }


def test_the_headers_are_by_default_those_that_relproxy_reads() -> None:
    names = MetadataHeaderNames()
    assert (names.installation, names.instance) == (INSTALLATION_HEADER, INSTANCE_HEADER)


def test_its_options_are_offered_to_novas_sample_configuration(tmp_path: Path) -> None:
    """`oslo-config-generator --namespace relproxy.nova`, where the package is installed."""
    project = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = tmp_path / "relproxy-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: relproxy\nVersion: 1\n")
    points = project["entry-points"]["oslo.config.opts"].items()
    lines = ["[oslo.config.opts]", *(f"{name} = {where}" for name, where in points)]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    generator = venvs.ensure("nova") / "bin" / "oslo-config-generator"
    argv = [str(generator), "--namespace", "relproxy.nova"]
    path = os.pathsep.join([str(tmp_path), str(TREE)])
    ran = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert "\n[relproxy]\n" in ran.stdout, ran.stderr
    for option in ("nova_installation_uuid", "installation_header", "instance_header"):
        assert f"\n#{option} = " in ran.stdout


NOVA_CONFS = {
    "empty": "",
    "without the section": "[DEFAULT]\nhost = a\n",
    "with a comment": "[relproxy]\n# nova_installation_uuid = 1\n[glance]\napi_servers =\n  http://a\n",
    "with another one": "[Relproxy]\nnova_installation_uuid =\n  123\n  4\ninstance_header: X-B\n",
}


def test_nova_reads_what_the_command_has_written(tmp_path: Path) -> None:
    files = []
    for name, text in NOVA_CONFS.items():
        file = tmp_path / f"{name}.conf"
        file.write_text(text)
        files += ["--write", str(file)]
    ran = command("generate-installation-uuid", "--force", *files)
    assert ran.returncode == 0, ran.stderr
    program = (
        "import sys; from oslo_config import cfg; from relproxy.nova.options import configured\n"
        "for file in sys.argv[1:]:\n"
        "    conf = cfg.ConfigOpts(); conf(['--config-file', file])\n"
        "    print(configured(conf).installation)"
    )
    argv = [str(venvs.ensure("nova") / "bin" / "python"), "-c", program, *files[1::2]]
    read = subprocess.run(argv, capture_output=True, text=True, cwd=TREE, check=False)
    made = ran.stdout.splitlines()[0]
    assert read.stdout.splitlines() == [made] * len(NOVA_CONFS), read.stderr
