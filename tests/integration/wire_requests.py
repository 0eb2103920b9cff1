"""Heads of requests: targets, hosts, fields, versions, and what is refused of them."""

from __future__ import annotations

from tests.integration.recorder import OK
from tests.integration.wire_case import CLOSE, LAST, Case, answered, closing, get, line

_GET = b"GET /v2/schemas/x HTTP/1.1\r\nHost: a\r\n"


def _to(target: bytes, raw: bytes | None = None) -> Case:
    up = None if raw is None else get(target=raw).replace(CLOSE, b"")
    return Case(get(target=target), up=up)


def _sent(fields: bytes, gone: bytes | None = None) -> Case:
    """Return a request with some fields, of which those of `gone` don't go on."""
    return Case(get(fields), up=None if gone is None else _GET + gone + b"\r\n")


def _refused(request: bytes, status: int = 400) -> Case:
    """Return a request that is refused, and one behind it that is then never read."""
    return Case(request.replace(CLOSE, b"") + LAST, status=status)


def _host(fields: bytes, status: int | None = None) -> Case:
    request = line(b"GET /v2/schemas/x HTTP/1.1", fields)
    return _refused(request, status) if status else Case(request)


HOP_BY_HOP = {
    "fields of the hop stay behind": _sent(
        b"Keep-Alive: timeout=9\r\nProxy-Connection: x\r\nX-A: 1\r\n", b"X-A: 1\r\n"
    ),
    "credentials for a proxy stay behind": _sent(b"Proxy-Authorization: Basic eA==\r\n", b""),
    "TE stays behind, because trailers do": _sent(b"TE: trailers\r\n", b""),
    "Trailer stays behind": _sent(b"Trailer: X-Sum\r\n", b""),
    "what Connection names stays behind": Case(
        get(b"X-Hop: 1\r\nConnection: X-Hop\r\nX-A: 1\r\n"),
        up=_GET + b"X-A: 1\r\n\r\n",
    ),
    "what Connection names stays behind, in any case": Case(
        get(b"X-Hop: 1\r\nconnection: x-hOP,,\r\n"),
        up=_GET + b"\r\n",
    ),
    "Connection may not name the host": _refused(_GET + b"Connection: Host\r\n\r\n"),
    "Connection may not name a token": _refused(
        _GET + b"Connection: X-Auth-Token\r\nX-Auth-Token: t\r\n\r\n"
    ),
    "Connection may not name an identity": _refused(
        _GET + b"Connection: X-Project-Id\r\nX-Project-Id: p\r\n\r\n"
    ),
    "a switch to a websocket is not taken": Case(
        _GET + b"Connection: Upgrade, close\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n",
        up=_GET + b"Sec-WebSocket-Version: 13\r\n\r\n",
    ),
    "a switch to HTTP/2 is not taken": Case(
        _GET + b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AA\r\n\r\n",
        up=_GET + b"\r\n",
    ),
}  # fmt: skip

_WAY = b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n"
_VIA = b"Via: 1.1 relproxy\r\n"
_OK_VIA = closing(OK).replace(CLOSE, _VIA + CLOSE)


def _way(fields: bytes, up: bytes) -> Case:
    return Case(get(fields), up=_GET + up + b"\r\n", down=_OK_VIA, tells_way=True)


WAY = {
    "the way is told": _way(b"", _WAY + _VIA),
    "Via is added to": _way(b"Via: 1.0 fred\r\n", b"Via: 1.0 fred\r\n" + _WAY + _VIA),
    "a client's word on its way is replaced": _way(
        b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n",
        _WAY + _VIA,
    ),
    "a client's Forwarded is taken out": _way(b"Forwarded: for=10.0.0.1\r\n", _WAY + _VIA),
    "a client's X-Real-IP is taken out": _way(b"X-Real-IP: 10.0.0.1\r\n", _WAY + _VIA),
}

HOSTS = {
    "the host goes on with its port": Case(
        line(b"GET /v2/schemas/x HTTP/1.1", b"Host: Images.Example:8080\r\n")
    ),
    "an address as host goes on": Case(line(b"GET /v2/schemas/x HTTP/1.1", b"Host: [::1]:80\r\n")),
    "no host": _host(b"", 400),
    "two hosts": _host(b"Host: a\r\nHost: b\r\n", 400),
    "one host twice": _host(b"Host: a\r\nHost: a\r\n", 400),
    "an empty host": _host(b"Host:\r\n", 400),
    "a host with user information": _host(b"Host: u@a\r\n", 400),
    "a host with a path": _host(b"Host: a/b\r\n", 400),
    "a list of hosts": _host(b"Host: a, b\r\n", 400),
    "a host with a blank in it": _host(b"Host: a b\r\n", 400),
    "a host with a port that is none": _host(b"Host: a:b\r\n", 400),
    "a host that is markup": _host(b'Host: a"<x>\r\n', 400),
    "an absolute target names the host": Case(
        get(target=b"http://b:9/v2/schemas/x"),
        up=b"GET /v2/schemas/x HTTP/1.1\r\nHost: b:9\r\n\r\n",
    ),
    "an absolute target without a path": Case(
        get(target=b"http://b"), up=b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"
    ),
    "an absolute target of another scheme": _refused(get(target=b"ftp://a/v2/schemas/x")),
    "an absolute target with user information": _refused(get(target=b"http://u@a/v2/schemas/x")),
}

