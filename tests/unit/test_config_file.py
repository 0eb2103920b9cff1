from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from relproxy.config_file import load_configuration
from relproxy.config_warnings import warnings
from relproxy.errors import ConfigurationError
from tests.unit.given import OTHER_UUID, UUID

# Its lines are counted in the tests below.
FINE = """\
listeners:
  - name: public
    bind: 127.0.0.1:9292
store:
  path: /var/lib/relproxy/relproxy.db
registries:
  - name: main
    tenancy: relproxy
    endpoints: [http://127.0.0.1:9191]
routes:
  - name: all
    registry: main
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relproxy.yaml"


def problems(file: Path, text: str | bytes) -> list[str]:
    """Return the problems of a configuration, each without the file's name."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError) as failure:
        load_configuration(file)
    found = failure.value.problems
    assert all(problem.startswith(f"{file}:") for problem in found)
    assert not any("\n" in problem for problem in found)
    return [problem.removeprefix(f"{file}:").lstrip() for problem in found]


def with_route(*settings: str) -> str:
    return FINE + "".join(f"    {setting}\n" for setting in settings)


def test_a_good_file_is_a_configuration(file: Path) -> None:
    file.write_text(FINE + "identity: {trusted_networks: [192.0.2.0/24, '2001:db8::/32']}\n")

    configuration = load_configuration(file)

    assert configuration.routes[0].registry == "main"
    assert configuration.identity.trusted_networks == (
        ip_network("192.0.2.0/24"),
        ip_network("2001:db8::/32"),
    )


def test_an_installation_is_kept_canonical(file: Path) -> None:
    spelled = UUID.replace("-", "").upper()
    file.write_text(
        with_route("installation: nova") + f"installations: [{{name: nova, uuid: {spelled}}}]\n"
    )

    configuration = load_configuration(file)

    assert configuration.installation_of(configuration.routes[0]) == UUID


def test_anchors_and_merge_keys_are_no_repetition(file: Path) -> None:
    file.write_text(
        FINE.partition("routes:")[0]
        + "routes:\n"
        + "  - &east {name: east, registry: main, host: east.example}\n"
        + "  - {<<: *east, name: west, host: west.example}\n"
    )

    assert [route.name for route in load_configuration(file).routes] == ["east", "west"]


def test_two_merges_in_one_mapping_are_no_repetition(file: Path) -> None:
    file.write_text(
        FINE.partition("routes:")[0]
        + "routes:\n"
        + "  - &east {name: east, registry: main, host: east.example}\n"
        + "  - &below {name: below, registry: main, host: b.example, path_prefix: /below}\n"
        + "  - {<<: *east, <<: *below, name: both, host: c.example}\n"
    )

    assert [route.name for route in load_configuration(file).routes] == ["east", "below", "both"]


# -- files that are none


def test_a_file_that_is_not_there_is_one_problem(file: Path) -> None:
    with pytest.raises(ConfigurationError) as failure:
        load_configuration(file)

    assert failure.value.problems == (f"{file}: can't be read: No such file or directory.",)


