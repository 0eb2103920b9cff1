"""What config/ holds for those who deploy: it has to be what relproxy, and the others, take.

The other programs' own checks run where they are installed, and are skipped where they aren't
(`make verify-fronts` installs HAProxy and nginx).
"""

from __future__ import annotations

import configparser
import fnmatch
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from relproxy import __version__
from relproxy.__main__ import main
from relproxy.cli import migrate, serve
from relproxy.config_file import load_configuration
from relproxy.config_tokens import parse_tokens
from relproxy.config_warnings import warnings

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config"
KUBERNETES = CONFIG / "kubernetes"
UNIT = CONFIG / "systemd" / "relproxy.service"
DOCKERFILE = CONFIG / "container" / "Dockerfile"
# Grafana's and Prometheus' are others' business, and so is what no deployment is.
YAMLS = sorted(CONFIG.rglob("*.yaml"))
CONFIGURATIONS = sorted(CONFIG.rglob("relproxy.yaml"))


def documents() -> dict[str, Any]:
    """Return the objects for Kubernetes by kind and name."""
    found = {}
    for file in sorted(KUBERNETES.glob("*.yaml")):
        for each in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            name = each.get("metadata", {}).get("name", file.stem)
            found[f"{each['kind']}/{name}"] = each
    return found


OBJECTS = documents()
PODS = {
    name: each["spec"]["template"]["spec"]
    for name, each in OBJECTS.items()
    if "template" in each.get("spec", {})
}


def run(*argv: str) -> str:
    """Return what a program says about a file; fail if it doesn't like it, skip without it."""
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed here")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def takes(arguments: list[str]) -> None:
    """Have the command line read, and nothing run."""
    with patch.object(serve, "run", return_value=0), patch.object(migrate, "_migrate"):
        assert main(arguments) == 0


# -- configurations


