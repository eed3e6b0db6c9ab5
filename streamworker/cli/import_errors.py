"""What is said of an error that an application raises while it is imported.

Decided here: which frames are the application's own, the place that is named, and the nearest right name where one was
mistyped. Main thread, at start.
"""

from __future__ import annotations

import builtins
import inspect
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from streamworker import options
from streamworker.errors import ConfigurationError, closest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import FrameType

    Frames = list[tuple[FrameType, int]]

_ENGINE = Path(options.__file__).parent
_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")
_MAX_FRAMES = 10  # of a traceback; those next to the error
# Python's own likeness for names; below it a suggestion is more often wrong than right.
_MISTYPED = 0.75


def import_refusal(module: str, error: BaseException, directory: Path) -> ConfigurationError:
    """What `error`, raised while `module` was imported, comes to; files are named as seen from `directory`.

    Its note is the way to the error through the application, where there is more of it than one line.
    """
    frames = _own_frames(error, module)
    said = f"{module} cannot be imported: {_said(error)}{_hint(error, frames)}"
    refusal = ConfigurationError(said + _place(error, frames, directory))
    if len(frames) > 1 or error.__cause__ or isinstance(error, SyntaxError):
        refusal.add_note(_way(error, module))
    return refusal


def _said(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    if isinstance(error, ConfigurationError | ImportError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _own_frames(error: BaseException, module: str) -> Frames:
    frames = list(traceback.walk_tb(error.__traceback__))
    own = _ownership([frame.f_code.co_filename for frame, _ in frames], module)
    return [one for one in frames if own(one[0].f_code.co_filename)]


def _ownership(files: Sequence[str], module: str) -> Callable[[str], bool]:
    """Says of each of `files` whether it is the application's.

    That is what was not installed; of an application that is itself installed, what is in the package of `module`.
    """
    libraries = [Path(path) for name, path in sysconfig.get_paths().items() if name in _INSTALLED]
    package = module.partition(".")[0]

    def written_here(file: str) -> bool:
        return _is_source(file) and not any(Path(file).is_relative_to(path) for path in libraries)

    def in_the_package(file: str) -> bool:
        return _is_source(file) and package in Path(file).with_suffix("").parts

    kinds = (written_here, in_the_package, _is_source)
    return next((kind for kind in kinds if any(map(kind, files))), _is_source)


def _is_source(file: str) -> bool:
    """Not what is frozen or generated, nor the import itself, nor ours."""
    path = Path(file)
    return not file.startswith("<") and path.parent.name != "importlib" and not path.is_relative_to(_ENGINE)


def _place(error: BaseException, frames: Frames, directory: Path) -> str:
    file, line = (frames[-1][0].f_code.co_filename, frames[-1][1]) if frames else (None, None)
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        file, line = error.filename, error.lineno
    if file is None:
        return ""
    path = Path(file)
    shown = path.relative_to(directory) if path.is_relative_to(directory) else path
    return f" ({shown})" if line is None else f" ({shown}, line {line})"


def _way(error: BaseException, module: str) -> str:
    way = traceback.TracebackException.from_exception(error)
    waiting = [way]
    while waiting:
        one = waiting.pop()
        own = _ownership([frame.filename for frame in one.stack], module)
        one.stack[:] = [frame for frame in one.stack if own(frame.filename)][-_MAX_FRAMES:]
        waiting += [before for before in (one.__cause__, one.__context__) if before is not None]
    return "".join(way.format()).rstrip()


def _hint(error: BaseException, frames: Frames) -> str:
    word, known = _mistyped(error, frames)
    meant = closest(word, known, _MISTYPED)
    return "" if meant is None else f"; did you mean {meant!r}?"


def _mistyped(error: BaseException, frames: Frames) -> tuple[str, Iterable[str]]:
    """A name that is not there, and those that are."""
    match error:
        case NameError(name=str(name)) if frames:
            frame, _ = frames[-1]
            return name, {*frame.f_locals, *frame.f_globals, *vars(builtins)}
        case AttributeError(name=str(name), obj=type() | ModuleType() as owner):
            return name, dir(owner)
        case ImportError() if found := re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error)):
            return found[1], dir(sys.modules.get(found[2]))
        case TypeError() if found := re.fullmatch(
            r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error)
        ):
            option = getattr(options, found[1], None)
            return found[2], inspect.signature(option).parameters if isinstance(option, type) else ()
    return "", ()
