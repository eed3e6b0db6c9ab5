"""Handler classes by name, and what is said of a wrong one."""

from __future__ import annotations

import re
import sys
import sysconfig
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

BROKEN = {
    "broken": "1 / 0",
    "partial": "from shop.handlers import Nothing",
    "badsyn": "x = 1\ndef f(:\n",
    "through": "import json\nimport shop.badsyn",
    "typo": "from streamworker import Handler\n\nclass Store(Hander): ...",
    "optional": "from streamworker import Retry\n\nretry = Retry(atempts=3)",
    "zero": "from streamworker import Retry\n\nretry = Retry(attempts=0)",
    "unknown": "from streamworker import Handlr",
    "absent": "from streamworker import Rule\n\nrule = Rule.dead_leter(ValueError)",
    "inside": "import json\n\njson.loads('{')",
    "caused": "try:\n    {}['DB']\nexcept KeyError as error:\n    raise RuntimeError('no database') from error",
    "leaving": "import sys\n\nsys.exit('usage: app')",
    "silent": "raise RuntimeError",
    "deep": "def read():\n    raise RuntimeError('no settings')\n\ndef settings():\n    read()\n\nsettings()",
}


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
    for module, source in BROKEN.items():
        (package / f"{module}.py").write_text(source)
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


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("badsyn", "SyntaxError: invalid syntax (shop/badsyn.py, line 2)"),
        ("through", "SyntaxError: invalid syntax (shop/badsyn.py, line 2)"),
        ("broken", "ZeroDivisionError: division by zero (shop/broken.py, line 1)"),
        ("partial", "cannot import name 'Nothing' from 'shop.handlers' (shop/partial.py, line 1)"),
        ("typo", "NameError: name 'Hander' is not defined; did you mean 'Handler'? (shop/typo.py, line 3)"),
        (
            "optional",
            (
                "TypeError: Retry.__init__() got an unexpected keyword argument 'atempts'; did you mean 'attempts'?"
                " (shop/optional.py, line 3)"
            ),
        ),
        ("zero", "Retry.attempts: expected at least 1, got 0 (shop/zero.py, line 3)"),
        (
            "unknown",
            "cannot import name 'Handlr' from 'streamworker'; did you mean 'Handler'? (shop/unknown.py, line 1)",
        ),
        (
            "absent",
            (
                "AttributeError: type object 'Rule' has no attribute 'dead_leter'; did you mean 'dead_letter'?"
                " (shop/absent.py, line 3)"
            ),
        ),
        (
            "inside",
            (
                "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
                " (shop/inside.py, line 3)"
            ),
        ),
        ("caused", "RuntimeError: no database (shop/caused.py, line 4)"),
        ("leaving", "SystemExit: usage: app (shop/leaving.py, line 3)"),
        ("silent", "RuntimeError (shop/silent.py, line 1)"),
        ("deep", "RuntimeError: no settings (shop/deep.py, line 2)"),
    ],
)
def test_what_a_module_raises_is_said_with_the_place_in_the_application(
    application: Path, module: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        import_handlers([f"shop.{module}:X"], application)

    assert re.sub(r" \(/\S+\.py\)", "", str(caught.value)) == f"shop.{module} cannot be imported: {message}"


def test_the_way_to_an_error_has_the_applications_own_frames_only(application: Path) -> None:
    with pytest.raises(ConfigurationError) as deep:
        import_handlers(["shop.deep:X"], application)
    with pytest.raises(ConfigurationError) as caused:
        import_handlers(["shop.caused:X"], application)

    (way,) = deep.value.__notes__
    (cause,) = caused.value.__notes__
    assert re.findall(r'File "(.+)", line (\d+)', way) == [
        (str(application / "shop" / "deep.py"), line) for line in ("7", "5", "2")
    ]
    assert "KeyError: 'DB'" in cause


def test_an_error_in_one_place_needs_no_traceback(application: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        import_handlers(["shop.broken:X"], application)

    assert not hasattr(caught.value, "__notes__")


def test_an_application_that_is_installed_is_told_from_its_libraries(
    application: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sysconfig.get_paths()
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {**paths, "purelib": str(application)})

    with pytest.raises(ConfigurationError) as caught:
        import_handlers(["shop.inside:X"], application)

    assert str(caught.value).endswith("(shop/inside.py, line 3)")


def test_an_interrupt_while_importing_is_one(application: Path) -> None:
    (application / "shop" / "slow.py").write_text("raise KeyboardInterrupt")

    with pytest.raises(KeyboardInterrupt):
        import_handlers(["shop.slow:X"], application)
