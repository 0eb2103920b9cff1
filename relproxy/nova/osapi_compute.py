"""The WSGI module of nova-api, with the instance-aware image service switched on.

For a WSGI server it takes the place of `nova.wsgi.osapi_compute`. Nova comes first, and just as it
would alone: what it patches, reads and refuses at its start happens before anything of relproxy is
imported. What goes wrong after that is logged, and the application is Nova's own.
"""

from __future__ import annotations

from nova.wsgi.osapi_compute import application

__all__ = ["application"]


def _switch_on() -> None:
    import logging  # noqa: PLC0415 - after Nova

    try:
        from relproxy.nova.switch import switch_on  # noqa: PLC0415 - it may fail, and Nova may not

        switch_on()
    except Exception:
        logging.getLogger(__name__).exception("instances are not named, and Nova goes on without")


_switch_on()
