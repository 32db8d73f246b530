"""A stand-in for the Hub's HTTP interface: what reading and writing a model repository asks."""

from __future__ import annotations

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


TOKEN = "hf_writer"
OWNER = "me"
"""Whose ``TOKEN`` it is."""
COMMIT = "0" * 39 + "1"


class Hub(ThreadingHTTPServer):
    """Repositories in memory; to write, or to read private and gated ones, needs ``TOKEN``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.closed: dict[str, str] = {}
        """"private" or "gated", by repository."""
        self.blobs: dict[str, bytes] = {}
        self.messages: list[str] = []

    @property
    def address(self) -> str:
        """Where the endpoint is."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    ERRORS: ClassVar = {
        "RepoNotFound": 404,
        "GatedRepo": 403,
        "EntryNotFound": 404,
        "RevisionNotFound": 404,
    }

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode())

    def _error(self, code: str) -> None:
        body = json.dumps({"error": code}).encode()
        self._send(self.ERRORS[code], body, X_Error_Code=code)

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _may_read(self, repository: str) -> bool:
        """Whether it is there and open; otherwise the error is sent."""
        kind = self.server.closed.get(repository)
        if repository not in self.server.repositories or (kind == "private" and not self._known()):
            self._error("RepoNotFound")
        elif kind == "gated" and not self._known():
            self._error("GatedRepo")
        else:
            return True
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/").split("/")
        if path == ["api", "whoami-v2"]:
            if self._known():
                self._json({"name": OWNER})
            else:
                self._send(401, b'{"error": "Invalid username or password."}')
        elif path[:2] == ["api", "models"]:
            self._info("/".join(path[2:4]), path[5] if path[4:5] == ["revision"] else "main")
        elif path[2:3] == ["resolve"]:
            self._resolve("/".join(path[:2]), path[3], "/".join(path[4:]))
        else:
            self._error("EntryNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _info(self, repository: str, revision: str) -> None:
        if not self._may_read(repository):
            return
        if revision not in ("main", COMMIT):
            self._error("RevisionNotFound")
            return
        files = [{"rfilename": name} for name in self.server.repositories[repository]]
        self._json({"id": repository, "sha": COMMIT, "siblings": files})

    def _resolve(self, repository: str, revision: str, name: str) -> None:
        if not self._may_read(repository):
            return
        if revision not in ("main", COMMIT):
            self._error("RevisionNotFound")
            return
        data = self.server.repositories[repository].get(name)
        if data is None:
            body = b'{"error": "EntryNotFound"}'
            self._send(404, body, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            return
        self._send(
            200, data, ETag=f'"{_oid(data)}"', X_Repo_Commit=COMMIT,
            Content_Type="application/octet-stream",
        )  # fmt: skip

    def do_PUT(self) -> None:
        data = self._body()
        self.server.blobs[self.path.rpartition("/")[2]] = data
        self._send(200, b"")

    def do_POST(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0].strip("/").split("/")
        if path[-1] == "validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif not self._known():
            self._send(403, b'{"error": "this token may not write here"}')
        elif path == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if asked.get("private") or asked.get("visibility") == "private":
                self.server.closed[name] = "private"
            self.server.repositories.setdefault(name, {})
            self._json({"url": f"{self.server.address}/{name}", "id": name})
        elif path[4:5] == ["preupload"]:
            self._json({"files": [
                {"path": f["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".png")) else "regular"}
                for f in json.loads(body)["files"]
            ]})  # fmt: skip
        elif path[-2:] == ["objects", "batch"]:
            self._json({"transfer": "basic", "objects": [
                o | {"actions": {"upload": {"href": f"{self.server.address}/lfs/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]})  # fmt: skip
        elif path[4:5] == ["commit"]:
            self._commit("/".join(path[2:4]), body)
        else:
            self._error("EntryNotFound")

    def _commit(self, repository: str, body: bytes) -> None:
        files = self.server.repositories[repository]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                blob = self.server.blobs[value["oid"]]
                assert hashlib.sha256(blob).hexdigest() == value["oid"]
                files[value["path"]] = blob
        self._json({"success": True, "commitUrl": f"{self.server.address}/{repository}/commit/1",
                    "commitOid": COMMIT, "pullRequestUrl": None})  # fmt: skip


def _oid(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
