"""The door to Jinja: templates become pages. All that is put into one is escaped, without exception.

Decides which words templates have besides their values. Any thread.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from streamworker.console import formats
from streamworker.replay.desk import Action, OperationState, Outcome, Role
from streamworker.replay.states import State

_HERE = Path(__file__).parent
# What may be fetched by name. Nothing else is ever read for a request.
_ASSETS = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "sse.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Pages:
    """Templates, and the files that pages ask for."""

    def __init__(self) -> None:
        self.assets = {name: ((_HERE / "static" / name).read_bytes(), kind) for name, kind in _ASSETS.items()}
        self._environment = environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=formats.shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(
            ago=formats.ago,
            hidden=formats.hidden,
            lasting=formats.lasting,
            lined=formats.lined,
            machine_moment=formats.machine_moment,
            marked=formats.marked,
            moment=formats.moment,
            number=formats.number,
            rate=formats.rate,
            raw=formats.raw,
            size=formats.size,
        )
        environment.globals.update(
            Action=Action,
            OperationState=OperationState,
            Outcome=Outcome,
            Role=Role,
            State=State,
            asset=self.asset,
            letter_path=formats.letter_path,
            path_of=formats.path_of,
            query=formats.query,
            term=formats.term,
        )

    def render(self, template: str, **values: object) -> str:
        """The page of that name."""
        return self._environment.get_template(template).render(values)

    def asset(self, name: str) -> str:
        """Where to fetch it; changes with its content, so that browsers may keep it."""
        content, _ = self.assets[name]
        return f"/static/{sha256(content).hexdigest()[:12]}/{name}"
