"""What nginx does otherwise than relproxy, by the reasons that docs/http.md explains.

The lines are those of `wire_record.differences`. Seen with nginx 1.22.1, 1.26.3 and 1.31.5: where
these differ, each outcome is there, and SAME where one of them does as relproxy does. A short body
in chunks goes on with a length where it came together with its head.
"""

from __future__ import annotations

SAME: tuple[str, ...] = ()

_WAY = (
    "up -Via: 1.1 relproxy",
    "up -X-Forwarded-For: 127.0.0.1",
    "up -X-Forwarded-Host: a",
    "up -X-Forwarded-Proto: http",
    "down -Via: 1.1 relproxy",
)
_LENGTH = ("up -Transfer-Encoding: chunked", "up -3:abc end", "up +Content-Length: 3", "up +abc")
_PASSES_LENGTH = ("passes", *_LENGTH)
_OWN_100 = ("down +HTTP/1.1 100 Continue", "down +", "down +")

# Reason -> case -> each outcome that there may be.
# fmt: off
BESIDE: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "fields of the hop": {
        "fields of the hop stay behind": (("up +Proxy-Connection: x",), SAME),
        "credentials for a proxy stay behind": (("up +Proxy-Authorization: Basic eA==",),),
        "Trailer stays behind": (("up +Trailer: X-Sum",),),
        "what Connection names stays behind": (("up +X-Hop: 1",),),
        "what Connection names stays behind, in any case": (("up +X-Hop: 1",),),
        "a switch to HTTP/2 is not taken": (("up +HTTP2-Settings: AA",),),
        "fields of the hop of an answer stay behind": (("down +Proxy-Connection: x",),),
        "what Connection of an answer names stays behind": (("down +X-Hop: 1",),),
        "Trailer and TE of an answer stay behind": (("down +TE: x", "down +Trailer: X-Sum"),),
        "a proposal of another protocol stays behind": (("down +Upgrade: h2",),),
        "a challenge of a proxy stays behind": (("down +Proxy-Authenticate: Basic",),),
    },
    "what Connection names": {
        "Connection may not name the host": (("passes", "up -Connection: Host"),),
        "Connection may not name a token": (("passes", "up -Connection: X-Auth-Token"),),
        "Connection may not name an identity": (("passes", "up -Connection: X-Project-Id"),),
        "a length that Connection names": (("passes", "up -Connection: Content-Length"),),
    },
    "the way": {
        "the way is told": (_WAY,),
        "Via is added to": (_WAY,),
        "a client's word on its way is replaced": (
            (
                "up -Via: 1.1 relproxy", "up -X-Forwarded-For: 127.0.0.1",
                "up -X-Forwarded-Host: a", "up -X-Forwarded-Proto: http",
                "up +X-Forwarded-For: 10.0.0.1", "up +X-Forwarded-Host: evil",
                "up +X-Forwarded-Proto: https", "down -Via: 1.1 relproxy",
            ),
        ),
        "a client's Forwarded is taken out": ((*_WAY, "up +Forwarded: for=10.0.0.1"),),
        "a client's X-Real-IP is taken out": ((*_WAY, "up +X-Real-IP: 10.0.0.1"),),
    },
    "hosts": {
        "a host with user information": (("passes",), SAME),
        "a host with a port that is none": (("passes",), SAME),
        "a host that is markup": (("passes",), SAME),
        "HTTP/1.0 without a host": (("up -Host: 127.0.0.1:80",), SAME),
    },
    "absolute targets": {
        "an absolute target names the host": (("up -Host: b:9", "up +Host: a"),),
        "an absolute target without a path": (("up -Host: b", "up +Host: a"),),
        "an absolute target of another scheme": (
            ("passes", "up -GET ftp://a/v2/schemas/x HTTP/1.1", "up +GET /v2/schemas/x HTTP/1.1"),
        ),
    },
    "broken percent-encoding": {
        "a broken percent-encoding": (("answers 400",),),
    },
    "targets": {
        "an encoded line end": (("passes",),),
        "dot segments": (("passes",),),
        "encoded dot segments": (("passes",),),
        "a fragment": (("passes",),),
        "bytes above 127 in the target": (("passes",),),
    },
    "an empty query": {
        "an empty query": (("up -GET /v2/schemas/x HTTP/1.1", "up +GET /v2/schemas/x? HTTP/1.1"),),
    },
    "methods": {
        "an authority as target": (SAME, ("answers 405",)),
        "a method that nobody knows": (("passes",),),
        "TRACE": (("answers 405",),),
    },
    "long heads": {
        "a target of 9,000 bytes": (("answers 414",),),
        "a target of 17,000 bytes": (("answers 414",),),
        "200 fields": (("passes",),),
        "a field of 12,000 bytes": (("answers 400",),),
        "a field of 17,000 bytes": (("answers 400",),),
        "fields of 70,000 bytes": (("answers 400",),),
    },
    "a body of nothing": {
        "a method that only a few know": (("up -Content-Length: 0",),),
        "a POST without a body": (("up -Content-Length: 0",),),
    },
    "versions": {
        "HTTP/0.9": (
            (
                "passes", "up -GET /v2/schemas/x", "up -", "up -",
                "up -GET /v2/schemas/last HTTP/1.1", "up -Host: a",
                "up +GET /v2/schemas/x HTTP/1.1", "down -HTTP/1.1 200 OK",
                "down -Connection: close", "down -Content-Length: 2", "down -",
            ),
            (
                "passes", "up -GET /v2/schemas/x", "up -", "up -",
                "up -GET /v2/schemas/last HTTP/1.1", "up -Host: a",
                "up +GET /v2/schemas/x HTTP/1.1", "up +Host: 127.0.0.1:80",
                "down -HTTP/1.1 200 OK", "down -Connection: close", "down -Content-Length: 2",
                "down -",
            ),
        ),
        "HTTP/1.2": (
            ("passes", "up -GET /v2/schemas/x HTTP/1.2", "up +GET /v2/schemas/x HTTP/1.1"),
        ),
        "HTTP/2.0": (("answers 505",),),
    },
    "behind the last request": {
        "a request behind one that said it was the last": (
            ("passes", "up -Host: a", "up -", "up -", "up -GET /v2/schemas/last HTTP/1.1"),
        ),
    },
    "names of fields": {
        "a name of odd characters": (("up -!#$%&'*+.^`|~: 1",),),
        "an underscore in a name": (("up -X_A: 1",),),
        "a dot in a name": (("up -X.A: 1",),),
        "a line without a colon": (("passes", "up -X-A", "up +X-A: "),),
        "a name of bytes above 127": (("passes", "up -X-\\xe9: 1"),),
    },
    "values that are not UTF-8": {
        "bytes in a value that are not UTF-8": (("passes",),),
    },
    "blanks around values": {
        "blanks around a value": (("up -X-A: 1  2", "up +X-A: \\t 1  2 \\t"),),
        "blanks around a value of an answer": (("down -X-A: 1  2", "down +X-A: \\t 1  2 \\t"),),
    },
    "what only relproxy may say": {
        "an identity that a client claims": (("up +X-Project-Id: p",),),
        "a path for a WSGI server": (("up +Script-Name: /v2",),),
    },
    "100-continue": {
        "an expectation of a request without a body": (_OWN_100,),
        "a 100 that the registry says": (
            ("up -Expect: 100-continue", "down +HTTP/1.1 100 Continue", "down +", "down +"),
        ),
        "a refusal before the body is sent": (
            ("up -Expect: 100-continue", "down +HTTP/1.1 100 Continue", "down +", "down +"),
        ),
    },
    "line feeds": {
        "a line feed ends a field": (
            ("passes", "up -X-A: 1\\nX-B: 2", "up +X-A: 1", "up +X-B: 2"),
        ),
        "line feeds end every line": (
            ("passes", "up -GET /v2/schemas/x HT... (87)", "up +GET /v2/schemas/x HTTP/1.1"),
        ),
    },
    "control characters": {
        "a control character in a value": (("passes",),),
    },
    "blanks around a length": {
        "a length with blanks around it": (("answers 400",),),
    },
    "spelling of known fields": {
        "a length with zeros before it": (
            ("up -Content-Length: 0003", "up +Content-Length: 3"),
            ("up -Content-Length: 0003",),
        ),
        "a length by another spelling": (
            ("up -content-LENGTH: 3", "up +Content-Length: 3"),
            ("up -content-LENGTH: 3",),
        ),
        "the type of an answer in another spelling": (
            ("down -content-TYPE: text/plain", "down +Content-Type: text/plain"),
        ),
    },
    "framing by another name": {
        "an underscore in the name of a length": (("passes", "up -Content_Length: 3"),),
        "an underscore in the name of a coding": (("passes", "up -Transfer_Encoding: chunked"),),
    },
    "short bodies in chunks": {
        "chunked": (_LENGTH, SAME),
        "chunked in another case": (_LENGTH, SAME),
        "chunked, although Connection names it": (_LENGTH, SAME),
        "a chunk size in capital letters": (
            (
                "up -Transfer-Encoding: chunked", "up -1a:zzzzzzzzzzzzzzzzzzzzzzzzzz end",
                "up +Content-Length: 26", "up +zzzzzzzzzzzzzzzzzzzzzzzzzz",
            ),
            SAME,
        ),
        "zeros before a chunk size": (_LENGTH, SAME),
        "extensions of chunks stay behind": (_LENGTH, SAME),
        "trailers stay behind": (_LENGTH, SAME),
    },
    "chunks of HTTP/1.0": {
        "chunked in HTTP/1.0": (("answers 400",),),
    },
    "behind chunks": {
        "a request behind chunks, in good time": (_LENGTH, SAME),
        "a request behind chunks, at once": (
            (
                "up -Transfer-Encoding: chunked", "up -3:abc end", "up +Content-Length: 3",
                "up +Host: a", "up +", "up +", "up +abc", "up +GET /v2/schemas/last HTTP/1.1",
                "down +HTTP/1.1 200 OK", "down +Content-Length: 2", "down +", "down +ok",
            ),
            (
                "up +Host: a", "up +", "up +", "up +GET /v2/schemas/last HTTP/1.1",
                "down +HTTP/1.1 200 OK", "down +Content-Length: 2", "down +", "down +ok",
            ),
        ),
        "a request behind trailers": (
            (
                "up -Transfer-Encoding: chunked", "up -3:abc end", "up +Content-Length: 3",
                "up +Host: a", "up +", "up +", "up +abc", "up +GET /v2/schemas/last HTTP/1.1",
                "down +HTTP/1.1 200 OK", "down +Content-Length: 2", "down +", "down +ok",
            ),
            (
                "up +Host: a", "up +", "up +", "up +GET /v2/schemas/last HTTP/1.1",
                "down +HTTP/1.1 200 OK", "down +Content-Length: 2", "down +", "down +ok",
            ),
        ),
    },
    "codings": {
        "xchunked": (("answers 501",),),
        "chunked with a tab before it": (("answers 501",),),
        "chunked with a vertical tab before it": (("answers 501",),),
        "chunked in quotes": (("answers 501",),),
        "chunked with a parameter": (("answers 501",),),
        "chunked, gzip": (("answers 501",),),
        "gzip, chunked": (("answers 501",),),
        "chunked twice in one field": (("answers 501",),),
        "identity": (("answers 501",),),
        "no coding": (("answers 501",),),
        "chunked twice, of an answer": (("passes", "down -Transfer-Encoding: chunked"), SAME),
    },
    "chunks that two readers may read differently": {
        "a blank before an extension": (_PASSES_LENGTH,),
        "a trailer that is no field": (
            (
                "passes", "up -Transfer-Encoding: chunked", "up -3:abc end", "up -X Y",
                "up +Content-Length: 3", "up +abc",
            ),
        ),
        "a length as trailer": (
            (
                "passes", "up -Transfer-Encoding: chunked", "up -3:abc end",
                "up -Content-Length: 9", "up +Content-Length: 3", "up +abc",
            ),
        ),
        "a blank behind a chunk size": (_PASSES_LENGTH,),
        "a chunk size that ends in a line feed": (
            (
                "passes", "up -Transfer-Encoding: chunked", "up -0: broken",
                "up +Content-Length: 3", "up +Host: a", "up +", "up +", "up +abc",
                "up +GET /v2/schemas/last HTTP/1.1",
            ),
            SAME,
        ),
        "a chunk that ends in a line feed": (
            (
                "passes", "up -Transfer-Encoding: chunked", "up -3:abc broken",
                "up +Content-Length: 3", "up +Host: a", "up +", "up +", "up +abc",
                "up +GET /v2/schemas/last HTTP/1.1",
            ),
            SAME,
        ),
        "a last chunk that ends in a line feed": (
            (
                "passes", "up -Transfer-Encoding: chunked", "up -3:abc broken",
                "up +Content-Length: 3", "up +Host: a", "up +", "up +", "up +abc",
                "up +GET /v2/schemas/last HTTP/1.1",
            ),
            SAME,
        ),
    },
    "early answers": {
        "an answer while the body arrives": (("down -Connection: close",),),
    },
    "repeated fields of an answer": {
        "names of an answer keep their spelling": (SAME, ('down -etag: W/"b"',)),
    },
    "orders to nginx": {
        "what nginx itself would go by": (
            (
                "down -X-Accel-Buffering: no", "down -X-Accel-Expires: 0",
                "down -X-Accel-Limit-Rate: 0",
            ),
        ),
        "a path of nginx's own": (("answers 500", "asks 11 times"),),
    },
    "answers on two lines": {
        "a value of an answer on two lines": (("answers 502",),),
    },
    "fields of answers": {
        "a control character in a value of an answer": (("passes",),),
        "no colon in an answer": (("passes", "down -X-A", "down +X-A: "),),
    },
    "long heads of answers": {
        "200 fields of an answer": (("passes",),),
        "30,000 bytes of fields": (("answers 502",),),
    },
    "no blank behind a status": {
        "no reason, nor a blank before it": (("down -HTTP/1.1 200 ", "down +HTTP/1.1 200"),),
    },
    "first lines of answers": {
        "status 600": (("passes",),),
        "status 999": (("passes",),),
        "status 99": (("passes",),),
        "a switch of protocols that nobody asked for": (
            ("passes", "down -Connection: close", "down +Connection: upgrade"),
        ),
        "an answer in HTTP/2.0": (("passes", "down -HTTP/2.0 200 OK", "down +HTTP/1.1 200 OK"),),
        "an answer in HTTP/1.2": (("passes", "down -HTTP/1.2 200 OK", "down +HTTP/1.1 200 OK"),),
        "an answer of another protocol": (("passes", "down -Connection: close"),),
        "an answer without a head": (("passes", "down -Connection: close"),),
    },
    "interim answers": {
        "an interim 100 that nobody waits for": (_OWN_100,),
        "an interim 102": (("down +HTTP/1.1 102 Processing", "down +", "down +"),),
        "an interim 103": (
            ("down +HTTP/1.1 103 Early Hints", "down +Link: <a>", "down +", "down +"),
            SAME,
        ),
        "HEAD, behind an interim answer": (
            ("down -HTTP/1.1 200 OK", "down -Content-Length: 2", "down +HTTP/1.1 103 Early Hints"),
            SAME,
        ),
    },
    "lengths of nothing": {
        "nothing, with a length": (("down +Content-Length: 2",),),
    },
    "framing of answers before nginx 1.23": {
        "a length, then chunks": (("passes", "down -Content-Length: 2"), SAME),
        "chunks, then a length": (("passes", "down -Content-Length: 2"), SAME),
        "gzip, chunked, of an answer": (
            (
                "passes", "down -Transfer-Encoding: gzip, chunked", "down -", "down -", "down -2",
                "down -ok", "down -0", "down +Transfer-Encoding: chunked", "down +2:ok end",
            ),
            SAME,
        ),
        "identity, of an answer": (
            (
                "passes", "down -Transfer-Encoding: identity", "down -ok",
                "down +Transfer-Encoding: chunked", "down +2:ok end",
            ),
            SAME,
        ),
        "equal lengths of an answer": (("passes", "down -Content-Length: 2"), SAME),
        "two lengths of an answer": (
            ("passes", "down -Content-Length: 2", "down -ok", "down +o"),
            SAME,
        ),
        "a list of lengths of an answer": (
            (
                "passes", "down -Content-Length: 2, 2", "down -ok",
                "down +Transfer-Encoding: chunked", "down +2:ok end",
            ),
            SAME,
        ),
        "a length of an answer with a plus": (
            (
                "passes", "down -Content-Length: +2", "down -ok",
                "down +Transfer-Encoding: chunked", "down +2:ok end",
            ),
            SAME,
        ),
        "a negative length of an answer": (
            (
                "passes", "down -Content-Length: -1", "down -ok",
                "down +Transfer-Encoding: chunked", "down +2:ok end",
            ),
            SAME,
        ),
        "a length of an answer that is none": (
            (
                "passes", "down -Content-Length: x", "down -ok",
                "down +Transfer-Encoding: chunked", "down +2:ok end",
            ),
            SAME,
        ),
        "an empty length of an answer": (
            (
                "passes", "down -Content-Length:", "down -ok", "down +Transfer-Encoding: chunked",
                "down +2:ok end",
            ),
            SAME,
        ),
    },
    "framing of answers in HTTP/1.0": {
        "chunks in HTTP/1.0": (("passes", "down -HTTP/1.0 200 OK", "down +HTTP/1.1 200 OK"),),
    },
}
# fmt: on
