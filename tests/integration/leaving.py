"""Ways in which a client, or a registry, uses relproxy badly: each does one thing, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

from tests.integration.stage import CREATE, DOWNLOAD, LIST, UPLOAD, Stage, Wire, message, named
from tests.integration.wayward import wayward_at

Scenario = Callable[[Stage], Awaitable[None]]
NEW = '{"name": "x", "instance_id": "i"}'
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"8000\r\n" + bytes(0x8000) + b"\r\n"
RUBBISH = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v2/images HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /v2/images HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 20_000),
    b"PUT /v2/images/x/file HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
)


def upload(ail: str = "", token: str = "", *fields: bytes) -> bytes:
    """Return the head of an upload that is chunked."""
    head = message(*UPLOAD, ail=ail, token=token).removesuffix(b"\r\n")
    return head + b"".join(field + b"\r\n" for field in fields) + CHUNKED


async def reached(stage: Stage, wire: Wire, token: str, times: int = 1) -> None:
    """Wait until the registry has been asked, or relproxy has answered without."""
    both = [
        asyncio.ensure_future(stage.registry.asked(token, times)),
        asyncio.ensure_future(wire.part()),
    ]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in both:
            each.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def leaves_before_its_head_is_whole(stage: Stage) -> None:
    async with stage.connected() as wire:
        wire.writer.write(message(*LIST)[:40])
        await wire.writer.drain()


async def leaves_in_the_middle_of_its_upload(stage: Stage) -> None:
    async with stage.connected() as wire:
        token = named()
        wire.writer.write(upload("", token) + CHUNK)
        await reached(stage, wire, token)
        wire.writer.write(CHUNK)


async def leaves_while_the_registry_is_silent(stage: Stage) -> None:
    for request in (LIST, DOWNLOAD):
        async with stage.connected() as wire:
            token = named()
            wire.writer.write(message(*request, ail="hang", token=token))
            await reached(stage, wire, token)


async def leaves_in_the_middle_of_its_download(stage: Stage) -> None:
    async with stage.connected() as wire:
        wire.writer.write(message(*DOWNLOAD, ail="much"))
        if (await wire.part()).startswith(b"HTTP/1.1 200"):
            await wire.reader.readexactly(2**17)


async def leaves_while_its_list_is_refilled(stage: Stage) -> None:
    async with stage.connected() as wire:
        token = named()
        wire.writer.write(message(*LIST, ail="late pages", token=token))
        await reached(stage, wire, token, times=3)


async def leaves_during_its_create(stage: Stage) -> None:
    async with stage.connected() as wire:
        token = named()
        wire.writer.write(message(*CREATE, ail="late", token=token, body=NEW))
        await reached(stage, wire, token)


async def closes_its_half(stage: Stage) -> None:
    for request in (b"", message(*LIST), message(*LIST)[:40], upload() + CHUNK):
        async with stage.connected() as wire:
            wire.writer.write(request)
            wire.writer.write_eof()
            await wire.rest()


async def sends_a_byte_at_a_time(stage: Stage) -> None:
    for request in (message(*LIST), upload() + b"1\r\nx\r\n" * 10 + b"0\r\n\r\n"):
        async with stage.connected() as wire:
            for place in range(len(request)):
                wire.writer.write(request[place : place + 1])
                await asyncio.sleep(0)
            told = await wire.part()
            assert told.startswith(b"HTTP/1.1 20"), told
            await wire.rest()


async def takes_nothing_of_its_download(stage: Stage) -> None:
    async with stage.connected(takes_little=True) as wire:
        wire.writer.write(message(*DOWNLOAD, ail="much"))
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        token = named()
        await stage.ask(message(*LIST, ail="hang", token=token))


async def takes_nothing_of_its_list(stage: Stage) -> None:
    async with stage.connected(takes_little=True) as wire:
        wire.writer.write(message(*LIST, ail="much"))
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await stage.ask(message(*LIST, ail="hang"))


def every_kind(ail: str, *, begins: bytes = b"") -> Scenario:
    """Return the scenario in which each kind of request meets the same ail."""

    async def all_of_them(stage: Stage) -> None:
        body = b"3\r\nabc\r\n0\r\n\r\n"
        requests = [message(*LIST, ail=ail), message(*DOWNLOAD, ail=ail), upload(ail) + body]
        requests += [message(*CREATE, ail=ail, body=NEW)]
        answers = await asyncio.gather(*map(stage.ask, requests))
        heads = [answer[:40] for answer in answers]
        assert all(head.startswith(begins) for head in heads), heads

    return all_of_them


def refused(status: int) -> Scenario:
    """Return the scenario in which uploads are refused before they were read."""

    async def with_expect_and_without(stage: Stage) -> None:
        said = b"HTTP/1.1 %d" % status
        expects = upload(f"refuse {status}", "", b"Expect: 100-continue")
        assert (await stage.ask(expects)).startswith(said)
        async with stage.connected() as wire:
            wire.writer.write(upload(f"refuse {status}"))
            with contextlib.suppress(ConnectionError):
                for _ in range(20):
                    wire.writer.write(CHUNK)
                    await wire.writer.drain()
            await wire.rest()

    return with_expect_and_without


async def registry_reads_nothing_of_an_upload(stage: Stage) -> None:
    async with stage.connected() as wire:
        wire.writer.write(upload("unread") + CHUNK * 400)
        answer = await wire.rest()
        assert answer.startswith(b"HTTP/1.1 504"), answer[:200]


async def registry_is_not_there(stage: Stage) -> None:
    for method, target in (LIST, DOWNLOAD, UPLOAD):
        answer = await stage.ask(message(method, f"/gone{target}"))
        assert answer.startswith(b"HTTP/1.1 502"), answer
    await stage.ask(message(CREATE[0], f"/gone{CREATE[1]}", body=NEW))


async def endpoint_goes_and_comes_back(stage: Stage) -> None:
    for _ in range(4):
        answer = await stage.ask(message(LIST[0], f"/back{LIST[1]}"))
        assert answer.startswith(b"HTTP/1.1 200"), answer
    async with stage.is_taken, wayward_at(stage.back_port) as back:
        while not back.served:
            await stage.ask(message(LIST[0], f"/back{LIST[1]}"))


async def too_many_are_under_way(stage: Stage) -> None:
    asked = [message(LIST[0], f"/narrow{LIST[1]}", ail="late") for _ in range(3)]
    asked += [message(DOWNLOAD[0], f"/narrow{DOWNLOAD[1]}", ail="late") for _ in range(3)]
    answers = await asyncio.gather(*map(stage.ask, asked))
    assert any(answer.startswith(b"HTTP/1.1 503") for answer in answers)


async def sends_rubbish(stage: Stage) -> None:
    for rubbish in RUBBISH:
        async with stage.connected() as wire:
            wire.writer.write(rubbish)
            wire.writer.write_eof()
            await wire.rest()


QUICK: Mapping[str, Scenario] = {
    "a client leaves before its head is whole": leaves_before_its_head_is_whole,
    "a client leaves in the middle of its upload": leaves_in_the_middle_of_its_upload,
    "a client leaves while the registry is silent": leaves_while_the_registry_is_silent,
    "a client leaves in the middle of its download": leaves_in_the_middle_of_its_download,
    "a client leaves while its list is refilled": leaves_while_its_list_is_refilled,
    "a client leaves during its create": leaves_during_its_create,
    "a client closes its half": closes_its_half,
    "a client sends a byte at a time": sends_a_byte_at_a_time,
    "a client sends rubbish": sends_rubbish,
    "a registry sends a byte at a time": every_kind("drip", begins=b"HTTP/1.1 "),
    "a registry resets an answer with a length": every_kind("rst"),
    "a registry resets a chunked answer": every_kind("rst chunked"),
    "a registry ends an answer with a length too early": every_kind("fin"),
    "a registry ends a chunked answer too early": every_kind("fin chunked"),
    "an upload is too large": refused(413),
    "an upload has no token": refused(401),
    "a registry is not there": registry_is_not_there,
    "an endpoint goes and comes back": endpoint_goes_and_comes_back,
    "too many requests are under way": too_many_are_under_way,
}
# Each of these ends by a timeout.
SLOW: Mapping[str, Scenario] = {
    "a client takes nothing of its download": takes_nothing_of_its_download,
    "a client takes nothing of its list": takes_nothing_of_its_list,
    "a registry is silent": every_kind("hang", begins=b"HTTP/1.1 504"),
    "a registry begins an answer": every_kind("begin"),
    "a registry reads nothing of an upload": registry_reads_nothing_of_an_upload,
}
