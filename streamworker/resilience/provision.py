"""What the handlers of a process get of breakers and reads: one context each, and what is behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.handler import Context
from streamworker.librdkafka import sink_settings
from streamworker.resilience.fallback import Degradation
from streamworker.resilience.gate import breakers_of
from streamworker.resilience.guard import guards_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamworker.clock import Clock
    from streamworker.config import Config
    from streamworker.declaration import Declaration
    from streamworker.interfaces import CacheProvider, Claimer
    from streamworker.work import InHand


class Provision:
    """Made once per process, before the worker and the threads of its pools, which share it.

    Raises ConfigurationError if the configuration's `degradation` names what no handler declares.
    """

    def __init__(
        self,
        declarations: Sequence[Declaration],
        *,
        config: Config,
        clock: Clock,
        claimer: Callable[[Declaration], Claimer | None] = lambda _declaration: None,
        caches: CacheProvider | None = None,
        in_hand: InHand | None = None,
    ) -> None:
        self._caches = caches
        self._in_hand = in_hand
        self.breakers = breakers_of(declarations, clock)
        self.degradation = Degradation(declarations, config.degradation)
        self.contexts = [self._context(one, config, clock, claimer(one)) for one in declarations]

    def _context(self, declaration: Declaration, config: Config, clock: Clock, claimer: Claimer | None) -> Context:
        guards = guards_of(declaration, self.breakers, clock)
        return Context(
            app=config.app,
            group=config.kafka.group,
            handler=declaration.name,
            dependencies=guards,
            reads=self.degradation.operations(declaration, guards, clock),
            sinks=config.sinks,
            claimer=claimer,
            caches=self._caches,
            in_hand=self._in_hand,
            producer=sink_settings(config.kafka, config.dead_letters),
            timeout_s=declaration.timeout_s,
            clock=clock,
        )
