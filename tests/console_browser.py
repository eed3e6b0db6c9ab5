"""Somebody at the console, without a browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from httpx2 import Response
    from starlette.testclient import TestClient

ORIGIN = "http://127.0.0.1:8090"


@dataclass
class Browser:
    """Somebody with a session, who sends forms as pages of ours do."""

    client: TestClient

    def get(self, path: str, **headers: str) -> Response:
        return self.client.get(path, headers=headers, follow_redirects=False)

    def post(self, path: str, form: dict[str, object] | None = None, **headers: str) -> Response:
        data = {"csrf": self.csrf, **(form or {})}
        return self.client.post(path, data=data, headers={"origin": ORIGIN, **headers}, follow_redirects=False)

    @property
    def csrf(self) -> str:
        return self.client.cookies["sw_csrf_8090"]

    def sign_in(self, token: str, **headers: str) -> Response:
        self.get("/login")
        return self.post("/login", {"token": token}, **headers)
