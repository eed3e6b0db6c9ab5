from __future__ import annotations

import socket
import subprocess
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from streamworker.cli.main import main
from streamworker.config import HttpConfig
from streamworker.observability.health import Verdict
from streamworker.observability.http import HttpServer
from streamworker.observability.site import Page, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

NOT_READY = Verdict({"started": True, "joined": False, "none_stalled": False})
PAGES = {
    "/health/ready": Page.of_verdict(Verdict({"started": True})),
    "/health/live": Page.of_verdict(NOT_READY),
    "/moved": Page.of_text(HTTPStatus.FOUND, "elsewhere"),
    "/odd": Page.of_text(HTTPStatus.BAD_REQUEST, '["checks"]'),
    "/hostile": Page.of_json(HTTPStatus.BAD_REQUEST, {"checks": {"\x1b[31m": False, "joined": False}}),
}


@pytest.fixture
def port() -> Iterator[int]:
    """A site with these pages."""
    server = HttpServer(
        HttpConfig(host="127.0.0.1", port=0), Site({path: lambda _, page=page: page for path, page in PAGES.items()})
    )
    yield server.start()
    server.stop()


def healthcheck(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["healthcheck", *arguments])


@pytest.mark.parametrize("path", ["/health/ready", "/health/ready?verbose", "/moved", ""])
def test_a_page_that_answers_below_400_passes_in_silence(port: int, path: str) -> None:
    result = healthcheck("--url", f"http://127.0.0.1:{port}{path}")

    assert (result.exit_code, result.output) == (0, "")


def test_a_probe_that_fails_is_exit_code_1_and_names_its_checks(port: int) -> None:
    result = healthcheck("--url", f"http://localhost:{port}/health/live")

    assert result.exit_code == 1
    assert result.stderr == f"http://localhost:{port}/health/live: 503, not joined, none_stalled\n"


@pytest.mark.parametrize(("path", "said"), [("/odd", "400"), ("/hostile", "400, not joined"), ("/none", "404")])
def test_a_page_of_another_kind_fails_with_its_code_and_nothing_a_terminal_would_act_on(
    port: int, path: str, said: str
) -> None:
    result = healthcheck("--url", f"http://127.0.0.1:{port}{path}")

    assert result.exit_code == 1
    assert result.stderr == f"http://127.0.0.1:{port}{path}: {said}\n"


def test_where_nobody_listens_it_fails_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    result = healthcheck("--url", f"http://127.0.0.1:{port}/health/ready")

    assert result.exit_code == 1
    assert "Connection refused" in result.stderr


def test_who_does_not_answer_is_waited_for_no_longer_than_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = healthcheck("--url", f"http://127.0.0.1:{silent.getsockname()[1]}/", "--timeout-s", "1")

    assert result.exit_code == 1
    assert "timed out" in result.stderr


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1:8080/", "127.0.0.1:8080", "http:///ready", "http://x:port/", "http://x:0/", "ftp://x/"]
)
def test_a_url_that_cannot_be_asked_is_wrong_usage(url: str) -> None:
    result = healthcheck("--url", url)

    assert result.exit_code == 2
    assert f"got '{url}'" in result.stderr


def test_it_imports_no_client_and_nothing_that_draws() -> None:
    """It is run every few seconds, on the processor that the worker has."""
    code = "import sys, streamworker.cli.main as cli; cli.main(['healthcheck', '--help'], standalone_mode=False);"
    code += "print(*sys.modules)"

    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "streamworker.cli.healthcheck" in imported
    assert not {"confluent_kafka", "rich", "structlog", "asyncio", "streamworker.assembly"} & {*imported}
