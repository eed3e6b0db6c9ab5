"""Handler classes by name, and what is said of a wrong one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from streamworker.cli.handlers import import_handlers
from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HANDLERS = """
from streamworker import Handler

class StoreOrders(Handler):
    topics = ("orders",)

    def handle(self, record): ...

LIMIT = 5
"""


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the package `shop`, forgotten after the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "handlers.py").write_text(HANDLERS)
    (package / "empty.py").write_text("")
    (package / "needy.py").write_text("import no_such_dependency")
    (package / "broken.py").write_text("1 / 0")
    (package / "partial.py").write_text("from shop.handlers import Nothing")
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def test_a_class_is_found_by_module_and_name(application: Path) -> None:
    (found,) = import_handlers(["shop.handlers:StoreOrders"], application)

    assert found.__name__ == "StoreOrders"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("shop.handlers:StoreOrder", "module 'shop.handlers' has no 'StoreOrder'; did you mean 'StoreOrders'?"),
        (
            "shop.handlers:LIMIT",
            "module 'shop.handlers' has 'LIMIT', which is no subclass of Handler or BatchHandler; known: StoreOrders",
        ),
        ("shop.empty:StoreOrders", "module 'shop.empty' has no 'StoreOrders'; there is no handler in it at all"),
        ("shop.handler:StoreOrders", "no module 'shop.handler'; did you mean 'shop.handlers'?"),
        ("shopp.handlers:StoreOrders", "no module 'shopp'; did you mean 'shop'?"),
        ("shop.needy:X", "shop.needy cannot be imported: it needs the module 'no_such_dependency'"),
        ("shop.handlers", "'shop.handlers': expected module:Class, for instance app.handlers:StoreOrders"),
        (":X", "':X': expected module:Class, for instance app.handlers:StoreOrders"),
        (
            "./shop/handlers.py:X",
            "'./shop/handlers.py:X': expected a module, not a file; did you mean 'shop.handlers:X'?",
        ),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_right_one(application: Path, reference: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        import_handlers([reference], application)

    assert str(caught.value) == message


def test_a_module_that_imports_what_is_not_there_says_so(application: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"shop\.partial cannot be imported: cannot import name 'Nothing'"):
        import_handlers(["shop.partial:X"], application)


def test_an_error_in_the_application_keeps_its_traceback(application: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        import_handlers(["shop.broken:X"], application)
