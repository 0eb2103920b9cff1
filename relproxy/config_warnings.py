"""What a configuration allows, and its operator has probably not meant."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from relproxy.certificates import upstream_sections
from relproxy.config import Configuration
from relproxy.config_types import is_loopback
from relproxy.model import Tenancy
from relproxy.networks import Network, parse_address


def warnings(configuration: Configuration) -> Iterator[str]:
    """Yield a sentence for each thing that is allowed, and probably not meant."""
    identity, trusted = configuration.identity, configuration.trusted_sources
    if identity.keystone is None and not identity.trusted_networks:
        yield (
            "identity.keystone is left out and identity.trusted_networks is empty: nobody is "
            "vouched for, so lists show public images at most."
        )
    if not (trusted.networks or trusted.roles or trusted.service_roles or trusted.certificates):
        yield (
            "trusted_sources is empty: instance metadata headers count for nothing, only claims "
            "in request bodies are recorded."
        )
    for where, url in _keystones(configuration):
        if url.startswith("http://") and not _is_loopback(url):
            yield f"{where}.auth_url is http: tokens and passwords can be read on the network."
    if configuration.journal.abandon_after_s <= configuration.timeouts.read_s:
        yield (
            "journal.abandon_after_s is not over timeouts.read_s: a create may be given up while "
            "the registry is still at work on it, and its image then has no record."
        )
    if not is_loopback(configuration.admin.bind) and configuration.admin.tls is None:
        yield (
            f"admin.bind is {configuration.admin.bind}, without admin.tls: tokens and records can "
            "be read on the network."
        )
    yield from _plain_warnings(configuration)
    yield from _insecure_warnings(configuration)
    yield from _warnings_about_fronts(configuration)
    yield from _shadow_warnings(configuration)


def _plain_warnings(configuration: Configuration) -> Iterator[str]:
    for index, registry in enumerate(configuration.registries):
        plain = [url for url in registry.endpoints if url.startswith("http://")]
        if registry.has_tls and plain:
            yield (
                f"registries[{index}].endpoints: {plain[0]} is http beside https: what goes there "
                "can be read on the network, and nobody is verified."
            )


def _insecure_warnings(configuration: Configuration) -> Iterator[str]:
    for path, settings in upstream_sections(configuration):
        if settings.insecure_accept_any_certificate:
            yield (
                f"{path}.insecure_accept_any_certificate is true: NOTHING IS VERIFIED. Anyone on "
                "the way can pose as the other side, and read and change tokens, records and "
                "images."
            )


def _warnings_about_fronts(configuration: Configuration) -> Iterator[str]:
    fronts = configuration.fronts.networks
    if not (fronts or any(each.fronted for each in configuration.listeners)):
        return
    by_header = configuration.fronts.header != "none"
    if not by_header and not any(each.proxy_protocol for each in configuration.listeners):
        yield (
            "fronts.networks has no meaning without fronts.header or a listener with "
            "proxy_protocol, nor has fronted: a front itself is then the source of all that it "
            "passes on."
        )
        return
    if (configuration.fronts.header, configuration.forwarding.header) == (
        "forwarded",
        "x-forwarded",
    ):
        yield (
            "forwarding.header is x-forwarded and fronts.header is forwarded: the registry is told "
            "the source that a front names, and not the scheme."
        )
    for setting, networks in _trusting(configuration):
        if any(_overlap(network, front) for network in networks for front in fronts):
            yield (
                f"{setting} overlaps fronts.networks: what a front passes on comes from whom it "
                "names, and counts as the front's own, and is trusted, only where it names nobody."
            )


def _trusting(configuration: Configuration) -> Iterator[tuple[str, tuple[Network, ...]]]:
    """Yield every setting that decides by the source address."""
    yield "identity.trusted_networks", configuration.identity.trusted_networks
    yield "trusted_sources.networks", configuration.trusted_sources.networks
    for index, route in enumerate(configuration.routes):
        if route.network is not None:
            yield f"routes[{index}].network", (route.network,)


def _overlap(one: Network, other: Network) -> bool:
    return one.network_address in other or other.network_address in one


def _keystones(configuration: Configuration) -> Iterator[tuple[str, str]]:
    keystone = configuration.identity.keystone
    if keystone is not None:
        yield "identity.keystone.credentials", keystone.credentials.auth_url
    for registry in configuration.registries:
        if registry.credentials is not None:
            yield f"credentials of registry '{registry.name}'", registry.credentials.auth_url


def _is_loopback(url: str) -> bool:
    address = parse_address((urlsplit(url).hostname or "").strip("[]"))
    return urlsplit(url).hostname == "localhost" or (address is not None and address.is_loopback)


def _shadow_warnings(configuration: Configuration) -> Iterator[str]:
    for route in configuration.routes:
        if route.mode != "shadow":
            continue
        registry = configuration.registry_of(route)
        warning = (
            f"route '{route.name}' is in shadow: nothing is hidden or refused there, it is only "
            "counted and logged."
        )
        if registry.tenancy is Tenancy.RELPROXY:
            warning += f" Registry '{registry.name}': every caller is this registry's admin."
        yield warning
