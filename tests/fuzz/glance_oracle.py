"""Ask a real Glance, without serving it, which action a request would reach, and with what.

Run by the interpreter of Glance's own environment: lines of JSON come in, lines of JSON go out. The
whole pipeline is Glance's (paste, its filters, its router, WebOb); only what would be done is left
out. The path is taken apart by gunicorn's own functions.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable
from typing import Any

import webob.dec
import webob.exc
from glance.api.v2 import router  # noqa: F401 - it registers options, which parsing then closes
from glance.common import config, wsgi
from gunicorn.util import split_request_uri, unquote_to_wsgi_str


def _answer(self: Any, request: Any) -> webob.Response:
    """Stand in for `Resource.__call__`: say what would be called, and do nothing."""
    arguments = self.get_action_args(request.environ)
    reached = {
        "controller": type(self.controller).__name__,
        "action": arguments.pop("action", None),
        "arguments": {name: str(value) for name, value in arguments.items()},
    }
    if reached["controller"] == "ImagesController" and reached["action"] == "index":
        try:
            reached["asked"] = self.deserializer.index(request)
        except (webob.exc.WSGIHTTPException, UnicodeDecodeError) as refusal:
            reached["refused"] = type(refusal).__name__
    return webob.Response(json_body=json.loads(json.dumps(reached, default=_plain)))


def _plain(value: Any) -> Any:
    return list(value.items()) if hasattr(value, "items") else str(value)


def _environ(
    method: str, target: str, headers: Iterable[tuple[str, str]], body: str
) -> dict[str, Any]:
    parts = split_request_uri(target)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "RAW_URI": target,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_wsgi_str(parts.path or ""),
        "QUERY_STRING": parts.query or "",
        "SERVER_NAME": "a",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body.encode()),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "CONTENT_LENGTH": str(len(body.encode())),
    }
    for name, value in headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        key = "CONTENT_TYPE" if key == "HTTP_CONTENT_TYPE" else key
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


def _asked(application: Any, line: str) -> dict[str, Any]:
    method, target, headers, body = json.loads(line)
    seen: list[str] = []

    def start_response(status: str, _headers: object, _failure: object = None) -> None:
        seen.append(status)

    try:
        body = b"".join(application(_environ(method, target, headers, body), start_response))
    except Exception as failure:  # noqa: BLE001 - a Glance that fails has reached nothing
        return {"status": 500, "failure": repr(failure)}
    status = int(seen[-1].split()[0])
    is_reached = status == 200 and body.startswith(b'{"controller"')
    return {"status": status, **(json.loads(body) if is_reached else {})}


def main() -> None:
    """Answer each line with a line."""
    config.parse_args(args=[], default_config_files=[sys.argv[1]])
    wsgi.Resource.__call__ = webob.dec.wsgify(_answer, RequestClass=wsgi.Request)
    application = config.load_paste_app("glance-api")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_asked(application, line)) + "\n")
        sys.stdout.flush()


main()
