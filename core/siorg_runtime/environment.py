"""Settings from the environment: read once at the start, all of it checked, every error told at once.

A program declares its settings as the fields of a frozen dataclass, each by ``setting``. A variable's name is a prefix and
the field's name in capitals, unit included. An empty value means "not set", as ``docker --env-file`` gives it; white
space around a value does not count. What is not understood is refused, and so is a variable with the program's prefixes
that nobody reads: a typo must not silently become a default.

Dataclasses and not pydantic: making one pydantic model takes 90 ms of CPU (measured 2026-11), almost half of what the
interpreter, the database driver and the HTTP client take together, and a Job that finds an empty queue should cost
little.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final

from siorg_runtime.redaction import Redactor

_SHOWN_AT_MOST = 12  # characters of a wrong value: enough to recognise it, too few for most secrets
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,9})?")
BOOLEANS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
"""What may stand for a boolean, in small letters."""
# What Kubernetes injects for each Service of the namespace, here one that is called as our variables begin:
# https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
_SERVICE_NAME = re.compile(
    r"[A-Z0-9_]+_SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)|[A-Z0-9_]+_PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?"
)
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://", re.IGNORECASE)


class SettingsError(Exception):
    """The environment does not make settings. One line for each error: ``NAME: what is wrong; …; allowed: …``."""

    def __init__(self, errors: Iterable[str]) -> None:
        """``errors``: one line each, without secrets."""
        self.errors = tuple(errors)
        super().__init__("\n".join(self.errors))


class Secret:
    """A text that is not shown by accident: neither ``str`` nor ``repr`` gives it away, and it is not pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret is not pickled: it would leave the process")


# -- how settings are declared ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """How a variable's text becomes a value.

    Attributes:
        allowed: what the value may be, for people.
        read: makes the value; raises ValueError with what is wrong, and nothing of the text.
        schema: the value's JSON schema.
    """

    allowed: str
    read: Callable[[str], Any]
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


def word(words: Mapping[str, str], allowed: str) -> Kind:
    """One of some words, in any case. ``words``: as it may be written → as it is meant."""

    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError("unsupported value")
        return words[text.lower()]

    return Kind(allowed, read, {"type": "string", "enum": list(dict.fromkeys(words.values()))})


LOG_FORMAT: Final = word({"text": "text", "json": "json"}, "text, json")
LOG_LEVEL: Final = word(
    {"debug": "debug", "info": "info", "warning": "warning", "warn": "warning", "error": "error"},
    "debug, info, warning (or warn), error",
)


def setting(
    kind: Kind, meaning: str, *, default: Any = MISSING, default_factory: Any = MISSING, unit: str = "", shown: str = "",
    hidden: bool = False,
) -> Any:  # fmt: skip
    """Declare a field of a settings dataclass; one without a default is required. ``Variable`` says what the rest means."""
    metadata = {"kind": kind, "meaning": meaning, "unit": unit, "shown": shown, "hidden": hidden}
    return field(default=default, default_factory=default_factory, metadata=metadata)


def whole(default: int | None, low: int, high: int, meaning: str, unit: str = "") -> Any:
    """Declare a field that is an integer, ``low`` to ``high``."""
    return setting(_number(_WHOLE, int, "integer", low, high), meaning, default=default, unit=unit)


def seconds(default: float, low: float, high: float, meaning: str) -> Any:
    """Declare a field of seconds, ``low`` to ``high``; ``low`` is 0.001 where a limit of no time would make no sense."""
    return setting(_number(_DECIMAL, float, "number", low, high), meaning, default=default, unit="seconds")


def _number(digits: re.Pattern[str], convert: type[int | float], name: str, low: float, high: float) -> Kind:
    def read(text: str) -> float:
        if digits.fullmatch(text) is None:
            raise ValueError(f"must be a{'n' if name == 'integer' else ''} {name} in plain decimal digits")
        number = convert(text)
        if number < low:
            raise ValueError(f"must be at least {low:.15g}")
        if number > high:
            raise ValueError(f"must be at most {high:.15g}")
        return number

    return Kind(f"{low:.15g} to {high:.15g}", read, {"type": name, "minimum": low, "maximum": high})


def switch(meaning: str, *, default: bool) -> Any:
    """Declare a field that is a boolean."""
    return setting(_SWITCH, meaning, default=default)


def _boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError("must be true or false")
    return BOOLEANS[text.lower()]


_SWITCH = Kind("true, false (also 1, 0, yes, no, on, off)", _boolean, {"type": "boolean"})


# -- how they are read ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable:
    """What there is to know of one environment variable.

    Attributes:
        name: of the variable.
        kind: how its text is read.
        default: where it is not set; as it would be written in the environment; None: nothing stands for it.
        required: there is no doing without.
        unit: of its value; empty where it has none.
        meaning: what it is for, in one line.
        shown: the default for people, where the value itself is not what they should read.
        hidden: nothing of its text is ever shown, for it may hold a secret.
    """

    name: str
    kind: Kind
    default: str | None
    required: bool
    unit: str
    meaning: str
    shown: str
    hidden: bool


def _variable(declared: Field[Any], prefix: str) -> Variable:
    required = declared.default is MISSING and declared.default_factory is MISSING
    default = None if declared.default is MISSING or declared.default is None else as_written(declared.default)
    shown = declared.metadata["shown"] or ("required" if required else "not set" if default is None else f"`{default}`")
    given = {name: declared.metadata[name] for name in ("kind", "unit", "meaning", "hidden")}
    return Variable(prefix + declared.name.upper(), default=default, required=required, shown=shown, **given)


def as_written(value: object) -> str:
    """A value as it would be written in the environment."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


