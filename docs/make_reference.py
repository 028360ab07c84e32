"""Writes docs/reference.md from the models: every field, variable, metric, command and exit code.

    .venv/bin/python docs/make_reference.py >docs/reference.md

A script and not a command of siorg-operator: job and operator do not know one another, and this page needs both.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry

import siorg_job.__main__ as job_command
import siorg_operator.__main__ as operator_command
from siorg_job import settings as job_settings
from siorg_job.commands.context import Exit
from siorg_job.metrics import JobMetrics
from siorg_operator import settings as operator_settings
from siorg_operator.api.crd import crd
from siorg_operator.api.formats import FORMS
from siorg_operator.api.pods import LEFT_TO_PEOPLE, SET_BY_THE_OPERATOR
from siorg_operator.api.schema import Schema
from siorg_operator.serving.metrics import OperatorMetrics, operator_registry

_FIRST_LINES = """\
<!-- Made from the models by docs/make_reference.py. To change it, change those, then run: make reference -->
# Reference

Every field, variable, metric, command and exit code. The meanings are those that `kubectl explain ssw.spec --recursive` and
`siorg-job settings` show. Examples are in [configure.md](configure.md); what the reasons in the status mean is in
[operator.md](operator.md).

* [The resource: spec](#the-resource-spec)
* [The resource: status](#the-resource-status)
* [Variables of the operator](#variables-of-the-operator)
* [Variables of the job](#variables-of-the-job)
* [Metrics of the operator](#metrics-of-the-operator)
* [Metrics of a job process](#metrics-of-a-job-process)
* [Commands](#commands)
* [Exit codes](#exit-codes)
"""

_ABOUT_OPERATOR_VARIABLES = """\
Read once at the start of `siorg-operator run`; `siorg-operator settings` prints this table. A variable with the prefix
`SIORG_OPERATOR_` that is not in it is refused.
"""

_ABOUT_JOB_METRICS = """\
At `/metrics` of `WORKER_METRICS_PORT`, where that is set. Jobs live too briefly to be scraped for sure: what they did is in
`siorg_operator_items_total` and its neighbours too.
"""

_EXIT_CODES = {
    Exit.DONE: ("done; also: nothing to do, and ended by SIGTERM with everything given back", "the Job counts as succeeded"),
    Exit.ERROR: ("an error that waiting will not mend: the log says which", "`JobsFailing`: probes at growing intervals"),
    Exit.USAGE: ("wrong settings, resource, or usage: stderr names each and what is allowed", "`WrongSettings`"),
    Exit.DRIFT: ("`verify` found drift: the list says where", "none: the CronJob ends 0 once its result is stored"),
    Exit.TRY_LATER: (
        "try later: database, SIORG or cluster unavailable; what was claimed was given back, its attempt uncounted",
        "`SiorgUnavailable`, `SiorgRateLimited` or `DatabaseUnavailable`: one probe at a time",
    ),
}


def reference() -> str:
    """The whole page."""
    version = crd()["spec"]["versions"][0]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    parts = [
        _FIRST_LINES,
        *_spec(properties["spec"], properties["metadata"]),
        *_status(properties["status"], version["additionalPrinterColumns"]),
        "## Variables of the operator\n",
        _ABOUT_OPERATOR_VARIABLES,
        operator_settings.ENVIRONMENT.markdown_table(),
        *_job_variables(),
        "## Metrics of the operator\n",
        "At `/metrics` of port 8080. Those with the labels `namespace` and `worker` are about one resource, and go with it.\n",
        _metrics(_operator_families()),
        "## Metrics of a job process\n",
        _ABOUT_JOB_METRICS,
        _metrics(_job_families()),
        "## Commands\n",
        *_commands(job_command.parser()),
        *_commands(operator_command.parser()),
        *_exits(),
    ]
    return "\n".join(parts)


# -- the resource -----------------------------------------------------------------------------------------------------


def _spec(spec: Schema, metadata: Schema) -> Iterator[str]:
    yield "## The resource: spec\n"
    yield (
        "`apiVersion: siorg.waterswamp.dev/v1alpha1`, `kind: SiorgSyncWorker`, short name `ssw`. `metadata.name` has at most"
        f" {metadata['properties']['name']['maxLength']} characters. *Required* is so where the part above it is given. An"
        " object of any content is taken as Kubernetes has it, and passed on.\n"
    )
    plain = {name: one for name, one in spec["properties"].items() if "properties" not in one}
    yield _fields("spec", {"properties": plain, "required": spec.get("required", ())})
    for name, one in spec["properties"].items():
        if name not in plain:
            yield f"### spec.{name}\n"
            yield one["description"] + (" Required.\n" if name in spec.get("required", ()) else "\n")
            yield from _together(one)
            yield _fields(f"spec.{name}", one)


def _status(status: Schema, columns: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    yield "## The resource: status\n"
    yield "Written by the operator alone, and only when something changed. A field that is not there is not known.\n"
    rows = ["| Field | Type | Meaning |", "|---|---|---|"]
    rows += [f"| `{path}` | {_type(one)} | {_cell(one['description'])} |" for path, one, _ in _walk("status", status)]
    yield "\n".join(rows) + "\n"
    yield "### Columns of kubectl get ssw\n"
    rows = ["| Column | From | Meaning |", "|---|---|---|"]
    for one in columns:
        wide = "" if one["priority"] == 0 else " (with `-o wide`)"
        rows.append(f"| {one['name']}{wide} | `{one['jsonPath'].removeprefix('.')}` | {_cell(one['description'])} |")
    yield "\n".join(rows) + "\n"


def _together(part: Schema) -> Iterator[str]:
    """The rules about several fields of a part, once each."""
    told = [
        f"* `{rule.get('fieldPath', '').removeprefix('.')}` {rule['message']}" for rule in _rules(part) if "fieldPath" in rule
    ]
    if told:
        yield "Refused:\n"
        yield _lines(told)


def _fields(prefix: str, part: Schema) -> str:
    rows = ["| Field | Type | Default | Allowed | Meaning |", "|---|---|---|---|---|"]
    for path, one, required in _walk(prefix, part):
        allowed = _cell("; ".join(_allowed(one)))
        rows.append(f"| `{path}` | {_type(one)} | {_default(one, required)} | {allowed} | {_cell(one['description'])} |")
    return "\n".join(rows) + "\n"


def _walk(prefix: str, part: Schema) -> Iterator[tuple[str, Schema, bool]]:
    """Every field below a part: its path, its schema, and whether it is required."""
    for name, one in part.get("properties", {}).items():
        path, required = f"{prefix}.{name}", name in part.get("required", ())
        yield path, one, required
        if one.get("type") == "array":
            yield from _walk(f"{path}[]", one["items"])
        else:
            yield from _walk(path, one)


def _type(one: Schema) -> str:
    kind = str(one.get("type", ""))
    if one.get("x-kubernetes-int-or-string"):
        return "quantity"
    if kind == "array":
        return f"list of {_type(one['items'])}s"
    if kind == "object" and "additionalProperties" in one:
        return f"map of {_type(one['additionalProperties'])}s".replace("quantitys", "quantities")
    if one.get("format") == "date-time":
        return "time"
    return kind


def _default(one: Schema, required: bool) -> str:  # noqa: FBT001 - a value, not a switch
    if required:
        return "required"
    if one.get("default") in (None, {}):
        return ""
    return f"`{json.dumps(one['default'], ensure_ascii=False)}`"


def _allowed(one: Schema) -> Iterator[str]:
    if "enum" in one:
        yield ", ".join(f"`{value}`" for value in one["enum"])
    if "minimum" in one and one.get("type") != "number" and not one.get("x-kubernetes-int-or-string"):
        yield f"{one['minimum']} to {one['maximum']}" if "maximum" in one else f"from {one['minimum']}"
    if "pattern" in one and one["pattern"] in FORMS:
        yield FORMS[one["pattern"]]
    yield from _sizes(one)
    yield from _of_rules([rule["message"] for rule in _rules(one) if "fieldPath" not in rule])
    if "items" in one and "properties" not in one["items"]:
        yield from (f"each {text}" for text in _allowed(one["items"]))
    if isinstance(one.get("additionalProperties"), Mapping):
        yield from (f"each value {text}" for text in _allowed(one["additionalProperties"]))
    if one.get("type") == "object" and one.get("x-kubernetes-preserve-unknown-fields"):
        yield "any content"


def _sizes(one: Schema) -> Iterator[str]:
    if "maxLength" in one:
        shortest = one.get("minLength", 0)
        yield f"{shortest} to {one['maxLength']} characters" if shortest else f"at most {one['maxLength']} characters"
    if "maxItems" in one or "maxProperties" in one:
        yield f"at most {one.get('maxItems', one.get('maxProperties'))} entries"
    if keys := one.get("x-kubernetes-list-map-keys"):
        yield f"each {keys[0]} once"
    elif one.get("x-kubernetes-list-type") == "set":
        yield "each value once"


def _of_rules(messages: Iterable[str]) -> Iterator[str]:
    """What each rule allows, once; what it refuses, where only that tells anything."""
    own_field = f"none of {', '.join(f'`{name}`' for name in SET_BY_THE_OPERATOR)}: each has a field of its own"
    told: dict[str, None] = {}
    for message in messages:
        wrong, _, allowed = message.partition("; allowed: ")
        if wrong == "has a field of its own":
            told[own_field] = None
        elif allowed.startswith("any other"):
            told[f"{allowed} than one that {wrong}"] = None
        else:
            told[allowed] = None
    yield from told


def _rules(one: Schema) -> list[dict[str, str]]:
    rules: list[dict[str, str]] = one.get("x-kubernetes-validations", [])
    return rules


# -- variables, metrics -----------------------------------------------------------------------------------------------


def _job_variables() -> Iterator[str]:
    yield "## Variables of the job\n"
    yield (
        "Of `siorg-job`, in a Job, in a Deployment and by hand; `siorg-job settings` lists them with their values in force. A"
        " variable with the prefix `SIORG_` or `WORKER_` that is not in it is refused."
        " [.env.example](../.env.example) has them all.\n"
    )
    yield job_settings.ENVIRONMENT.markdown_table()
    yield "### Where a resource sets them\n"
    yield (
        "In a cluster these are fields of the resource. The others go into `spec.job.podTemplate.spec.env`. Where both tables"
        " have a default, the resource's counts in a Job.\n"
    )
    rows = ["| Variable | Field |", "|---|---|"]
    rows += [f"| `{variable}` | `{path}` |" for variable, path in SET_BY_THE_OPERATOR.items()]
    rows += [f"| `{variable}` | `spec.job.podTemplate.spec.env` |" for variable in LEFT_TO_PEOPLE]
    yield "\n".join(rows) + "\n"


def _operator_families() -> Iterator[Any]:
    registry = CollectorRegistry()
    OperatorMetrics(registry)
    yield from _described(registry)
    yield from sorted(operator_registry().collect(), key=lambda family: family.name)


def _job_families() -> Iterator[Any]:
    yield from _described(JobMetrics().registry)


def _described(registry: CollectorRegistry) -> Iterator[Any]:
    """Each instrument, or, of one that is not the library's own, what it collects: the registry itself tells of samples only."""
    for one in registry._collector_to_names:
        yield from [one] if hasattr(one, "_labelnames") else one.collect()


def _metrics(families: Iterable[Any]) -> str:
    rows = ["| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    for one in families:
        kind, name, meaning, names = (
            (one._type, one._name, one._documentation, one._labelnames)
            if hasattr(one, "_labelnames") and hasattr(one, "_documentation")
            else (one.type, one.name, one.documentation, getattr(one, "_labelnames", ()))
        )
        labels = ", ".join(f"`{label}`" for label in names)
        rows.append(f"| `{name}{'_total' if kind == 'counter' else ''}` | {kind} | {labels} | {_cell(meaning)} |")
    return "\n".join(rows) + "\n"


# -- commands ---------------------------------------------------------------------------------------------------------


def _commands(root: argparse.ArgumentParser) -> Iterator[str]:
    yield f"### {root.prog}\n"
    rows = ["| Command | Options | What it does |", "|---|---|---|"]
    rows += _command_rows(root.prog, root)
    yield "\n".join(rows) + "\n"


def _command_rows(words: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for name, below in action.choices.items():
            options = "; ".join(_option(one) for one in below._actions if _is_told(one))
            meaning = below.description or helps.get(name) or ""
            yield f"| `{words} {name}` | {_cell(options)} | {_cell(meaning[:1].upper() + meaning[1:])} |"
            yield from _command_rows(f"{words} {name}", below)


def _is_told(action: argparse.Action) -> bool:
    return not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)


def _option(action: argparse.Action) -> str:
    values = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    value = "/".join(values) if isinstance(values, tuple) else values
    shown = " ".join([*action.option_strings[-1:], *([value] if value and action.nargs != 0 else [])])
    return f"`{shown}`" + (f" {action.help}" if action.help else "")


def _exits() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "The same for `siorg-job` and `siorg-operator`.\n"
    rows = ["| Code | Meaning | What the operator makes of a Job that ends so |", "|---|---|---|"]
    rows += [f"| {int(code)} | {_EXIT_CODES[code][0]} | {_EXIT_CODES[code][1]} |" for code in Exit]
    yield "\n".join(rows) + "\n"


# -- Markdown ---------------------------------------------------------------------------------------------------------


def _cell(text: str) -> str:
    """``text`` in one cell of a table."""
    escaped = re.sub(r"<([a-z]+)>", r"`<\1>`", " ".join(text.split()))
    return escaped.replace("|", "\\|")


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(_cell(text) for text in texts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
