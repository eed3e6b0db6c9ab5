"""The formula of `scalingModifiers`: numbers and triggers, combined to the one metric that the autoscaler sees.

Decided here: what a formula means. KEDA evaluates formulas with the language of expr-lang; this is the part of it that
a formula over numbers needs. What is outside of it is refused, not guessed. Pure; any thread.
"""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Values = Mapping[str, float]
    Node = Callable[[Values], float]

_TOKEN = re.compile(
    r"\s*(?:(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)|([A-Za-z_]\w*)|(<=|>=|==|!=|&&|\|\||[-+*/%<>!?:(),]))"
)
_OPERATORS: Mapping[str, Callable[[float, float], float]] = {
    "||": lambda left, right: float(bool(left) or bool(right)),
    "&&": lambda left, right: float(bool(left) and bool(right)),
    "==": lambda left, right: float(left == right),
    "!=": lambda left, right: float(left != right),
    "<": lambda left, right: float(left < right),
    "<=": lambda left, right: float(left <= right),
    ">": lambda left, right: float(left > right),
    ">=": lambda left, right: float(left >= right),
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda left, right: left / right if right else math.copysign(math.inf, left) if left else math.nan,
    "%": lambda left, right: math.fmod(left, right) if right else math.nan,
}
# Weakest first.
_LEVELS = (("||",), ("&&",), ("==", "!="), ("<", "<=", ">", ">="), ("+", "-"), ("*", "/", "%"))
_WORDS = {"and": "&&", "or": "||", "not": "!"}
_OF_ONE: Mapping[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": lambda value: math.floor(value + 0.5),
}
_OF_SEVERAL: Mapping[str, Callable[[Iterable[float]], float]] = {"max": max, "min": min}


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula over triggers; `names` are those that it uses."""

    text: str
    names: frozenset[str]
    _node: Node

    @classmethod
    def of(cls, text: str, known: Sequence[str]) -> Formula:
        """Read it; `known` are the names of triggers. Raises ConfigurationError."""
        reader = _Reader(text, known)
        try:
            node = reader.ternary()
        except RecursionError:
            raise ConfigurationError("formula: it is nested too deeply") from None
        reader.expect_end()
        return cls(text, frozenset(reader.names), node)

    def value(self, triggers: Values) -> float | None:
        """What it comes to; None where that is no number, as after a division by zero."""
        result = self._node(triggers)
        return result if math.isfinite(result) else None


class _Reader:
    """Reads a formula from its front."""

    def __init__(self, text: str, known: Sequence[str]) -> None:
        self.names: set[str] = set()
        self._text = text
        self._known = known
        self._tokens = self._split(text)
        self._place = 0

    def _split(self, text: str) -> list[str]:
        tokens, at = [], 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._wrong(f"{text[at:].strip()[0]!r} is not of its language")
            at = found.end()
            token = found.group().strip()
            tokens.append(_WORDS.get(token, token))
        return tokens

    def _wrong(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"formula {self._text!r}: {what}")

    @property
    def _next(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._next
        self._place += 1
        return token

    def _expect(self, token: str) -> None:
        found = self._take()
        if found != token:
            raise self._wrong(f"expected {token!r}, got {found!r}" if found else f"expected {token!r} at its end")

    def expect_end(self) -> None:
        """Refuse what is left over."""
        if self._next:
            raise self._wrong(f"expected its end or an operator, got {self._next!r}")

    def ternary(self) -> Node:
        """`condition ? one : other`, or what stands without."""
        condition = self._operation(0)
        if self._next != "?":
            return condition
        self._take()
        one = self.ternary()
        self._expect(":")
        other = self.ternary()
        return lambda values: one(values) if condition(values) else other(values)

    def _operation(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._operand()
        left = self._operation(level + 1)
        while self._next in _LEVELS[level]:
            left = _combined(_OPERATORS[self._take()], left, self._operation(level + 1))
        return left

    def _operand(self) -> Node:
        token = self._take()
        if token == "(":  # noqa: S105 - a bracket
            inner = self.ternary()
            self._expect(")")
            return inner
        if token in {"-", "!"}:
            operand = self._operand()
            return {"-": lambda values: -operand(values), "!": lambda values: float(not operand(values))}[token]
        if token[:1].isdigit() or token[:1] == ".":
            number = float(token)
            return lambda _: number
        if token.isidentifier():
            return self._call(token) if self._next == "(" else self._name(token)
        raise self._wrong(f"expected a number or a trigger, got {token!r}" if token else "it ends too early")

    def _name(self, name: str) -> Node:
        if name in ("true", "false"):
            return lambda _: float(name == "true")
        if name not in self._known:
            raise self._wrong(f"there is no trigger {name!r}; {nearest(name, self._known)}")
        self.names.add(name)
        return lambda values: values[name]

    def _call(self, name: str) -> Node:
        if name not in (*_OF_ONE, *_OF_SEVERAL):
            raise self._wrong(f"there is no function {name!r} here; {nearest(name, [*_OF_ONE, *_OF_SEVERAL])}")
        arguments = self._arguments()
        if name in _OF_SEVERAL:
            select = _OF_SEVERAL[name]
            return lambda values: select(one(values) for one in arguments)
        if len(arguments) > 1:
            raise self._wrong(f"{name} takes one number, got {len(arguments)}")
        function, argument = _OF_ONE[name], arguments[0]
        return lambda values: function(argument(values))

    def _arguments(self) -> Sequence[Node]:
        self._expect("(")
        arguments = [self.ternary()]
        while self._next == ",":
            self._take()
            arguments.append(self.ternary())
        self._expect(")")
        return arguments


def _combined(operation: Callable[[float, float], float], left: Node, right: Node) -> Node:
    return lambda values: operation(left(values), right(values))
