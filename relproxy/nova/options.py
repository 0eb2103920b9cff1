"""The section [relproxy] of nova.conf."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

from relproxy.nova.identification import INSTALLATION_HEADER, INSTANCE_HEADER, Naming, naming

GROUP = "relproxy"

OPTIONS = (
    cfg.StrOpt(
        "nova_installation_uuid",
        help="The UUID of this Nova installation, the same on all its hosts and in no other "
        "installation; `relproxy generate-installation-uuid` makes one. Without it no create of "
        "an image names its instance.",
    ),
    cfg.StrOpt(
        "installation_header",
        default=INSTALLATION_HEADER,
        help="The header that names the installation: metadata_headers.installation of relproxy.",
    ),
    cfg.StrOpt(
        "instance_header",
        default=INSTANCE_HEADER,
        help="The header that names the instance: metadata_headers.instance of relproxy.",
    ),
)


def list_opts() -> list[tuple[str, list[Any]]]:
    """Return the options, for oslo-config-generator."""
    return [(GROUP, list(OPTIONS))]


def configured(conf: Any) -> Naming | None:  # noqa: ANN401 - oslo.config has no types
    """Return what Nova's configuration says, or None where it names no installation.

    Raises `ValueError` for what can't be sent.
    """
    conf.register_opts(OPTIONS, group=GROUP)
    section = conf[GROUP]
    if not section.nova_installation_uuid:
        return None
    return naming(
        section.nova_installation_uuid, section.installation_header, section.instance_header
    )