def test_a_directory_is_one_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as failure:
        load_configuration(tmp_path)

    assert failure.value.problems == (f"{tmp_path}: can't be read: Is a directory.",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(b"\xff\xfea\x00", "can't be read: it is not UTF-8.", id="not UTF-8"),
        pytest.param("", "should be a mapping of settings.", id="an empty file"),
        pytest.param("# nothing\n", "should be a mapping of settings.", id="only a comment"),
        pytest.param("- a\n", "should be a mapping of settings.", id="a list"),
        pytest.param("relproxy\n", "should be a mapping of settings.", id="a word"),
    ],
)
def test_a_file_without_settings_is_one_problem(
    file: Path, text: str | bytes, problem: str
) -> None:
    assert problems(file, text) == [problem]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        pytest.param(FINE + "log: [\n", "14:1: ", id="an open bracket"),
        pytest.param(FINE + "log:\n\tlevel: INFO\n", "14:1: ", id="a tab"),
        pytest.param(FINE + "log: a: b\n", "13:7: ", id="two colons"),
        pytest.param(FINE + "---\nlog: {}\n", "13:1: ", id="two documents"),
        pytest.param(FINE + "log: *level\n", "13:6: ", id="an alias of nothing"),
        pytest.param(FINE + "log: !!python/name:os.system\n", "13:6: ", id="a Python object"),
        pytest.param(FINE + "? [a, b]\n: c\n", "13:3: ", id="a list as a key"),
        pytest.param(FINE + "log: 2026-13-45\n", "", id="a date that is none"),
        pytest.param(FINE + "log: a\x00b\n", "", id="a NUL"),
    ],
)
def test_a_file_that_is_not_yaml_is_one_problem_with_its_place(
    file: Path, text: str, where: str
) -> None:
    (problem,) = problems(file, text)

    assert problem.startswith(f"{where}is not YAML: ")


def test_a_file_that_contains_itself_is_a_problem(file: Path) -> None:
    assert problems(file, FINE + "log: &log {level: *log}\n")


# -- single settings


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param(
            "listner: []", "13: listner: is not a setting; did you mean 'listeners'?.", id="on top"
        ),
        pytest.param(
            "limits: {max_page_bites: 5}",
            "13: limits.max_page_bites: is not a setting; did you mean 'max_page_bytes'?.",
            id="in a section",
        ),
        pytest.param(
            "log: {colour: red}",
            "13: log.colour: is not a setting; known here: access, level, spans.",
            id="like nothing else",
        ),
    ],
)
def test_a_setting_that_is_none_is_told_with_a_suggestion(
    file: Path, line: str, problem: str
) -> None:
    assert problems(file, f"{FINE}{line}\n") == [problem]


def test_a_setting_that_is_none_is_found_in_a_list(file: Path) -> None:
    assert problems(file, with_route("path_prefx: /east")) == [
        "13: routes[0].path_prefx: is not a setting; did you mean 'path_prefix'?."
    ]


def test_a_setting_that_is_missing_is_told(file: Path) -> None:
    text = FINE.replace("    registry: main\n", "")

    assert problems(file, text) == ["11: routes[0].registry: is required."]


@pytest.mark.parametrize(
    ("line", "where"),
    [
        pytest.param("limits: {max_page_bytes: many}", "limits.max_page_bytes", id="a word"),
        pytest.param("limits: {max_page_bytes: 1.5}", "limits.max_page_bytes", id="a fraction"),
        pytest.param("limits: {max_page_bytes: 0}", "limits.max_page_bytes", id="zero"),
        pytest.param("limits: {max_page_bytes: yes}", "limits.max_page_bytes", id="a yes"),
        pytest.param("limits: {max_page_bytes: }", "limits.max_page_bytes", id="nothing"),
        pytest.param("limits: {max_page_bytes: [5]}", "limits.max_page_bytes", id="a list"),
        pytest.param("limits: 5", "limits", id="a number for a section"),
        pytest.param("limits:", "limits", id="nothing for a section"),
        pytest.param("timeouts: {read_s: fast}", "timeouts.read_s", id="a word for seconds"),
        pytest.param("timeouts: {read_s: 5s}", "timeouts.read_s", id="a unit"),
        pytest.param("timeouts: {read_s: .nan}", "timeouts.read_s", id="not a number"),
        pytest.param("log: {level: info}", "log.level", id="a level in small letters"),
        pytest.param("identity: {admin_roles: admin}", "identity.admin_roles", id="no list"),
        pytest.param("identity: {admin_roles: [5]}", "identity.admin_roles[0]", id="a number"),
        pytest.param("identity: {provider: keyston}", "identity.provider", id="no provider"),
        pytest.param("admin: {bind: 9393}", "admin.bind", id="only a port"),
        pytest.param("admin: {bind: '0.0.0.0:9393'}", "admin.bind", id="admin for everyone"),
        pytest.param("admin: {bind: 'localhost:²'}", "admin.bind", id="an odd digit"),
        pytest.param(
            "metadata_headers: {instance: X_Nova}", "metadata_headers.instance", id="underscores"
        ),
    ],
)
def test_a_value_of_another_kind_is_one_problem_at_its_setting(
    file: Path, line: str, where: str
) -> None:
    (problem,) = problems(file, f"{FINE}{line}\n")

    assert problem.startswith(f"13: {where}: ")


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("identity: {trusted_networks: [192.0.2.1/24]}", "identity.trusted_networks[0]"),
        ("identity: {trusted_networks: [192.0.2.0/24, nova]}", "identity.trusted_networks[1]"),
        ("trusted_sources: {networks: ['2001:db8::1/32']}", "trusted_sources.networks[0]"),
        ("trusted_sources: {networks: [192.0.2.0/33]}", "trusted_sources.networks[0]"),
    ],
)
def test_a_network_with_host_bits_is_one_problem_at_its_setting(
    file: Path, line: str, where: str
) -> None:
    (problem,) = problems(file, f"{FINE}{line}\n")

    assert problem.startswith(f"13: {where}: should be a network such as 10.0.0.0/8")


