"""What Nova asks a Cinder for when it snapshots a volume-backed instance, and nothing else."""

from __future__ import annotations

import json
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PATH = re.compile(r"/v3/[^/]+/(limits|volumes/([^/]+)|snapshots)")


class StandInCinder:
    """Volumes that are all alike: `start` it, use `url`, `stop` it."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The endpoint, without a version."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = _PATH.fullmatch(self.path)
        if found is None:
            self._answer(404, {})
        elif found[1] == "limits":
            limits = {"totalSnapshotsUsed": 0, "maxTotalSnapshots": -1}
            self._answer(200, {"limits": {"rate": [], "absolute": limits}})
        else:
            self._answer(200, {"volume": _thing(found[2], status="in-use")})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["snapshot"]
        snapshot = _thing(str(uuid.uuid4()), volume_id=asked["volume_id"], status="creating")
        self._answer(202, {"snapshot": snapshot})

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name
        """Say nothing."""

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _thing(identity: str, **more: str) -> dict[str, Any]:
    """Return a volume or a snapshot, with all that Nova reads of one."""
    return {
        "id": identity, "size": 1, "availability_zone": "nova", "attachments": [],
        "created_at": "2026-01-01T00:00:00.000000", "name": "disk", "description": "",
        "volume_type": None, "snapshot_id": None, "bootable": "true", "metadata": {},
        "os-extended-snapshot-attributes:progress": "100%", "progress": "100%", "project_id": "p",
        **more,
    }  # fmt: skip
