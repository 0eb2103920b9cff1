"""The settings of what relproxy itself says in the messages that it forwards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from relproxy.config_types import Seconds, Section

# RFC 9110, section 7.6.3: a token, and nothing that names a machine.
Pseudonym = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Forwarding(Section):
    """What a forwarded message says of its way, and how an upload is asked for."""

    via: Pseudonym | None = Field(
        default="relproxy",
        description="What relproxy calls itself in the Via of each message, as RFC 9110 wants of a "
        "proxy; null: it says nothing.",
    )
    header: Literal["none", "forwarded", "x-forwarded"] | None = Field(
        default=None,
        description="In which headers a registry is told who sent a request, by which scheme and "
        "to which host: what a front says is added to, of anybody else it is replaced. Left out: "
        "forwarded if fronts.header is, else x-forwarded.",
    )
    expect_continue_s: Seconds = Field(
        default=1,
        description="For a registry to say whether it wants the body of a client that expects "
        "100-continue: then it is asked for; curl waits as long before it sends unasked.",
    )
