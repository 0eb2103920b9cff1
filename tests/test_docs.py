"""What docs/ has to name: a setting, metric, error, log event, path or word left out fails."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from relproxy.account import Account
from relproxy.config import Configuration
from relproxy.config_file import load_configuration
from relproxy.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "relproxy"
SETTINGS = ROOT / "config" / "relproxy.yaml"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

# The words of DESIGN.md, section 2, and those that this code needs besides.
WORDS = (
    *("registry", "endpoint", "upstream", "downstream", "installation", "instance", "project"),
    *("caller", "capture", "journal", "entry", "relay", "store", "record", "dialect", "treatment"),
    *("page", "in doubt"),
    *("vouched", "claimed", "walk", "merge", "budget", "tenancy", "access"),
)

_SUFFIX = {"Counter": "_total", "Info": "_info"}
_LOG_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def source_of(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


def calls_in(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call with the last part of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2], node


# -- (a) every setting, with its default


def settings_of(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted path of each setting; the items of a list share one."""
    for name, field in model.model_fields.items():
        section = section_in(field.annotation)
        if section is None:
            yield f"{path}{name}", field
        else:
            yield from settings_of(section, f"{path}{name}.")


def section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    items = getattr(annotation, "__args__", ())
    return section_in(items[0]) if items else None