def test_a_network_of_a_route_is_one_problem_at_its_setting(file: Path) -> None:
    (problem,) = problems(file, with_route("network: 192.0.2.1/24"))

    assert problem.startswith("13: routes[0].network: should be a network such as 10.0.0.0/8")
    assert "192.0.2.1/24" in problem


@pytest.mark.parametrize(
    "prefix", ["/", "east", "/east/", "//east", "/%65ast", "'/ea st'", "/..", "/öst", "'/east#a'"]
)
def test_a_prefix_that_is_no_path_is_one_problem_at_its_setting(file: Path, prefix: str) -> None:
    (problem,) = problems(file, with_route(f"path_prefix: {prefix}"))

    assert problem.startswith("13: routes[0].path_prefix: ")


@pytest.mark.parametrize(
    "endpoint", ["127.0.0.1:9191", "http://g:99999", "http://g/v2", "'http://g:9191?'", "5"]
)
def test_an_endpoint_that_is_no_address_is_one_problem_at_its_setting(
    file: Path, endpoint: str
) -> None:
    (problem,) = problems(file, FINE.replace("http://127.0.0.1:9191", endpoint))

    assert problem.startswith("9: registries[0].endpoints[0]: ")


def test_a_value_that_is_long_is_cut(file: Path) -> None:
    (problem,) = problems(file, f"{FINE}log: {{level: {'x' * 1000}}}\n")

    assert len(problem) < 300


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            FINE.replace("registries:\n", "registries: []\nother:\n"),
            "6: registries: ",
            id="an empty list",
        ),
        pytest.param(FINE.replace("[http://127.0.0.1:9191]", "[]"), "9: ", id="no endpoint"),
        pytest.param(FINE.replace("tenancy: relproxy", "tenancy: shared"), "8: ", id="no tenancy"),
    ],
)
def test_what_a_registry_needs_is_asked_for(file: Path, text: str, problem: str) -> None:
    assert any(found.startswith(problem) for found in problems(file, text))


def test_a_key_that_is_no_word_is_a_problem(file: Path) -> None:
    assert problems(file, f"{FINE}5: x\n")


