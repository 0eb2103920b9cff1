"""What relproxy counts: one table of names (docs/operations.md explains each).

Labels are bounded by the configuration: names of routes, listeners and registries, endpoints,
treatments, statuses. Never a project, an image or an instance.
"""

from __future__ import annotations

import os
from collections import Counter as TallyOf
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from relproxy import __version__
from relproxy.metric_slots import DIRECTORY_VARIABLE
from relproxy.vitals import look

# From a registry's 404 to a long list: 5 ms to 60 s.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one relproxy, in a registry of their own."""

    def __init__(self) -> None:
        self.collectors = own = CollectorRegistry()
        # How many configurations have each: after a reload two, for a while.
        self._endpoints: TallyOf[tuple[str, str]] = TallyOf()
        # Not an `Info`: the library has none for several processes.
        self.build = Gauge(
            "relproxy_build_info",
            "The version that is running.",
            ("version",),
            registry=own,
            multiprocess_mode="livemax",
        )
        self.build.labels(__version__).set(1)
        self.requests = Counter(
            "relproxy_requests",
            "Requests answered, by what was done with them.",
            ("route", "treatment", "status"),
            registry=own,
        )
        self.request_seconds = Histogram(
            "relproxy_request_seconds",
            "Time from a request's head to its answer's head.",
            ("route", "registry", "treatment"),
            buckets=_SECONDS,
            registry=own,
        )
        self.requests_in_progress = Gauge(
            "relproxy_requests_in_progress",
            "Requests whose answer is not finished.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.captures = Counter(
            "relproxy_captures",
            "Instance metadata captured from creates that succeeded.",
            ("registry", "grade"),
            registry=own,
        )
        self.records = Counter(
            "relproxy_records",
            "Creates that needed a record, by how that ended.",
            ("registry", "result"),
            registry=own,
        )
        self.images_hidden = Counter(
            "relproxy_images_hidden",
            "Images of upstream list pages that the caller may not see.",
            ("route",),
            registry=own,
        )
        self._add_those_of_traffic(own)
        self._add_those_of_the_process(own)
        self._add_those_of_reloads(own)
        self._add_those_of_concurrency(own)
        self._add_those_of_endpoints(own)
        self._add_those_of_identity(own)
        self._add_those_of_the_listeners(own)
        self._add_those_of_shadow(own)
        self._add_those_of_the_journal(own)

    def _add_those_of_traffic(self, own: CollectorRegistry) -> None:
        self.upstream_seconds = Histogram(
            "relproxy_upstream_seconds",
            "Time from a request to a registry to its answer's head, by what it was sent for.",
            ("registry", "treatment"),
            buckets=_SECONDS,
            registry=own,
        )
        self.received_bytes = Counter(
            "relproxy_received_bytes",
            "Bytes of request bodies that clients have sent.",
            ("route",),
            registry=own,
        )
        self.sent_bytes = Counter(
            "relproxy_sent_bytes",
            "Bytes of answers' bodies that clients were sent.",
            ("route",),
            registry=own,
        )
        self.requests_cut_off = Counter(
            "relproxy_requests_cut_off",
            "Requests that ended before their answer was whole, by who ended them.",
            ("route", "by"),
            registry=own,
        )

    def _add_those_of_the_process(self, own: CollectorRegistry) -> None:
        self.client_connections = Gauge(
            "relproxy_client_connections",
            "Connections of clients that are open, idle ones too.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.client_connections_max = Gauge(
            "relproxy_client_connections_max",
            "Connections of clients that are taken at once; more wait.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.accept_pauses = Counter(
            "relproxy_accept_pauses",
            "How often connections had to wait for being accepted, by what there was none left of.",
            ("reason",),
            registry=own,
        )
        self.upstream_connections = Gauge(
            "relproxy_upstream_connections",
            "Connections to registries that are open, idle ones too.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.descriptors = Gauge(
            "relproxy_open_descriptors",
            "Descriptors that are open; of several workers, of the one that has most.",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.descriptors_max = Gauge(
            "relproxy_open_descriptors_max",
            "Descriptors that a worker may have open.",
            registry=own,
            multiprocess_mode="livemin",
        )
        self.tasks = Gauge(
            "relproxy_tasks",
            "Tasks of the event loop: each connection of a client has one.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.resident_bytes = Gauge(
            "relproxy_resident_bytes",
            "Bytes of memory that are in use.",
            registry=own,
            multiprocess_mode="livesum",
        )

    def _add_those_of_reloads(self, own: CollectorRegistry) -> None:
        self.config_reloads = Counter(
            "relproxy_config_reload",
            "Reloads of the configuration, by whether it was taken.",
            ("result",),
            registry=own,
        )
        # Those who read no file themselves, the workers, leave both at 0.
        self.config_reload_successful = Gauge(
            "relproxy_config_reload_last_successful",
            "Whether the configuration was taken when it was last read: 1 or 0.",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.config_reload_success = Gauge(
            "relproxy_config_reload_success_timestamp_seconds",
            "When the configuration that counts was taken, in seconds since 1970.",
            registry=own,
            multiprocess_mode="livemax",
        )

    def _add_those_of_concurrency(self, own: CollectorRegistry) -> None:
        self.transfers_in_progress = Gauge(
            "relproxy_transfers_in_progress",
            "Uploads, stagings and downloads of image data that are not finished.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.requests_limited = Counter(
            "relproxy_requests_limited",
            "Requests refused because too many were under way.",
            ("registry", "limit", "kind"),
            registry=own,
        )

    def _add_those_of_endpoints(self, own: CollectorRegistry) -> None:
        self.upstream_errors = Counter(
            "relproxy_upstream_errors",
            "Requests to a registry that got no usable answer.",
            ("registry", "reason"),
            registry=own,
        )
        self.endpoint_up = Gauge(
            "relproxy_endpoint_up",
            "1 while an endpoint is well; 0 while it gets no requests, or as the last one left.",
            ("registry", "endpoint"),
            registry=own,
            multiprocess_mode="livemin",
        )
        self.endpoint_failures = Counter(
            "relproxy_endpoint_failures",
            "Requests that an endpoint did not answer, or with a status that counts as a failure.",
            ("registry", "endpoint", "reason"),
            registry=own,
        )
        self.endpoint_tls_failures = Counter(
            "relproxy_endpoint_tls_failures",
            "Connections to an endpoint that failed in TLS, health checks included.",
            ("registry", "endpoint", "reason"),
            registry=own,
        )
        self.endpoint_ejections = Counter(
            "relproxy_endpoint_ejections",
            "How often an endpoint was ejected.",
            ("registry", "endpoint", "reason"),
            registry=own,
        )

    def _add_those_of_identity(self, own: CollectorRegistry) -> None:
        self.token_validations = Counter(
            "relproxy_token_validations",
            "Questions to Keystone about a token, by its answer.",
            ("result",),
            registry=own,
        )
        self.keystone_seconds = Histogram(
            "relproxy_keystone_seconds",
            "Time until Keystone has answered about a token, relproxy's own log-in included.",
            buckets=_SECONDS,
            registry=own,
        )

    def begin_at_zero(self, registries: Iterable[str]) -> None:
        """Show what should never be counted before it is: else its first time is no increase."""
        for name in registries:
            for result in (
                "confirmed",
                "pending",
                "abandoned",
                "in_doubt",
                "refused",
                "unrecorded",
            ):
                self.records.labels(name, result)
            for reason in ("unreachable", "tls", "timeout", "garbage"):
                self.upstream_errors.labels(name, reason)
        for reason in ("limit", "descriptors"):
            self.accept_pauses.labels(reason)
        for reason in ("missing", "unknown", "scope", "unusable"):
            self.admin_refusals.labels(reason)

    def know_endpoint(self, registry: str, url: str) -> None:
        """Say whether an endpoint is up: it is, as far as is known."""
        self._endpoints[registry, url] += 1
        self.endpoint_up.labels(registry, url).set(1)

    def forget_endpoint(self, registry: str, url: str) -> None:
        """Say no more whether an endpoint is up, once nobody knows it any more."""
        self._endpoints[registry, url] -= 1
        # Several workers say it in files that go with each of them.
        if not self._endpoints[registry, url] and DIRECTORY_VARIABLE not in os.environ:
            self.endpoint_up.remove(registry, url)

    def look(self) -> None:
        """Look at this process; to be called in its event loop."""
        present = look()
        self.descriptors.set(present.descriptors)
        self.descriptors_max.set(present.descriptors_max)
        self.tasks.set(present.tasks)
        self.resident_bytes.set(present.resident_bytes)

    def shown(self) -> CollectorRegistry:
        """Return what a scrape shows: this process's metrics, or those of all workers as one."""
        self.look()
        if DIRECTORY_VARIABLE not in os.environ:
            return self.collectors
        summed = CollectorRegistry()
        MultiProcessCollector(summed)  # type: ignore[no-untyped-call]
        return summed

    def samples(self) -> Iterator[tuple[str, Mapping[str, str], float]]:
        """Yield what a scrape shows, one value after the other: name, labels, value."""
        for family in self.shown().collect():
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def _add_those_of_the_listeners(self, own: CollectorRegistry) -> None:
        self.connections_refused = Counter(
            "relproxy_connections_refused",
            "Connections closed before any request, because of what should have come first.",
            ("listener", "reason"),
            registry=own,
        )
        # Of an old worker and a new one the old one counts, until it has gone.
        self.certificate_expiry = Gauge(
            "relproxy_tls_certificate_expiry_timestamp_seconds",
            "When the first certificate of a listener's chain expires, in seconds since 1970.",
            ("listener",),
            registry=own,
            multiprocess_mode="livemin",
        )
        self.admin_refusals = Counter(
            "relproxy_admin_refusals",
            "Requests that the admin listener refused, by what they lacked.",
            ("reason",),
            registry=own,
        )

    def _add_those_of_shadow(self, own: CollectorRegistry) -> None:
        self.shadow = Counter(
            "relproxy_shadow",
            "Requests on routes in shadow, by what enforcing would have done with them.",
            ("route", "treatment", "verdict"),
            registry=own,
        )
        self.shadow_images_hidden = Counter(
            "relproxy_shadow_images_hidden",
            "Images of lists on routes in shadow that enforcing would have hidden.",
            ("route",),
            registry=own,
        )

    def _add_those_of_the_journal(self, own: CollectorRegistry) -> None:
        self.journal_in_doubt = Gauge(
            "relproxy_journal_in_doubt",
            "Entries of the journal that are not known to have succeeded or failed.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.journal_parked = Gauge(
            "relproxy_journal_parked",
            "Entries of the journal that the store refuses; a person has to settle them.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.journal_settled = Counter(
            "relproxy_journal_settled",
            "Entries in doubt that the registry itself has settled, by what they became.",
            ("registry", "result"),
            registry=own,
        )
        self.journals_broken = Counter(
            "relproxy_journals_broken",
            "Journal files that could not be read and were set aside.",
            registry=own,
        )
        self.relay_delivered = Counter(
            "relproxy_relay_delivered",
            "Entries that the store has taken.",
            registry=own,
        )
        self.relay_failures = Counter(
            "relproxy_relay_failures",
            "Batches that the store did not take; each is tried again.",
            registry=own,
        )
        self.relay_put_again = Counter(
            "relproxy_relay_put_again",
            "Entries put again because another server took the place of the store's.",
            registry=own,
        )
        self.records_purged = Counter(
            "relproxy_records_purged",
            "Records of images deleted long ago that were forgotten.",
            registry=own,
        )
        self.relay_lag_seconds = Gauge(
            "relproxy_relay_lag_seconds",
            "Age of the oldest entry that the store has not taken; 0 if it has all.",
            registry=own,
            multiprocess_mode="livemax",
        )
        self.relay_put_seconds = Histogram(
            "relproxy_relay_put_seconds",
            "Time that the store takes for one batch.",
            buckets=_SECONDS,
            registry=own,
        )
