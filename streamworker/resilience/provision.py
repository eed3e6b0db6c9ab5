"""What the handlers of a process get of breakers and reads: one context each, and what is behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.handler import Context
from streamworker.resilience.fallback import Degradation
from streamworker.resilience.gate import breakers_of
from streamworker.resilience.guard import guards_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.declaration import Declaration


class Provision:
    """Made once per process, before the worker and the threads of its pools, which share it.

    Raises ConfigurationError if `degradation` names what no handler declares.
    """

    def __init__(
        self,
        declarations: Sequence[Declaration],
        *,
        app: Mapping[str, object],
        group: str,
        degradation: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self.breakers = breakers_of(declarations, clock)
        self.degradation = Degradation(declarations, degradation)
        self.contexts = [self._context(one, app, group, clock) for one in declarations]

    def _context(self, declaration: Declaration, app: Mapping[str, object], group: str, clock: Clock) -> Context:
        guards = guards_of(declaration, self.breakers, clock)
        return Context(
            app=app,
            group=group,
            handler=declaration.name,
            dependencies=guards,
            reads=self.degradation.operations(declaration, guards, clock),
            timeout_s=declaration.timeout_s,
            clock=clock,
        )