# -- between settings


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            FINE + "store: {path: /tmp/other.db}\n",
            "13: store: is given twice: YAML would silently take the last one.",
            id="on top",
        ),
        pytest.param(
            FINE + "    registry: other\n",
            "13: routes[0].registry: is given twice: YAML would silently take the last one.",
            id="in a list",
        ),
        pytest.param(
            FINE + "    'name': east\n",
            "13: routes[0].name: is given twice: YAML would silently take the last one.",
            id="in quotes",
        ),
    ],
)
def test_a_key_that_is_given_twice_is_a_problem(file: Path, text: str, problem: str) -> None:
    assert problem in problems(file, text)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("registry: man", "no registry is named 'man'; known: main."),
        ("installation: nova", "no installation is named 'nova'; known: none."),
        ("listener: pubic", "no listener is named 'pubic'; known: public."),
    ],
)
def test_a_name_that_nothing_has_is_a_problem(file: Path, setting: str, sentence: str) -> None:
    kind = setting.partition(":")[0]
    text = FINE.replace("registry: main", setting) if kind == "registry" else with_route(setting)

    (problem,) = problems(file, text)

    assert problem.endswith(f"routes[0].{kind}: {sentence}")


TWO = "{name: a, uuid: %s}, {name: b, uuid: %s}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            FINE + "  - {name: all, registry: main}\n",
            "13: routes[1].name: 'all' is also that of routes[0].",
            id="two routes",
        ),
        pytest.param(
            FINE.replace("store:", "  - {name: public, bind: '127.0.0.1:1'}\nstore:"),
            "4: listeners[1].name: 'public' is also that of listeners[0].",
            id="two listeners",
        ),
        pytest.param(
            FINE.replace("store:", "  - {name: other, bind: '127.0.0.1:9292'}\nstore:"),
            "4: listeners[1].bind: '127.0.0.1:9292' is also that of listeners[0].",
            id="two listeners on one address",
        ),
        pytest.param(
            FINE.replace(
                "routes:", "  - {name: main, tenancy: registry, endpoints: ['http://g']}\nroutes:"
            ),
            "10: registries[1].name: 'main' is also that of registries[0].",
            id="two registries",
        ),
        pytest.param(
            FINE + f"installations: [{TWO % (UUID, UUID)}]\n",
            f"13: installations[1].uuid: '{UUID}' is also that of installations[0].",
            id="two installations of one UUID",
        ),
        pytest.param(
            FINE + f"installations: [{TWO % (UUID, UUID.upper())}]\n",
            f"13: installations[1].uuid: '{UUID.upper()}' is also that of installations[0].",
            id="one UUID in two cases",
        ),
    ],
)
def test_two_of_one_name_are_a_problem(file: Path, text: str, problem: str) -> None:
    assert problem in problems(file, text)


def test_two_spellings_of_one_uuid_are_a_problem(file: Path) -> None:
    two = TWO % (UUID, UUID.replace("-", ""))

    (problem,) = problems(file, f"{FINE}installations: [{two}]\n")

    assert problem.startswith("13: installations[1].uuid: ")


def test_two_listeners_may_each_take_a_free_port(file: Path) -> None:
    file.write_text(
        FINE.replace("9292", "0").replace("store:", "  - {name: b, bind: '127.0.0.1:0'}\nstore:")
    )

    assert len(load_configuration(file).listeners) == 2


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pytest.param("", "host: a.example", id="behind one without a condition"),
        pytest.param("", "", id="behind one just like it"),
        pytest.param("host: a.example", "host: a.example", id="of the same host"),
        pytest.param(
            "host: a.example", "host: a.example, path_prefix: /east", id="of the same host and more"
        ),
        pytest.param("path_prefix: /east", "path_prefix: /east/images", id="below its path"),
        pytest.param("network: 10.0.0.0/8", "network: 10.1.0.0/16", id="within its network"),
    ],
)
def test_a_route_that_is_never_reached_is_a_problem(file: Path, earlier: str, later: str) -> None:
    text = FINE.partition("routes:")[0] + (
        f"routes:\n  - {{name: a, registry: main, {earlier}}}\n"
        f"  - {{name: b, registry: main, {later}}}\n"
    )

    (problem,) = problems(file, text)

    assert problem.startswith("12: routes[1]: never matches: routes[0]")


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        pytest.param("host: a.example", "host: b.example", id="another host"),
        pytest.param("path_prefix: /east", "path_prefix: /eastern", id="a longer name"),
        pytest.param("path_prefix: /east/images", "path_prefix: /east", id="a shorter path"),
        pytest.param("network: 10.1.0.0/16", "network: 10.0.0.0/8", id="a wider network"),
        pytest.param("host: a.example", "path_prefix: /east", id="another condition"),
        pytest.param("host: a.example, path_prefix: /east", "host: a.example", id="fewer of them"),
        pytest.param("network: 10.0.0.0/8", "network: '2001:db8::/32'", id="another family"),
    ],
)
def test_a_route_that_may_be_reached_is_fine(file: Path, earlier: str, later: str) -> None:
    file.write_text(
        FINE.partition("routes:")[0]
        + f"routes:\n  - {{name: a, registry: main, {earlier}}}\n"
        + f"  - {{name: b, registry: main, {later}}}\n"
    )

    assert len(load_configuration(file).routes) == 2


