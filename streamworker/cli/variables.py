"""The names of environment variables that set options, and those that only look like one.

Decided here: which other variables are taken for a mistake. Kubernetes sets some for a service that is called
streamworker, and applications have their own, so these are warned of and never refused. Any thread.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, get_type_hints

from streamworker.config import FREE_TABLES, Config, tables
from streamworker.errors import closest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PREFIX = "STREAMWORKER__"
_OURS = re.compile(r"STREAMWORKER_+", re.IGNORECASE)
# What Kubernetes sets in each pod for a service `streamworker`, or `streamworker-…`.
_OF_A_SERVICE = re.compile(r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
# Tables below which any name may stand.
_FREE = ("kafka__librdkafka", *FREE_TABLES)
# Likeness from which a name is taken for an option's (KAFAK_GROUP 0.91, BOOTSTRAP_SERVERS 0.85; HTTP_PROXY 0.74).
_MISSPELLED = 0.8


def unread_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """What is to be said of variables that are not read and look as if they were to be."""
    for variable in sorted(environ):
        if not _OURS.match(variable) or variable.startswith(PREFIX) or _ADDRESS.match(environ[variable]):
            continue
        if meant := meant_variable(variable):
            yield f"{variable} is not read; did you mean {meant}?"


def meant_variable(variable: str) -> str | None:
    """The variable that is read which `variable` looks like, if it looks like one."""
    rest = _OURS.sub("", variable.upper(), count=1)
    if _OF_A_SERVICE.fullmatch(rest):
        return None
    for free in _FREE:
        if below := re.fullmatch(free.upper().replace("__", "_+") + "_+(.+)", rest):
            return f"{PREFIX}{free.upper()}__{below[1]}"
    name, options = re.sub("_+", "_", rest), _options()
    meant = _same_words(name, options) or closest(name, options, _MISSPELLED)
    return None if meant is None else options[meant]


def _same_words(name: str, options: Iterable[str]) -> str | None:
    """The shortest of `options` that has all words of `name`; one word alone says something of kafka's only."""
    words = set(name.split("_"))
    if len(words) == 1:
        return f"KAFKA_{name}" if f"KAFKA_{name}" in options else None
    return min((one for one in options if words <= set(one.split("_"))), key=len, default=None)


def _options() -> Mapping[str, str]:
    """The variable of each option, by its name with single underscores."""
    named = [
        (table, option.name)
        for table in tables()
        if table not in FREE_TABLES
        for option in dataclasses.fields(get_type_hints(Config)[table])
    ]
    return {f"{table}_{name}".upper(): f"{PREFIX}{table}__{name}".upper() for table, name in named}
