"""Handler classes by name: `package.module:Class`.

Decided here: where modules are looked for and what is said of a wrong name. Whether a class is a good handler is
checked by `streamworker.handler`. Importing runs the application's code; main thread.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING, cast

from streamworker.assembly import refuse_loops
from streamworker.cli.import_errors import import_refusal
from streamworker.declaration import declarations
from streamworker.dlq.routes import Routes
from streamworker.errors import ConfigurationError, nearest
from streamworker.handler import BatchHandler, Handler
from streamworker.resilience.fallback import Degradation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import ModuleType

    from streamworker.config import Config
    from streamworker.declaration import Declaration

HandlerClass = type[Handler[object]] | type[BatchHandler[object]]


def import_handlers(references: Sequence[str], directory: Path) -> list[HandlerClass]:
    """The classes that `references` name; modules are looked for in `directory` first.

    Raises ConfigurationError for names that lead nowhere, and for what the modules raise.
    """
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    return [_handler(reference, directory) for reference in references]


def fitting_declarations(classes: Sequence[HandlerClass], config: Config) -> Sequence[Declaration]:
    """What `classes` declare, if it can work with `config` as far as no cluster is asked; raises ConfigurationError."""
    found = declarations(classes)
    refuse_loops(found)
    Degradation(found, config.degradation)
    Routes(found, config.kafka.group)
    return found


def _handler(reference: str, directory: Path) -> HandlerClass:
    module_name, colon, class_name = reference.partition(":")
    if not (module_name and colon and class_name):
        raise ConfigurationError(f"{reference!r}: expected module:Class, for instance app.handlers:StoreOrders")
    if "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigurationError(f"{reference!r}: expected a module, not a file; did you mean '{dotted}:{class_name}'?")
    return _class_in(_module(module_name, directory), class_name)


def _module(name: str, directory: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise ConfigurationError(f"no module {missing!r}; {nearest(missing, _neighbours(missing))}") from error
        raise ConfigurationError(f"{name} cannot be imported: it needs the module {missing!r}") from error
    except (Exception, SystemExit) as error:  # the application's code runs; what it raises is said, in its own words
        raise import_refusal(name, error, directory) from error


def _neighbours(missing: str) -> Iterable[str]:
    """Modules that stand where `missing` was looked for."""
    package, _, _ = missing.rpartition(".")
    if not package:
        return (module.name for module in pkgutil.iter_modules(sys.path[:1]))
    path = getattr(sys.modules.get(package), "__path__", ())
    return (f"{package}.{module.name}" for module in pkgutil.iter_modules(path))


def _class_in(module: ModuleType, name: str) -> HandlerClass:
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, Handler | BatchHandler):
        return cast("HandlerClass", found)
    known = [one for one, value in vars(module).items() if _is_handler(value)]
    what = f"no {name!r}" if found is None else f"{name!r}, which is no subclass of Handler or BatchHandler"
    hint = nearest(name, known) if known else "there is no handler in it at all"
    raise ConfigurationError(f"module {module.__name__!r} has {what}; {hint}")


def _is_handler(value: object) -> bool:
    return (
        isinstance(value, type) and issubclass(value, Handler | BatchHandler) and value not in (Handler, BatchHandler)
    )