@pytest.mark.parametrize("settings", ["default_limit: 11, max_limit: 10", "max_limit: 24"])
def test_a_page_that_is_over_its_own_maximum_is_a_problem(file: Path, settings: str) -> None:
    text = FINE.partition("registries:")[0] + (
        "registries:\n"
        f"  - {{name: main, tenancy: relproxy, endpoints: ['http://g'], {settings}}}\n"
        "routes: [{name: all, registry: main}]\n"
    )

    (problem,) = problems(file, text)

    assert problem.startswith("7: registries[0].default_limit: ")


# Whom a warning is not about.
TRUSTING = (
    "identity: {trusted_networks: [192.0.2.0/24]}\ntrusted_sources: {networks: [198.51.100.0/24]}\n"
)


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        pytest.param("", ["identity.keystone", "trusted_sources"], id="nobody is trusted"),
        pytest.param(
            "identity: {trusted_networks: [192.0.2.0/24]}\n",
            ["trusted_sources"],
            id="no Nova is trusted",
        ),
        pytest.param(
            "identity: {trusted_networks: [192.0.2.0/24]}\n"
            "trusted_sources: {networks: [198.51.100.0/24]}\n",
            [],
            id="both are",
        ),
        pytest.param(
            "identity: {trusted_networks: [192.0.2.0/24]}\n"
            "trusted_sources: {networks: [198.51.100.0/24]}\n"
            "journal: {abandon_after_s: 300}\n",
            ["journal.abandon_after_s"],
            id="a create is given up while it may be under way",
        ),
        pytest.param(
            "identity: {keystone: {credentials: {auth_url: 'http://127.0.0.1:5000/v3', "
            "username: u, project: p, password_file: /f}}}\n"
            "trusted_sources: {service_roles: [service]}\n",
            [],
            id="Keystone on this host, and a service that vouches",
        ),
        pytest.param(
            "identity: {keystone: {credentials: {auth_url: 'http://192.0.2.1:5000/v3', "
            "username: u, project: p, password_file: /f}}}\n"
            "trusted_sources: {roles: [nova]}\n",
            ["identity.keystone.credentials.auth_url"],
            id="tokens in the clear",
        ),
        pytest.param(
            "identity: {keystone: {credentials: {auth_url: 'https://192.0.2.1:5000/v3', "
            "username: u, project: p, password_file: /f}}}\n",
            ["trusted_sources"],
            id="Keystone by TLS, and nobody who vouches",
        ),
        pytest.param(
            f"{TRUSTING}fronts: {{networks: [203.0.113.1/32]}}\n",
            ["fronts.networks"],
            id="a front that says nothing",
        ),
        pytest.param(
            f"{TRUSTING}fronts: {{networks: [192.0.2.7/32]}}\n",
            ["fronts.networks"],
            id="a trusted front that says nothing",
        ),
        pytest.param(
            f"{TRUSTING}fronts: {{networks: [203.0.113.1/32], header: forwarded}}\n",
            [],
            id="a front that says whom it passes on",
        ),
        pytest.param(
            f"{TRUSTING}fronts: {{networks: [203.0.113.1/32], header: forwarded}}\n"
            "forwarding: {header: x-forwarded}\n",
            ["forwarding.header"],
            id="a front that says it in another kind of header",
        ),
        pytest.param(
            f"{TRUSTING}fronts: {{networks: [192.0.2.7/32], header: x-forwarded-for}}\n",
            ["identity.trusted_networks"],
            id="a front that is trusted to say who calls",
        ),
        pytest.param(
            f"{TRUSTING}fronts: {{networks: ['::/0', 198.51.0.0/16], header: forwarded}}\n",
            ["trusted_sources.networks"],
            id="Novas among the fronts",
        ),
        pytest.param(
            f"{TRUSTING}admin: {{bind: '0.0.0.0:9393', tokens_file: /etc/relproxy/tokens.yaml}}\n",
            ["admin.bind"],
            id="tokens on the network",
        ),
    ],
)
def test_what_is_allowed_and_probably_not_meant_is_a_warning(
    file: Path, settings: str, warned: list[str]
) -> None:
    file.write_text(FINE + settings)

    sentences = list(warnings(load_configuration(file)))

    assert [sentence.split()[0] for sentence in sentences] == warned