class Environment:
    """The variables that make one settings dataclass."""

    def __init__(
        self, settings: type, *, ours: tuple[str, ...], listing: str, prefix: str = "", others: tuple[str, ...] = ()
    ) -> None:
        """Take the declarations from the fields of ``settings``.

        Args:
            settings: a dataclass; its fields by ``setting`` are the variables.
            ours: a variable that begins with one of these is ours, or a typo.
            listing: the command that lists the variables.
            prefix: stands before a field's name in each variable's.
            others: a variable that begins so is another program's, although it begins as ours do.
        """
        self._by_field = {
            declared.name: _variable(declared, prefix) for declared in fields(settings) if "kind" in declared.metadata
        }
        self._defaults = {declared.name: declared.default for declared in fields(settings)}
        self._ours, self._others, self._listing = ours, others, listing

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Every variable that is read, in the order in which people should meet them."""
        return tuple(self._by_field.values())

    @property
    def by_field(self) -> Mapping[str, Variable]:
        """The same, each by the name of its field."""
        return MappingProxyType(self._by_field)

    def markdown_table(self) -> str:
        """All variables as a table, for the documentation and the command ``settings``."""
        rows = [
            "| Variable | Default | Allowed | Unit | Meaning |",
            "|---|---|---|---|---|",
            *(
                f"| `{variable.name}` | {variable.shown} | {variable.kind.allowed} | {variable.unit} | {variable.meaning} |"
                for variable in self.variables
            ),
        ]
        return "\n".join(rows) + "\n"

    def read(self, environ: Mapping[str, str], fallbacks: Mapping[str, tuple[str, str]] = MappingProxyType({})) -> Reading:
        """Read each variable by itself.

        Args:
            environ: usually ``os.environ``.
            fallbacks: of a field whose variable is not set: where its text comes from instead, and that text.
        """
        given = {name: (variable.name, environ.get(variable.name, "").strip()) for name, variable in self._by_field.items()}
        given = {name: found if found[1] else fallbacks.get(name, found) for name, found in given.items()}
        reading = Reading(self._by_field, self._defaults, {name: found for name, found in given.items() if found[1]})
        reading.errors += self._unknown(environ)
        # ValueErrors become text here and are let go: attached to what is raised they would bring local variables.
        for name, (_, text) in reading.given.items():
            try:
                reading.values[name] = self._by_field[name].kind.read(_encodable(text))
            except ValueError as wrong:
                reading.refuse(name, str(wrong))
        reading.errors += [
            f"{variable.name}: is required and not set; allowed: {variable.kind.allowed}"
            for name, variable in self._by_field.items()
            if variable.required and name not in reading.given
        ]
        return reading

    def _unknown(self, environ: Mapping[str, str]) -> Iterator[str]:
        known = [variable.name for variable in self.variables]
        for name in sorted(environ):
            if not name.startswith(self._ours) or name in known or name.startswith(self._others):
                continue
            if _SERVICE_NAME.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_ADDRESS.match(environ[name].strip())):
                continue
            import difflib  # noqa: PLC0415 - for a mistake only

            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            yield f"{ascii(name[:64])[1:-1]}: unknown variable; did you mean {nearest}?; allowed: what {self._listing} lists"


@dataclass(slots=True, repr=False)  # the texts may be secrets
class Reading:
    """What an environment says: values by field, and all that is wrong with it. Checks of two variables add to both."""

    _variables: Mapping[str, Variable]
    _defaults: Mapping[str, Any]
    given: Mapping[str, tuple[str, str]]
    """Of each field with a text: where that comes from, and the text."""
    values: dict[str, Any] = field(default_factory=dict)
    """Of each field whose text was understood."""
    errors: list[str] = field(default_factory=list)
    """One line each."""

    def value(self, name: str) -> Any:
        """The value of a field, or its default where there is none or it is wrong."""
        return self.values.get(name, self._defaults[name])

    def is_wrong(self, name: str) -> bool:
        """Whether a text was given and not understood."""
        return name in self.given and name not in self.values

    def refuse(self, name: str, wrong: str) -> None:
        """Add an error of the field ``name``. ``wrong``: what is wrong, without the value."""
        variable = self._variables[name]
        origin, text = self.given.get(name, (variable.name, variable.default or ""))
        if variable.name.endswith("_PORT") and _SERVICE_ADDRESS.match(text):
            service = variable.name.removesuffix("_PORT").lower().replace("_", "-")
            wrong = (
                f"is what Kubernetes injects for a Service called {service} (rename that, or set enableServiceLinks: "
                "false on the pod)"
            )
        shown = f"{len(text)} characters"  # of what may be secret: people paste tokens into wrong lines
        if not variable.hidden and len(text) <= _SHOWN_AT_MOST:
            secrets = (secret for name, (_, secret) in self.given.items() if self._variables[name].hidden)
            shown = ascii(Redactor(secrets).text(text))
        shown += "" if name in self.given else " (the default)"
        self.errors.append(f"{origin}: {wrong}; value: {shown}; allowed: {variable.kind.allowed}")

    def checked(self) -> dict[str, Any]:
        """Return the values.

        Raises:
            SettingsError: with every error; neither it nor anything it refers to holds a secret.
        """
        if self.errors:
            raise SettingsError(self.errors)
        return self.values


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8 text") from None
    if "\0" in text:
        raise ValueError("must not have a NUL character in it")
    return text