TARGETS = {
    "percent-encoded bytes stay as they are": _to(b"/v2/schemas/%78%2f%C3%A9"),
    "percent-encoding in small letters stays": _to(b"/v2/nothing/a%2fb%3a"),
    "a broken percent-encoding": _to(b"/v2/nothing/%zz%"),
    "an encoded zero": _refused(get(target=b"/v2/nothing/%00")),
    "an encoded line end": _refused(get(target=b"/v2/nothing/%0d%0aX")),
    "slashes that repeat stay": _to(b"/v2/nothing//a///b"),
    "two slashes at the beginning": _to(b"//v2/nothing"),
    "dot segments": _refused(get(target=b"/v2/schemas/../images")),
    "encoded dot segments": _refused(get(target=b"/v2/schemas/%2e%2e/images")),
    "dot segments above the root": _refused(get(target=b"/../../x")),
    "a query goes on as it came": _to(b"/v2/schemas/x?a=1&&b=%20+?/;c[]={}"),
    "an empty query": _to(b"/v2/schemas/x?", b"/v2/schemas/x"),
    "odd characters that a path may have": _to(b"/v2/nothing/!$&'()*+,;=:@~"),
    "characters that a path may not have, but has": _to(b'/v2/nothing/a|b^c"<>`{}\\d'),
    "a fragment": _refused(get(target=b"/v2/schemas/x#y")),
    "bytes above 127 in the target": _refused(get(target=b"/v2/nothing/\xc3\xa9")),
    "a control character in the target": _refused(get(target=b"/v2/nothing/\x01")),
    "an asterisk": _refused(line(b"OPTIONS * HTTP/1.1")),
    "an authority as target": _refused(line(b"CONNECT a:80 HTTP/1.1")),
    "an authority as target of a GET": _refused(get(target=b"a:80")),
    "a target without a slash": _refused(get(target=b"v2/schemas/x")),
    "a blank in the target": _refused(get(target=b"/v2/schemas/x y")),
    "a tab for a blank in the first line": _refused(line(b"GET\t/v2/schemas/x\tHTTP/1.1")),
    "two blanks behind the method": Case(line(b"GET  /v2/schemas/x HTTP/1.1"), up=_GET + b"\r\n"),
    "a target of 9,000 bytes": _to(b"/v2/schemas/" + b"x" * 9_000),
    "a target of 17,000 bytes": _refused(get(target=b"/" + b"x" * 17_000), 431),
}