@pytest.mark.parametrize(
    ("network", "warned"),
    [
        pytest.param("203.0.113.1/32", ["routes[0].network"], id="the front itself"),
        pytest.param("203.0.112.0/20", ["routes[0].network"], id="a network with the front"),
        pytest.param("203.0.113.2/32", [], id="another address"),
        pytest.param("2001:db8::/32", [], id="another family"),
    ],
)
@pytest.mark.parametrize("by_header", [True, False], ids=["header", "proxy protocol"])
def test_a_route_that_a_front_may_be_taken_by_is_a_warning(
    file: Path,
    network: str,
    warned: list[str],
    by_header: bool,  # noqa: FBT001
) -> None:
    fronts = "fronts: {networks: [203.0.113.1/32]" + (", header: forwarded}" if by_header else "}")
    text = with_route(f"network: '{network}'") + TRUSTING + fronts
    bind = "bind: 127.0.0.1:9292"
    file.write_text(text if by_header else text.replace(bind, f"{bind}\n    proxy_protocol: true"))

    sentences = list(warnings(load_configuration(file)))

    assert [sentence.split()[0] for sentence in sentences] == warned


@pytest.mark.parametrize(
    ("fronts", "where"),
    [
        pytest.param("", ["4: listeners[0].proxy_protocol"], id="no fronts"),
        pytest.param("fronts: {networks: []}\n", ["4: listeners[0].proxy_protocol"], id="none"),
        pytest.param(
            "fronts: {header: forwarded}\n",
            ["4: listeners[0].proxy_protocol", "14: fronts.header"],
            id="a header alone",
        ),
        pytest.param(
            "fronts: nonsense\n",
            ["4: listeners[0].proxy_protocol", "14: fronts"],
            id="no mapping",
        ),
    ],
)
def test_proxy_protocol_without_fronts_is_a_problem(
    file: Path, fronts: str, where: list[str]
) -> None:
    bind = "bind: 127.0.0.1:9292"
    found = problems(file, FINE.replace(bind, f"{bind}\n    proxy_protocol: true") + fronts)

    assert [": ".join(problem.split(": ")[:2]) for problem in found] == where


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ("fronts: {networks: [192.0.2.1/24]}\n", "13: fronts.networks[0]"),
        ("fronts: {networks: [192.0.2.0/24], header: via}\n", "13: fronts.header"),
        ("fronts: {networks: [192.0.2.0/24], header: [forwarded]}\n", "13: fronts.header"),
        ("fronts: {header: x-forwarded-for}\n", "13: fronts.header"),
        ("timeouts: {proxy_header_s: 0}\n", "13: timeouts.proxy_header_s"),
    ],
)
def test_a_front_that_can_not_be_is_a_problem(file: Path, settings: str, where: str) -> None:
    (problem,) = problems(file, FINE + settings)

    assert problem.startswith(f"{where}: ")


