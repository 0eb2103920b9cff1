"""The settings of what relproxy itself says in the messages that it forwards."""

from __future__ import annotations

from pydantic import Field

from relproxy.config_types import Seconds, Section


class Forwarding(Section):
    """What a forwarded message says of its way, and how an upload is asked for."""

    expect_continue_s: Seconds = Field(
        default=1,
        description="For a registry to say whether it wants the body of a client that expects "
        "100-continue: then it is asked for; curl waits as long before it sends unasked.",
    )