METHODS = {
    "HEAD": Case(
        line(b"HEAD /v2/schemas/x HTTP/1.1"),
        answered(b"Content-Length: 9\r\n", b""),
    ),
    "OPTIONS": Case(
        line(b"OPTIONS /v2/schemas/x HTTP/1.1"),
        answered(b"Allow: GET\r\nContent-Length: 0\r\n", b"", b"HTTP/1.1 200 OK"),
    ),
    "a preflight of a browser": Case(
        line(
            b"OPTIONS /v2/images/x/file HTTP/1.1",
            b"Host: a\r\nOrigin: https://cloud.example\r\nAccess-Control-Request-Method: PUT\r\n"
            b"Access-Control-Request-Headers: x-auth-token\r\n",
        ),
        answered(
            b"Access-Control-Allow-Origin: https://cloud.example\r\n"
            b"Access-Control-Allow-Methods: PUT\r\nVary: Origin\r\nContent-Length: 0\r\n", b"",
        ),
    ),
    "a method that only a few know": Case(
        line(b"PROPFIND /v2/schemas/x HTTP/1.1"),
        up=b"PROPFIND /v2/schemas/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ),
    "a method that nobody knows": _refused(line(b"FOO /v2/schemas/x HTTP/1.1")),
    "a method in small letters": _refused(line(b"get /v2/schemas/x HTTP/1.1")),
    "TRACE": _refused(line(b"TRACE /v2/schemas/x HTTP/1.1")),
    "a POST without a body": Case(
        line(b"POST /v2/nothing HTTP/1.1"),
        up=b"POST /v2/nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ),
    "HTTP/1.0": Case(line(b"GET /v2/schemas/x HTTP/1.0"), up=_GET + b"\r\n"),
    "HTTP/1.0 that would be kept": Case(
        _GET.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n\r\n"
        + line(b"GET /v2/schemas/x HTTP/1.0"),
        up=(_GET + b"\r\n") * 2,
        down=OK.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n") + closing(OK),
    ),
    "HTTP/1.0 without a host": Case(
        line(b"GET /v2/schemas/x HTTP/1.0", b""),
        up=_GET.replace(b"Host: a", b"Host: 127.0.0.1:80") + b"\r\n",
    ),
    "HTTP/0.9": _refused(b"GET /v2/schemas/x\r\n\r\n"),
    "HTTP/1.2": _refused(line(b"GET /v2/schemas/x HTTP/1.2")),
    "HTTP/2.0": _refused(line(b"GET /v2/schemas/x HTTP/2.0")),
    "the preface of HTTP/2": _refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a version in small letters": _refused(line(b"GET /v2/schemas/x http/1.1")),
    "the head of the PROXY protocol": _refused(
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + get()
    ),
    "the binary head of the PROXY protocol": _refused(
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12) + get()
    ),
    "an empty line before the request": Case(b"\r\n" + get(), up=_GET + b"\r\n"),
    "two requests at once": Case(_GET + b"\r\n" + LAST),
    "a request behind one that said it was the last": Case(get() + LAST, status=400),
}  # fmt: skip

FIELDS = {
    "repeated fields keep their order": _sent(b"X-A: 1\r\nX-B: 2\r\nX-A: 3\r\nx-a: 4\r\n"),
    "two tokens go on": _sent(b"X-Auth-Token: a\r\nX-Auth-Token: b\r\n"),
    "cookies stay as many as they are": _sent(b"Cookie: a=1\r\nCookie: b=2\r\n"),
    "names keep their spelling": _sent(b"x-aB-CD: 1\r\nuser-AGENT: x\r\nACCEPT: */*\r\n"),
    "a name of odd characters": _sent(b"!#$%&'*+.^`|~: 1\r\n"),
    "an underscore in a name": _sent(b"X_A: 1\r\n"),
    "a dot in a name": _sent(b"X.A: 1\r\n"),
    "bytes above 127 in a value": _sent(b"X-A: \xc3\xa9\r\n"),
    "bytes in a value that are not UTF-8": _refused(get(b"X-A: \xe9\r\n")),
    "an empty value": _sent(b"X-A: \r\n"),
    "a value of nothing at all": _sent(b"X-A:\r\n", b"X-A: \r\n"),
    "blanks around a value": _sent(b"X-A: \t 1  2 \t \r\n", b"X-A: 1  2\r\n"),
    "no blank before a value": _sent(b"X-A:1\r\n", b"X-A: 1\r\n"),
    "a tab in a value": _sent(b"X-A: 1\t2\r\n"),
    "quotes and commas in a value": _sent(b'X-A: "a, \\"b", ,c;d="e\r\n'),
    "conditions, ranges and codings go on": _sent(
        b'If-None-Match: "a"\r\nIf-Modified-Since: x\r\nRange: bytes=0-1\r\nIf-Range: "a"\r\n'
        b"Accept-Encoding: gzip, br\r\n"
    ),
    "an identity that a client claims": _sent(b"X-Project-Id: p\r\nX_Roles: admin\r\n", b""),
    "a path for a WSGI server": _sent(b"Script-Name: /v2\r\nPATH_INFO: /v2\r\n", b""),
    "an expectation of a request without a body": _sent(b"Expect: 100-continue\r\n", b""),
    "an expectation that nobody knows": _sent(b"Expect: 200-maybe\r\n", b""),
    "a value on two lines": _refused(get(b"X-A: 1\r\n 2\r\n")),
    "a blank before the first field": _refused(
        line(b"GET /v2/schemas/x HTTP/1.1", b" Host: a\r\n")
    ),
    "a blank before a colon": _refused(get(b"X-A : 1\r\n")),
    "a blank in a name": _refused(get(b"X A: 1\r\n")),
    "a line without a colon": _refused(get(b"X-A\r\n")),
    "no name": _refused(get(b": 1\r\n")),
    "a name of bytes above 127": _refused(get(b"X-\xe9: 1\r\n")),
    "a carriage return in a value": _refused(get(b"X-A: 1\rX-B: 2\r\n")),
    "a line feed ends a field": _refused(get(b"X-A: 1\nX-B: 2\r\n")),
    "line feeds end every line": _refused(get().replace(b"\r\n", b"\n")),
    "a zero in a value": _refused(get(b"X-A: 1\x002\r\n")),
    "a zero in a name": _refused(get(b"X\0A: 1\r\n")),
    "a control character in a value": _refused(get(b"X-A: 1\x012\r\n")),
    "126 fields": _sent(b"".join(b"X-%d: 1\r\n" % n for n in range(125))),
    "200 fields": _refused(get(b"".join(b"X-%d: 1\r\n" % n for n in range(200))), 431),
    "a field of 7,000 bytes": _sent(b"X-Auth-Token: " + b"t" * 7_000 + b"\r\n"),
    "a field of 12,000 bytes": _sent(b"X-Auth-Token: " + b"t" * 12_000 + b"\r\n"),
    "a field of 17,000 bytes": _refused(get(b"X-Auth-Token: " + b"t" * 17_000 + b"\r\n"), 431),
    "fields of 70,000 bytes": _refused(
        get(b"".join(b"X-%d: " % n + b"x" * 7_000 + b"\r\n" for n in range(10))), 431
    ),
}  # fmt: skip

REQUESTS = {**HOP_BY_HOP, **WAY, **HOSTS, **TARGETS, **METHODS, **FIELDS}