def test_proxy_protocol_is_true_or_false(file: Path) -> None:
    bind = "bind: 127.0.0.1:9292"
    (problem,) = problems(file, FINE.replace(bind, f"{bind}\n    proxy_protocol: v2"))

    assert problem.startswith("4: listeners[0].proxy_protocol: ")


def test_a_route_in_shadow_is_a_warning(file: Path) -> None:
    trusts = "identity: {trusted_networks: [192.0.2.0/24]}\n"
    trusts += "trusted_sources: {networks: [198.51.100.0/24]}\n"
    in_shadow = FINE.replace("name: all\n", "name: all\n    mode: shadow\n")
    file.write_text(in_shadow + trusts)

    (sentence,) = warnings(load_configuration(file))

    assert sentence.startswith("route 'all' is in shadow: nothing is hidden or refused there")


# -- several at once


def test_every_problem_is_told_at_once_in_the_order_of_the_file(file: Path) -> None:
    text = """\
listeners:
  - {name: public, bind: 127.0.0.1}
store: {driver: postgres}
registries:
  - {name: Main, tenancy: relproxy, endpoints: [http://g], default_limt: 5}
routes:
  - {name: a, registry: main}
  - {name: a, registry: main, installation: nova}
log: {level: loud}
log: {level: INFO}
"""

    found = problems(file, text)

    assert [tuple(problem.split(": ")[:2]) for problem in found] == [
        ("2", "listeners[0].bind"),
        ("3", "store.dsn"),
        ("5", "registries[0].default_limt"),
        ("5", "registries[0].name"),
        ("7", "routes[0].registry"),
        ("8", "routes[1]"),
        ("8", "routes[1].installation"),
        ("8", "routes[1].name"),
        ("8", "routes[1].registry"),
        ("10", "log"),
    ]


def test_one_mistake_makes_no_other_problem(file: Path) -> None:
    # A route with a typo is still a route: the list of them isn't empty.
    assert len(problems(file, with_route("hots: a.example"))) == 1
    assert len(problems(file, with_route("host: A.example"))) == 1
    assert len(problems(file, FINE.replace("tenancy: relproxy", "tenancy: nobody"))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "routes: 3\nlisteners: {}\nregistries: nope\nstore: []\n",
        "routes: [3, null, []]\nlisteners: [x]\nregistries: [[]]\nstore: {}\ninstallations: [5]\n",
        "routes: [{name: [a], registry: {a: b}, host: 5}]\n",
        "routes: [{name: {a: b}, path_prefix: [a]}, {name: {a: b}, path_prefix: [a]}]\n",
        f"installations: [{{uuid: [{OTHER_UUID}]}}, {{uuid: 5}}, {{}}]\n",
        "identity: {trusted_networks: {a: b}}\n",
        "identity: {trusted_networks: [[], {}, null, 5.5]}\n",
    ],
)
def test_no_file_is_so_wrong_that_it_is_not_told(file: Path, text: str) -> None:
    assert problems(file, text)


def test_the_admin_listener_has_an_address_of_its_own(file: Path) -> None:
    (problem,) = problems(file, f"{FINE}admin: {{bind: '127.0.0.1:9292'}}\n")

    assert problem == "13: admin.bind: '127.0.0.1:9292' is also that of listeners[0]."


@pytest.mark.parametrize("name", ["Host", "x-auth-token", "Content-Type", "Accept"])
def test_a_metadata_header_with_another_meaning_is_a_problem(file: Path, name: str) -> None:
    (problem,) = problems(file, f"{FINE}metadata_headers: {{instance: {name}}}\n")

    assert "has another meaning" in problem


def test_a_host_is_the_same_with_and_without_its_last_dot(file: Path) -> None:
    file.write_text(with_route("host: glance.example."))

    assert load_configuration(file).routes[0].host == "glance.example"


