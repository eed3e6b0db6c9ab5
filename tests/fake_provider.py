"""An OpenID provider of the tests: it signs in whoever comes."""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from memory_desk import NOW_MS

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW_S = NOW_MS // 1000
KEYS = KeySet([RSAKey.generate_key(2048, {"kid": "one", "alg": "RS256", "use": "sig"})])


@dataclass
class FakeProvider:
    """Answers as a provider does, with what a test changes of it."""

    issuer: str = ""
    claims: dict[str, object] = field(default_factory=dict)
    document: dict[str, object] = field(default_factory=dict)
    key: object = field(default_factory=lambda: KEYS.keys[0])
    algorithm: str = "RS256"
    status: int = 200
    asked: dict[str, str] = field(default_factory=dict)  # of the token
    nonce: str = ""

    def answer(self, path: str) -> dict[str, object]:
        if path == "/.well-known/openid-configuration":
            names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            return {"issuer": self.issuer, **{k: f"{self.issuer}/{v}" for k, v in names.items()}, **self.document}
        if path == "/keys":
            return dict(KEYS.as_dict(private=False))
        return {"id_token": self.token(), "access_token": "x", "token_type": "Bearer"}

    def token(self) -> str:
        usual = {
            "iss": self.issuer, "aud": "console", "sub": "1", "exp": NOW_S + 300, "iat": NOW_S, "nonce": self.nonce,
            "preferred_username": "ada", "groups": ["ops"],
        }  # fmt: skip
        claims = {name: value for name, value in {**usual, **self.claims}.items() if value is not None}
        return jwt.encode({"alg": self.algorithm, "kid": "one"}, claims, self.key, algorithms=[self.algorithm])


@contextmanager
def fake_provider() -> Iterator[FakeProvider]:
    """One that answers."""
    fake = FakeProvider()

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(fake.answer(self.path)).encode()
            self.send_response(fake.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            fake.asked = dict(parse_qsl(self.rfile.read(length).decode()))
            fake.asked["authorization"] = b64decode(self.headers["authorization"].split()[1]).decode()
            self.do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    fake.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=[0.01], name="provider")
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()