def written_in(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of everything that the file sets."""
    for name, value in tree.items():
        items = value if isinstance(value, list) else [value]
        sections = [item for item in items if isinstance(item, dict)]
        if not sections:
            yield f"{path}{name}", value
        for section in sections:
            yield from written_in(section, f"{path}{name}.")


def plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


# Of these one excludes the other, so no file can show the defaults of both.
ALTERNATIVES = re.compile(
    r".*\.credentials\.(username|project|password_file|application_credential_\w+)"
)

EVERY_SETTING = dict(settings_of(Configuration))
WRITTEN = list(written_in(yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("path", EVERY_SETTING)
def test_example_configuration_shows_every_setting_with_its_default(path: str) -> None:
    written = [value for name, value in WRITTEN if name == path]
    assert written, f"config/relproxy.yaml doesn't set {path}"
    field = EVERY_SETTING[path]
    if field.is_required():
        return
    is_in_list = path.partition(".")[0] in {"listeners", "installations", "registries", "routes"}
    shown = written if is_in_list else written[:1]
    assert plain(field.get_default()) in shown or ALTERNATIVES.fullmatch(path)


@pytest.mark.parametrize("path", EVERY_SETTING)
def test_every_setting_is_described_in_the_code(path: str) -> None:
    assert EVERY_SETTING[path].description


def test_example_configuration_is_in_the_order_of_the_code() -> None:
    assert list(dict.fromkeys(name for name, _ in WRITTEN)) == list(EVERY_SETTING)


def test_example_configuration_explains_every_setting() -> None:
    lines = SETTINGS.read_text(encoding="utf-8").splitlines()
    explained = {
        line.strip().removeprefix("- ").partition(":")[0]
        for above, line in itertools.pairwise(lines)
        if above.strip().lstrip("- ").startswith("#")
    }
    assert {path.rpartition(".")[2] for path in EVERY_SETTING} <= explained


def test_example_configuration_loads_and_shows_both_tenancies() -> None:
    configuration = load_configuration(SETTINGS)
    assert {registry.tenancy.value for registry in configuration.registries} == {
        "registry",
        "relproxy",
    }
    assert len(configuration.routes) >= 2


# -- (b) what operators meet is in docs/operations.md


def metrics() -> dict[str, tuple[str, ...]]:
    """Return metric name, as Prometheus shows it -> its labels."""
    found = {}
    for kind, call in calls_in(source_of("metrics.py")):
        if kind in {"Counter", "Gauge", "Histogram", "Info"}:
            labels = next((ast.literal_eval(a) for a in call.args if isinstance(a, ast.Tuple)), ())
            found[f"{ast.literal_eval(call.args[0])}{_SUFFIX.get(kind, '')}"] = labels
    return found


def error_classes() -> list[str]:
    return [n.name for n in source_of("errors.py").body if isinstance(n, ast.ClassDef)]


def admin_paths() -> list[str]:
    return [
        ast.literal_eval(call.args[0])
        for name, call in calls_in(source_of("admin/listener.py"))
        if name.startswith("add_")
    ]


def log_events() -> list[str]:
    events = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for name, call in calls_in(ast.parse(file.read_text(encoding="utf-8"))):
            if not ast.unparse(call.func).startswith("_LOG."):
                continue
            assert name in {*_LOG_LEVELS, "log"}, f"{file}: _LOG.{name}"
            message = call.args[1 if name == "log" else 0]
            assert isinstance(message, ast.Constant), f"{file}: {message.lineno}: not constant"
            events.append(str(message.value))
    return events


@pytest.mark.parametrize(("name", "labels"), metrics().items(), ids=metrics())
def test_operations_explains_every_metric_with_its_labels(
    name: str, labels: tuple[str, ...]
) -> None:
    rows = [r for r in text_of("docs/operations.md").splitlines() if r.startswith(f"| `{name}` |")]
    assert len(rows) == 1, f"docs/operations.md has no row for {name}"
    assert [label for label in labels if f"`{label}`" not in rows[0]] == []


def test_metrics_read_from_the_source_are_all_there_are() -> None:
    suffixes = {kind.lower(): suffix for kind, suffix in _SUFFIX.items()}
    families = Metrics().collectors.collect()
    assert {f"{f.name}{suffixes.get(f.type, '')}" for f in families} == set(metrics())


@pytest.mark.parametrize(
    "name", [*error_classes(), *admin_paths(), *dict.fromkeys(log_events())], ids=str
)
def test_operations_names_every_error_admin_path_and_log_event(name: str) -> None:
    assert f"`{name}`" in text_of("docs/operations.md")


@pytest.mark.parametrize("field", Account().told())
def test_operations_explains_every_field_of_the_access_log(field: str) -> None:
    _, section = text_of("docs/operations.md").split("### The access log\n")
    rows = section.partition("\n## ")[0].splitlines()
    assert any(row.startswith("| `") and f"`{field}`" in row.split("|")[1] for row in rows)


# -- (c) words


@pytest.mark.parametrize("word", WORDS)
def test_vocabulary_has_the_word(word: str) -> None:
    assert f"**{word}**" in text_of("docs/vocabulary.md")


# -- (d) links


def links_in(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file and the heading (or nothing) that each link to a file leads to."""
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        name, _, heading = target.partition("#")
        if not re.match(r"[a-z]+:", name):
            yield (page.parent / name if name else page), heading


def headings_of(page: Path) -> set[str]:
    """Return the headings of a page as links name them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for file, heading in links_in(page):
        assert file.exists()
        assert not heading or heading in headings_of(file), f"{file} has no heading {heading}"


def test_pages_that_the_code_refers_to_exist() -> None:
    named = {
        name
        for file in (*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.sql"))
        for name in re.findall(r"docs/[\w/.-]+\.md", file.read_text(encoding="utf-8"))
    }
    assert [name for name in named if not (ROOT / name).exists()] == []


# -- (e) the two commands that a fresh machine needs


def test_readme_opens_with_the_two_commands() -> None:
    _, block, *_ = text_of("README.md").split("```")
    commands = [line.partition("#")[0].strip() for line in block.splitlines()[1:]]
    assert [command for command in commands if command] == ["make demo", "make test"]


def test_configuration_in_the_readme_loads(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text_of("README.md"), re.DOTALL | re.MULTILINE)
    file = tmp_path / "relproxy.yaml"
    file.write_text(block, encoding="utf-8")
    assert load_configuration(file).registries


def test_pages_name_no_path_of_the_machine_that_wrote_them() -> None:
    assert [str(p) for p in PAGES if re.search(r"/work/|/tmp/|/home/", p.read_text())] == []


@pytest.mark.parametrize("page", ["docs/security.md", "docs/http.md"])
def test_a_page_names_tests_that_exist(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", text_of(page)))
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = {name for text in sources for name in re.findall(r"def (test_\w+)", text)}
    assert len(named) > 30
    assert named <= there, named - there


def test_every_line_about_http_names_its_test() -> None:
    rows = [row for row in text_of("docs/http.md").splitlines() if row.startswith("| ")]
    heads = [row for row in rows if row.endswith("| test |")]
    assert len(heads) == 8
    assert [row for row in rows if "`test_" not in row and row not in heads] == []