@pytest.mark.parametrize("file", YAMLS, ids=lambda file: str(file.relative_to(CONFIG)))
def test_every_yaml_can_be_read(file: Path) -> None:
    assert all(yaml.safe_load_all(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: file.parent.name)
def test_every_configuration_is_one_without_a_warning(file: Path) -> None:
    configuration = load_configuration(file)
    if file.parent != CONFIG:
        assert list(warnings(configuration)) == []


@pytest.fixture
def in_kubernetes(tmp_path: Path) -> Path:
    file = tmp_path / "relproxy.yaml"
    file.write_text(OBJECTS["ConfigMap/relproxy"]["data"]["relproxy.yaml"], encoding="utf-8")
    return file


def test_configuration_in_the_config_map_is_one_without_a_warning(in_kubernetes: Path) -> None:
    assert list(warnings(load_configuration(in_kubernetes))) == []


@pytest.mark.parametrize("page", ["docs/operations.md"])
def test_settings_that_a_page_shows_are_known(page: str, in_kubernetes: Path) -> None:
    """Fragments: each is put into a whole configuration in the place of what it has."""
    whole = yaml.safe_load(in_kubernetes.read_text(encoding="utf-8"))
    blocks = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    fragments = [yaml.safe_load(block) for block in blocks]
    assert fragments
    for fragment in fragments:
        if isinstance(fragment, list):  # The file of the admin listener's tokens.
            assert parse_tokens(yaml.safe_dump(fragment), page)
            continue
        in_kubernetes.write_text(yaml.safe_dump(whole | fragment), encoding="utf-8")
        load_configuration(in_kubernetes)


# -- systemd


def directives() -> Iterator[tuple[str, str]]:
    """Yield each directive of the unit; some stand there twice."""
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if re.match(r"#?[A-Z]\w+=", line):
            name, _, value = line.lstrip("#").partition("=")
            yield name, value


def test_unit_has_only_directives_that_systemd_knows_and_exposes_little(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    here = re.sub(r"/opt/relproxy/bin/relproxy", "/bin/true", text)
    unit = tmp_path / "relproxy.service"
    unit.write_text(
        re.sub(r"^#(LoadCredential)", r"\1", here, flags=re.MULTILINE), encoding="utf-8"
    )
    assert run("systemd-analyze", "verify", str(unit)) == ""
    # Of 10, and in tenths: 1.2 when this was written.
    run("systemd-analyze", "security", "--offline=true", "--threshold=15", str(unit))


def test_unit_is_of_one_that_notifies_reloads_and_is_not_started_again_in_vain() -> None:
    found = dict(directives())
    assert found["Type"] == "notify"
    assert found["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert found["RestartPreventExitStatus"] == "78"
    assert found["KillMode"] == "mixed"
    assert found["DynamicUser"] == found["NoNewPrivileges"] == "yes"
    assert (found["ProtectSystem"], found["StateDirectory"]) == ("strict", "relproxy")
    assert found["CapabilityBoundingSet"] == ""
    assert int(found["LimitNOFILE"]) >= 65536


def test_unit_starts_a_command_that_relproxy_knows() -> None:
    program, *arguments = dict(directives())["ExecStart"].split()
    assert (
        Path(program).name
        in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    )
    takes(arguments)


def test_state_directory_of_the_unit_is_where_the_defaults_point() -> None:
    directory = Path("/var/lib") / dict(directives())["StateDirectory"]
    defaults = load_configuration(CONFIG / "relproxy.yaml")
    assert defaults.journal.directory.parent == defaults.store.path.parent == directory


@pytest.mark.parametrize("file", [UNIT, KUBERNETES / "statefulset.yaml"], ids=lambda f: f.name)
def test_a_drain_has_time_enough(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    found = re.findall(r"(?:TimeoutStopSec=|terminationGracePeriodSeconds: )(\d+)", text)
    timeouts = load_configuration(CONFIG / "relproxy.yaml").timeouts
    margin_s = serve._DRAIN_MARGIN_S  # noqa: SLF001
    notice_s = getattr(timeouts, "notice_s", 0)
    assert [int(seconds) > notice_s + 2 * timeouts.shutdown_s + margin_s for seconds in found] == [
        True
    ]


# -- container


def instructions() -> list[tuple[str, str]]:
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def test_image_is_made_in_two_stages_and_does_not_run_as_root() -> None:
    names = [name for name, _ in instructions()]
    assert names.count("FROM") == 2
    last = instructions()[max(i for i, name in enumerate(names) if name == "FROM") :]
    users = [rest for name, rest in last if name == "USER"]
    assert users == ["10001:10001"]
    assert "HEALTHCHECK" in dict(last)
    # One would hide that a journal is about to be lost with its container.
    assert "VOLUME" not in names
    assert not any(name == "RUN" and "pip" in rest for name, rest in last)


def test_image_copies_what_there_is_and_installs_what_the_project_has() -> None:
    kept = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists()
                assert f"!{source}" in kept
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"\.\[(.+?)\]", DOCKERFILE.read_text())
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (wanted,) = set(re.findall(r"^FROM python:(3\.\d+)", DOCKERFILE.read_text(), re.MULTILINE))
    assert any(wanted in each for each in project["classifiers"])
    assert (ROOT / project["readme"]).exists()


def test_image_runs_a_command_that_relproxy_knows() -> None:
    found = dict(instructions())
    assert yaml.safe_load(found["ENTRYPOINT"]) == ["relproxy"]
    takes(yaml.safe_load(found["CMD"]))


def test_everything_that_the_package_reads_is_installed_with_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["relproxy"]
    package = ROOT / "relproxy"
    others = [
        str(file.relative_to(package))
        for file in package.rglob("*")
        if file.is_file() and file.suffix not in {".py", ".pyc"}
    ]
    assert "admin/page.html" in others
    assert [o for o in others if not any(fnmatch.fnmatch(o, p) for p in patterns)] == []


# -- Kubernetes


@pytest.mark.parametrize("name", PODS)
def test_pod_runs_as_nobody_and_writes_nowhere_but_in_its_volumes(name: str) -> None:
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"] == f"relproxy:{__version__}"
    takes(container["args"])


@pytest.mark.parametrize("name", PODS)
def test_pod_mounts_volumes_that_there_are(name: str, in_kubernetes: Path) -> None:
    claims = OBJECTS[name]["spec"].get("volumeClaimTemplates", [])
    there = {each["metadata"]["name"] for each in claims}
    for volume in PODS[name]["volumes"]:
        there.add(volume["name"])
        if "configMap" in volume:
            assert f"ConfigMap/{volume['configMap']['name']}" in OBJECTS
        if "secret" in volume:
            assert f"Secret/{volume['secret']['secretName']}" in OBJECTS
    mounts = {m["mountPath"]: m["name"] for m in PODS[name]["containers"][0]["volumeMounts"]}
    assert set(mounts.values()) == there
    configuration = load_configuration(in_kubernetes)
    if claims:
        assert mounts[str(configuration.journal.directory.parent)] == "journal"
    secret = OBJECTS["Secret/relproxy"]["stringData"]
    assert configuration.store.password_file is not None
    assert mounts[str(configuration.store.password_file.parent)] == "secrets"
    assert configuration.store.password_file.name in secret


def test_labels_and_ports_meet(in_kubernetes: Path) -> None:
    stateful = OBJECTS["StatefulSet/relproxy"]["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    assert stateful["selector"]["matchLabels"] == labels
    assert OBJECTS["PodDisruptionBudget/relproxy"]["spec"]["selector"]["matchLabels"] == labels
    assert f"Service/{stateful['serviceName']}" in OBJECTS
    ports = {
        port["name"]: port["containerPort"]
        for port in PODS["StatefulSet/relproxy"]["containers"][0]["ports"]
    }
    for name in ("relproxy", stateful["serviceName"]):
        service = OBJECTS[f"Service/{name}"]["spec"]
        assert service["selector"] == labels
        assert [port["targetPort"] in ports for port in service["ports"]] == [True]
    (listener,) = load_configuration(in_kubernetes).listeners
    assert listener.bind == f"0.0.0.0:{ports['http']}"


def test_kustomization_names_files_that_there_are() -> None:
    assert all(
        (KUBERNETES / name).exists() for name in OBJECTS["Kustomization/kustomization"]["resources"]
    )
    run("kubectl", "kustomize", str(KUBERNETES))


# -- fronts, as they check themselves; tests/integration/test_fronts.py sends requests through them


def test_haproxy_takes_its_configuration() -> None:
    run("haproxy", "-c", "-f", str(CONFIG / "haproxy" / "haproxy.cfg"))


def test_haproxy_takes_the_services_for_kolla() -> None:
    main_file = CONFIG / "haproxy" / "haproxy.cfg"
    run("haproxy", "-c", "-f", str(main_file), "-f", str(CONFIG / "kolla" / "relproxy.cfg"))


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    file = CONFIG / "nginx" / "nginx.conf"
    log = str(tmp_path / "error.log")
    run("nginx", "-t", "-q", "-p", str(tmp_path), "-e", log, "-c", str(file))


@pytest.mark.parametrize("file", ["haproxy/haproxy.cfg", "nginx/nginx.conf", "kolla/relproxy.cfg"])
def test_fronts_wait_longer_than_relproxy_does(file: str) -> None:
    text = (CONFIG / file).read_text(encoding="utf-8")
    found = re.findall(r"(?:timeout server|proxy_read_timeout)\s+(\d+)([sh])", text)
    assert found
    read_s = load_configuration(CONFIG / "relproxy.yaml").timeouts.read_s
    assert all(int(n) * {"s": 1, "h": 3600}[unit] > read_s for n, unit in found)


def test_nova_of_kolla_asks_where_kollas_haproxy_listens() -> None:
    nova = configparser.ConfigParser()
    nova.read(CONFIG / "kolla" / "nova.conf")
    (bind,) = re.findall(r"bind (\S+)", (CONFIG / "kolla" / "relproxy.cfg").read_text())
    assert nova["glance"]["api_servers"] == f"http://{bind}"