# -- identity

AUTH_URL = "auth_url: http://127.0.0.1:5000/v3"
USER = f"{{{AUTH_URL}, username: u, project: p, password_file: /f}}"
APPLICATION = (
    f"{{{AUTH_URL}, application_credential_id: i, application_credential_secret_file: /f}}"
)


@pytest.mark.parametrize("credentials", [USER, APPLICATION], ids=["a user", "an application"])
@pytest.mark.parametrize("provider", ["", "provider: keystone, "], ids=["left out", "named"])
def test_keystone_is_the_provider_where_it_is_configured(
    credentials: str, provider: str, file: Path
) -> None:
    file.write_text(f"{FINE}identity: {{{provider}keystone: {{credentials: {credentials}}}}}\n")

    keystone = load_configuration(file).identity.keystone

    assert keystone is not None
    assert keystone.credentials.auth_url == "http://127.0.0.1:5000/v3"
    assert keystone.service_token_roles == ("service",)


@pytest.mark.parametrize(
    ("identity", "problem"),
    [
        pytest.param(
            "{provider: keystone}",
            "13: identity.keystone: is required with provider keystone.",
            id="keystone, and nothing of it",
        ),
        pytest.param(
            f"{{provider: headers, keystone: {{credentials: {USER}}}}}",
            "13: identity.keystone: has a meaning with provider keystone only.",
            id="headers, and Keystone",
        ),
        pytest.param(
            f"{{keystone: {{credentials: {USER}}}, trusted_networks: [127.0.0.1/32]}}",
            "13: identity.trusted_networks: has a meaning with provider headers only: nobody else "
            "is believed.",
            id="Keystone, and networks of fronts",
        ),
    ],
)
def test_a_provider_is_one_of_two(identity: str, problem: str, file: Path) -> None:
    assert problems(file, f"{FINE}identity: {identity}\n") == [problem]


@pytest.mark.parametrize(
    "credentials",
    [
        pytest.param(f"{{{AUTH_URL}}}", id="nobody"),
        pytest.param(f"{{{AUTH_URL}, username: u, project: p}}", id="a user without a password"),
        pytest.param(f"{{{AUTH_URL}, username: u, password_file: /f}}", id="without a project"),
        pytest.param(f"{{{AUTH_URL}, application_credential_id: i}}", id="without its secret"),
        pytest.param(
            f"{USER[:-1]}, application_credential_id: i, application_credential_secret_file: /f}}",
            id="both",
        ),
        pytest.param(f"{USER[:-1]}, application_credential_id: i}}", id="one and half the other"),
    ],
)
def test_credentials_are_of_one_kind(credentials: str, file: Path) -> None:
    (problem,) = problems(file, f"{FINE}identity: {{keystone: {{credentials: {credentials}}}}}\n")

    assert problem.startswith("13: identity.keystone.credentials: should have username, project")


@pytest.mark.parametrize(
    ("dialect", "setting", "problem"),
    [
        ("glance-v1", "sticky_staging: true", "with dialect glance-v2 only"),
        ("glance-registry", "sticky_staging: true", "with dialect glance-v2 only"),
        ("glance-registry", "assign_image_ids: true", "it chooses every id itself"),
        ("glance-registry", "upstream_identity: headers", "it believes no such headers"),
    ],
)
def test_setting_that_a_dialect_gives_no_meaning_is_refused(
    file: Path, dialect: str, setting: str, problem: str
) -> None:
    text = FINE.replace("    tenancy:", f"    dialect: {dialect}\n    {setting}\n    tenancy:", 1)

    (found,) = problems(file, text)

    assert problem in found
    assert f"registries[0].{setting.partition(':')[0]}" in found


def test_dialect_that_is_not_known_is_refused_with_those_that_are(file: Path) -> None:
    (found,) = problems(
        file, FINE.replace("    tenancy:", "    dialect: glance-v3\n    tenancy:", 1)
    )

    assert "glance-v1" in found
