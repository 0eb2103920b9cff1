"""The arrows between the rooms, and the sizes at which a room needs a wall (docs/architecture.md).

Every module has a row in `ALLOWED`: a new one is refused until somebody has said where it stands.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "relproxy"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60

# What cross rooms: everyone may import these, but for what their own rows say.
VALUES = ("errors", "messages", "model", "networks")

# Module of relproxy -> what of relproxy it may import; a row `x.*` is for all of a room's modules
# that have none of their own, and a name stands for all that is below it. From bottom to top.
ALLOWED: dict[str, tuple[str, ...]] = {
    "": (),
    "model": (),
    "errors": (),
    "networks": (),
    "messages": ("errors", "networks"),
    "logs": (),
    "account": ("filters.trace", "metrics", *VALUES),
    "tasks": (),
    "vitals": (),
    "metrics": ("__version__", "metric_slots", "vitals"),
    "metric_slots": (),
    "spans": ("__version__", "account", "filters.trace", *VALUES),
    "filters.*": ("filters", *VALUES),
    "identity.*": ("identity.base", *VALUES),
    "identity.keystone": (
        *("config_identity", "identity.base", "identity.token", "identity.token_cache"),
        *("metrics", "tasks", *VALUES),
    ),
    "failpoints": (),
    "store.place": VALUES,
    "store.schema_versions": (),
    "store.*": ("store.base", *VALUES),
    "store.base": ("store.place", *VALUES),
    "store.sqlite_sql": VALUES,
    "store.sqlite_changes": ("store.sqlite_sql", *VALUES),
    "store.sqlite": (
        *("store.base", "store.place", "store.schema_versions", "store.sqlite_changes"),
        *("store.sqlite_sql", *VALUES),
    ),
    "store.sqlite_reader": ("store.schema_versions", "store.sqlite", *VALUES),
    "store.postgres_sql": (),
    "store.postgres_pool": ("store.postgres_sql", "store.schema_versions", "tasks", *VALUES),
    "store.postgres": (
        *("store.base", "store.packing", "store.place", "store.postgres_changes"),
        *("store.postgres_changes_sql", "store.postgres_pool", "store.postgres_sql", *VALUES),
    ),
    "store.postgres_changes": ("store.packing", "store.postgres_changes_sql", *VALUES),
    "store.postgres_changes_sql": ("store.packing", *VALUES),
    "store.journal_disk": (),
    "store.journal_schema": ("store.schema_versions",),
    "store.journal_row": ("store.base", *VALUES),
    "store.journal_owed": ("store.base", "store.journal_row"),
    "store.journal_file": (
        *("store.base", "store.journal_disk", "store.journal_owed", "store.journal_row"),
        *("store.journal_schema", *VALUES),
    ),
    "store.journal_salvage": ("store.journal_disk", "store.journal_file", "store.journal_row"),
    "store.journal_handover": ("store.journal_file", "store.journal_row"),
    "store.journal_room": (
        *("store.journal_disk", "store.journal_file", "store.journal_row"),
        *("store.journal_salvage", "store.journal_schema", *VALUES),
    ),
    "store.journal": (
        *("failpoints", "store.base", "store.journal_file", "store.journal_handover"),
        *("store.journal_owed", "store.journal_row", *VALUES),
    ),
    "store.host_journals": ("store.base", "store.journal_row", "store.journal_room", *VALUES),
    "store.overlay": (
        *("store.base", "store.host_journals", "store.journal_row", "store.place", *VALUES),
    ),
    "store.copying": ("store.base", *VALUES),
    "store.relay": (
        *("failpoints", "metrics", "store.base", "store.journal", "store.journal_row", *VALUES),
    ),
    "store.relayed_journal": ("store.base", "store.journal", "store.relay", *VALUES),
    "store.adoption": (
        *("metrics", "store.journal", "store.journal_handover", "store.journal_row"),
        *("store.journal_room", "store.relay", *VALUES),
    ),
    "config_types": ("filters.target", *VALUES),
    "config_forwarding": ("config_types", *VALUES),
    "config_upstream_tls": ("config_tls", "config_types", *VALUES),
    "config_identity": ("config_tls", "config_types", "config_upstream_tls", *VALUES),
    "config_tls": ("config_types", *VALUES),
    "config_listeners": ("config_tls", "config_types", *VALUES),
    "config_admin": ("config_tls", "config_types", *VALUES),
    "config_tokens": ("config_tls", "config_types", *VALUES),
    "config_concurrency": ("config_types", *VALUES),
    "concurrency": ("config_concurrency", "metrics", *VALUES),
    "config_endpoints": ("config_types", *VALUES),
    "endpoints": ("config_endpoints", "upstream_tls"),
    "config": (
        "config_admin",
        "config_concurrency",
        "config_endpoints",
        "config_forwarding",
        "config_identity",
        "config_listeners",
        "config_types",
        "config_upstream_tls",
        *VALUES,
    ),
    "tls_failures": (),
    "tls_contexts": ("certificates", "config_tls", "config_upstream_tls"),
    "upstream_tls": ("certificates", "config_upstream_tls", "tls_contexts"),
    "config_file": ("config", "config_types", *VALUES),
    "config_warnings": ("certificates", "config", "config_types", *VALUES),
    "stores": (
        *("config", "store.base", "store.postgres", "store.postgres_pool", "store.sqlite"),
        *("store.sqlite_reader", *VALUES),
    ),
    "certificates": ("config", "config_tls", "config_upstream_tls", "tls_failures", *VALUES),
    "unix_sockets": (),
    "sockets": ("certificates", "config", "config_types", "unix_sockets", *VALUES),
    "worker": ("certificates", "sockets"),
    "crew": ("metric_slots", "metrics", "sockets", "tasks", "worker"),
    "supervisor": ("crew", "tasks", *VALUES),
    "systemd": (),
    "reload": (
        *("certificates", "config", "config_file", "config_warnings", "metrics", "sockets"),
        *("systemd", *VALUES),
    ),
    "bodies": ("filters", *VALUES),
    "outgoing": VALUES,
    "unix_endpoints": (),
    "upstream_upload": (),
    "upstream_wire": ("tls_failures", "transports", "unix_endpoints"),
    "upstream": (
        *("account", "config", "config_forwarding", "endpoints", "metrics", "outgoing"),
        *("tls_failures", "transports", "unix_endpoints", "upstream_upload", "upstream_wire"),
        *VALUES,
    ),
    "routing": ("config", "filters", *VALUES),
    "exchange": ("account", "concurrency", "filters", "identity.base", "routing", *VALUES),
    "unsent": VALUES,
    "paging": ("filters", *VALUES),
    "inspection": (
        *("bodies", "config", "exchange", "filters", "store.base", "upstream", *VALUES),
    ),
    "judging": ("exchange", "filters", "inspection", *VALUES),
    "listing": (
        *(
            "bodies",
            "config",
            "exchange",
            "filters",
            "inspection",
            "metrics",
            "paging",
            "store.base",
        ),
        *("upstream", *VALUES),
    ),
    "recording": (
        *("bodies", "config", "exchange", "failpoints", "filters", "metrics", "store.base"),
        *("upstream", *VALUES),
    ),
    "settlement_walk": (),
    "settlement": (
        *("bodies", "config", "filters", "metrics", "settlement_walk", "store.base"),
        "store.host_journals",
        *("store.journal", "store.journal_row", "store.relay", "tasks", "upstream", *VALUES),
    ),
    "explanation": (
        *("config", "filters", "identity.base", "settlement", "store.base"),
        *("store.host_journals", "store.journal_row", "store.overlay", *VALUES),
    ),
    "proxy": (
        *(
            "account",
            "bodies",
            "concurrency",
            "config",
            "exchange",
            "filters",
            "identity.base",
            "inspection",
            "listing",
        ),
        *("judging", "metrics", "recording"),
        *("routing", "shadow", "store.base", "tasks", "unsent", "upstream", *VALUES),
    ),
    "trial": ("exchange", "filters", "metrics", *VALUES),
    "shadow": (
        *("bodies", "config", "exchange", "filters", "identity.base", "inspection", "judging"),
        *("listing", "metrics", "recording", "routing", "tasks", "trial", *VALUES),
    ),
    "arrival": ("filters.proxy_protocol", *VALUES),
    "announcing": (
        "arrival",
        "config",
        "config_listeners",
        "draining",
        "filters.proxy_protocol",
        "metrics",
        *VALUES,
    ),
    "securing": ("arrival", "draining", "metrics", "tasks", "tls_failures"),
    "draining": ("metrics",),
    "transports": (),
    "writing": ("transports",),
    "accepting": ("config", "metrics", "tasks", "transports"),
    "trailers": (),
    "request_heads": (),
    "connections": ("arrival", "request_heads", "draining", "trailers", *VALUES),
    "entrance": ("announcing", "arrival", "securing"),
    "server": (
        *("account", "arrival", "connections", "draining", "entrance", "transports", "writing"),
        *VALUES,
    ),
    "admin.overview": (*("__version__", "config", "metrics", "store.host_journals", *VALUES),),
    "admin.*": (
        *("admin", "arrival", "config_admin", "config_tokens", "explanation", "filters"),
        *("metrics", "store.base"),
        *("store.host_journals", "store.journal_row", "upstream", *VALUES),
    ),
    "app_admin": (
        *("admin", "config", "explanation", "metrics", "store.host_journals", "store.overlay"),
        *VALUES,
    ),
    "keystone": (
        *("bodies", "config_identity", "tasks", "tls_failures", "upstream_tls"),
        *("upstream_wire", *VALUES),
    ),
    "app_identity": (
        *("certificates", "config", "config_identity", "identity", "keystone", "metrics"),
        *("settlement", "upstream_tls", *VALUES),
    ),
    "app_seeing": ("account", "config", "logs", "metrics", "spans", "tasks", *VALUES),
    "app_recording": ("config", "metrics", "store", "stores", *VALUES),
    "app_listeners": (
        *("accepting", "announcing", "arrival", "config", "config_listeners"),
        *("config_tls", "connections", "draining", "entrance", "metrics"),
        *("proxy", "securing", "server", "sockets", "tls_contexts", *VALUES),
    ),
    "app_forwarding": ("config", "filters", *VALUES),
    "health_checks": ("config_endpoints", "endpoints", "upstream"),
    "app_upstreams": (
        "certificates",
        "concurrency",
        "config",
        "endpoints",
        "health_checks",
        "metrics",
        "upstream",
        "upstream_tls",
        *VALUES,
    ),
    "app": (
        *(
            "accepting",
            "admin",
            "app_admin",
            "app_forwarding",
            "app_identity",
            "app_recording",
            "app_listeners",
            "app_seeing",
            "app_upstreams",
            "app_walks",
            "certificates",
            "config",
            "config_identity",
            "draining",
            "explanation",
            "filters",
            "health_checks",
            "identity.base",
            "metrics",
            "proxy",
            "recording",
        ),
        *("recording", "registry_walk", "routing", "server", "settlement", "sockets", "store"),
        *("stores", "tasks", "upstream", "walking"),
        *VALUES,
    ),
    "pace": (),
    "owner_list": ("filters", *VALUES),
    "registry_walk": ("filters", "pace", "settlement", *VALUES),
    "walk_file": ("owner_list", *VALUES),
    "walking": (
        *("config", "failpoints", "filters", "registry_walk", "store.base"),
        *("store.host_journals", "store.journal", "store.journal_row", "walk_file", *VALUES),
    ),
    "importing": ("walk_file", "walking", *VALUES),
    "reconciling": ("store.base", "store.journal_row", "walk_file", "walking", *VALUES),
    "app_walks": ("config", "store.base", "store.journal_room", "stores", *VALUES),
    "cli.verbs": VALUES,
    "cli.progress": (),
    "cli.walk": (
        *("app_walks", "cli.progress", "config", "config_file", "filters", "logs", "walk_file"),
        *("walking", *VALUES),
    ),
    "cli.importing": (
        *("app", "app_walks", "cli.walk", "config", "importing", "owner_list", "walk_file"),
        *VALUES,
    ),
    "cli.reconcile": (
        *("app", "app_walks", "cli.walk", "config", "reconciling", "store.journal_row"),
        *("walk_file", *VALUES),
    ),
    "cli.journal": (
        *(
            "admin.journal",
            "cli.verbs",
            "config_file",
            "store.base",
            "store.journal",
            "store.journal_file",
            "store.journal_handover",
            "store.journal_row",
            "store.journal_schema",
        ),
        *("store.journal_room", *VALUES),
    ),
    "cli.explain": (*("admin.explain", "app", "cli.verbs", "config_file", "explanation", *VALUES),),
    "alone": ("accepting", "app", "config", "logs", "metrics", "sockets", "tasks", "worker"),
    "cli.serve": (
        *("accepting", "alone", "app", "certificates", "config", "config_file", "crew", "logs"),
        *("metric_slots", "metrics", "reload", "sockets", "supervisor", "systemd", "tasks"),
        *("worker", *VALUES),
    ),
    "cli.store": ("app_recording", "cli.verbs", "config_file", "store.copying", "stores", *VALUES),
    "cli.nova_conf": VALUES,
    "cli.relproxy_yaml": VALUES,
    "cli.replacement": VALUES,
    "cli.generate_installation_uuid": (
        *("cli.nova_conf", "cli.relproxy_yaml", "cli.replacement", "cli.verbs", "config", *VALUES),
    ),
    "cli.check": (
        *("certificates", "cli.verbs", "config", "config_file", "config_warnings", "sockets"),
        *VALUES,
    ),
    "cli.*": ("app", "cli.verbs", "config", "config_file", "logs", "stores", *VALUES),
    "__main__": ("__version__", "cli"),
    # In another process, Nova's, without the packages that the rest needs; nobody above names it.
    "nova.identification": (),
    "nova.options": ("nova.identification",),
    "nova.image_service": ("nova.identification",),
    "nova.switch": ("nova.identification", "nova.image_service", "nova.options"),
    "nova.osapi_compute": ("nova.switch",),
    "nova": (),
}

# Other people's package -> the modules that may import it.
DRIVERS: dict[str, frozenset[str]] = {
    "aiosqlite": frozenset({"store.sqlite", "store.sqlite_changes", "store.sqlite_reader"}),
    "asyncpg": frozenset({"store.postgres", "store.postgres_changes", "store.postgres_pool"}),
    "pydantic": frozenset(
        {
            "config_concurrency",
            "config",
            "config_admin",
            # What a name and a UUID may be, in the words of the configuration.
            "cli.generate_installation_uuid",
            "config_tokens",
            "config_endpoints",
            "config_file",
            "config_forwarding",
            "config_identity",
            "config_listeners",
            "config_tls",
            "config_types",
            "config_upstream_tls",
        }
    ),
    "pydantic_core": frozenset({"config", "config_file"}),
    "cryptography": frozenset({"certificates"}),
    "opentelemetry": frozenset({"spans"}),
    "prometheus_client": frozenset({"metric_slots", "metrics", "admin.listener"}),
    "nova": frozenset({"nova.image_service", "nova.osapi_compute", "nova.switch"}),
    "oslo_config": frozenset({"nova.options"}),
}
# What a Nova's environment has besides Nova: the standard library, and what Nova itself needs.
NOVAS = frozenset({"nova", "oslo_config", *sys.stdlib_module_names})
# The flow speaks in values, not in one server's or one client's classes.
FLOW = frozenset(
    {"proxy", "recording", "settlement", "listing", "inspection", "judging", "paging", "exchange"}
    | {"routing", "shadow", "trial"}
)
FLOW_NEVER = frozenset({"aiohttp", "aiosqlite", "asyncpg"})
# What filters/ decides is decided on values alone: no I/O, no waiting.
PURE_NEVER = FLOW_NEVER | {"asyncio", "socket", "sqlite3", "ssl", "threading"}


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: {node.lineno}: imports are absolute here"
            module = node.module or ""
            is_package = (PACKAGE.parent / module.replace(".", "/")).is_dir()
            yield from (f"{module}.{a.name}" if is_package else module for a in node.names)


def ours(file: Path) -> set[str]:
    prefix = "relproxy."
    return {i.removeprefix(prefix) for i in imports_of(file) if i.startswith(prefix)}


def others(file: Path) -> set[str]:
    return {i.partition(".")[0] for i in imports_of(file) if i.partition(".")[0] != "relproxy"}


def row_of(name: str) -> tuple[str, ...] | None:
    if name in ALLOWED:
        return ALLOWED[name]
    return ALLOWED.get(f"{name.partition('.')[0]}.*")


def is_below(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(f"{allowed}.")


each_module = pytest.mark.parametrize("file", MODULES, ids=lambda f: name_of(f) or "relproxy")


@each_module
def test_module_imports_only_what_stands_below_it(file: Path) -> None:
    row = row_of(name_of(file))
    assert row is not None, f"{name_of(file)} has no row in ALLOWED: say where it stands"
    upward = {i for i in ours(file) if not any(is_below(i, allowed) for allowed in row)}
    assert not upward, f"{name_of(file)} may not import {sorted(upward)}"


@each_module
def test_module_imports_no_driver_of_another_room(file: Path) -> None:
    name = name_of(file)
    foreign = {p for p in others(file) if p in DRIVERS and name not in DRIVERS[p]}
    assert not foreign, f"{name} may not import {sorted(foreign)}"


@each_module
def test_flow_and_filters_know_no_server_client_or_database(file: Path) -> None:
    name = name_of(file)
    if name in FLOW:
        assert not others(file) & FLOW_NEVER
    if is_below(name, "filters"):
        assert not others(file) & PURE_NEVER


@each_module
def test_what_runs_inside_nova_needs_nothing_that_nova_lacks(file: Path) -> None:
    if is_below(name_of(file), "nova"):
        assert others(file) <= NOVAS


@each_module
def test_module_is_short_enough_to_be_read(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES


@each_module
def test_functions_are_short_enough_to_be_read(file: Path) -> None:
    long = [
        f"{node.name}: {lines} lines"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize("file", [f for f in MODULES if f.name == "__init__.py"], ids=name_of)
def test_init_files_hold_a_docstring_and_nothing_else(file: Path) -> None:
    docstring, *rest = ast.parse(file.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)
    if file.parent == PACKAGE:
        rest = [node for node in rest if not _is_version(node)]
    assert [ast.unparse(node) for node in rest] == []


def _is_version(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"


def test_flow_names_modules_that_exist() -> None:
    assert {name_of(file) for file in MODULES} >= FLOW
