"""HTTP in, HTTP out: reads a request, has it carried out, words the answer."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from aiohttp import hdrs, web

from kube_double import discovery, openapi
from kube_double.authorizer import READS_FOR_ALL, Accounts, allowed
from kube_double.core_events import as_core
from kube_double.definitions import Definitions
from kube_double.deletion import DeleteOptions, delete, delete_collection
from kube_double.kinds import Kind, Kinds
from kube_double.observed_requests import Hooks, Moment, Request, Trouble
from kube_double.patches import json_patch, merge_patch
from kube_double.refused import (
    Body,
    Refused,
    bad_request,
    expired,
    forbidden,
    invalid_object,
    no_such_path,
    not_allowed,
    required,
    unsupported,
    unsupported_media_type,
)
from kube_double.registry import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, Options, Registry, Written
from kube_double.routes import Route, route
from kube_double.scale import scale_of, scaled
from kube_double.selectors import by_fields, by_labels, labels_of
from kube_double.shown import Form, Shown, form_of
from kube_double.store import Entry, serialized
from kube_double.watching import Wanted, Watches

_DISCOVERY_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_WATCH_SECONDS = 1800.0
_ADMIN = "system:admin"
_SERVICE_ACCOUNT = "system:serviceaccount:"
_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
            422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes out."""

    text: bytes
    code: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass(slots=True)
class Answering:
    """Answers requests, one at a time."""

    registry: Registry
    kinds: Kinds
    definitions: Definitions
    watches: Watches
    hooks: Hooks
    accounts: Callable[[], Accounts | None]
    host: Callable[[], str]
    record: Callable[[Request], None]
    logs: Callable[[str, str, str], str]
    crashes: list[str] = field(default_factory=list)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Carry out one request and answer it; tests' troubles and callbacks come in between."""
        target, asked = self._read(request)
        trouble = self.hooks.trouble_for(asked)
        if trouble is not None:
            if trouble.delay:
                await asyncio.sleep(trouble.delay)
            if trouble.hang:
                await trouble.over.wait()
            if not trouble.carried_out and (trouble.drop or trouble.status):
                return await self._refuse(request, asked, trouble)
        try:
            user = self._user(request)
            asked = replace(asked, user=user)
            self._authorize(user, target, asked)
            if target is not None and target.verb == "watch":
                return await self._watch(request, target, asked)
            body = await request.read()
            answer = self._carry_out(request, target, body, user)
        except Refused as refused:
            answer = _failure(refused)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001  a server answers 500; the test hears of it at the end
            self.crashes.append(f"{request.method} {request.path_qs}\n{traceback.format_exc()}")
            answer = _failure(Refused(500, "InternalError", "Internal error occurred: " + traceback.format_exc(limit=-1), {}))
        if trouble is not None and trouble.carried_out:
            asked = replace(asked, status=answer.code)
            return await self._refuse(request, asked, trouble)
        return await self._send(request, replace(asked, status=answer.code), answer)

    def _read(self, request: web.BaseRequest) -> tuple[Route | None, Request]:
        query = request.query
        watch = query.get("watch", "").lower() in ("true", "1")
        target = route(self.kinds, request.method, request.path, watch=watch)
        asked = Request(time.monotonic(), request.method, request.path, request.method.lower(),
                        user_agent=request.headers.get(hdrs.USER_AGENT, ""))  # fmt: skip
        if target is not None:
            asked = replace(asked, verb=target.verb, group=target.kind.group, resource=target.kind.plural,
                            subresource=target.subresource, namespace=target.place, name=target.name)  # fmt: skip
        return target, asked

    async def _refuse(self, request: web.BaseRequest, asked: Request, trouble: Trouble) -> web.StreamResponse:
        if trouble.drop or trouble.status is None:
            self.record(asked)
            await self._call_back("before", asked)
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        reason = _REASONS.get(trouble.status, "Unknown")
        refused = Refused(trouble.status, reason, trouble.message or f"{reason}: this test wants it so", {})
        answer = _failure(refused)
        if trouble.status == 429:
            answer = replace(answer, headers={"Retry-After": "1"})
        return await self._send(request, replace(asked, status=trouble.status), answer)

    async def _send(self, request: web.BaseRequest, asked: Request, answer: Answer) -> web.StreamResponse:
        self.record(asked)
        await self._call_back("before", asked)
        response = web.Response(body=answer.text, status=answer.code, headers=answer.headers)
        response.headers[hdrs.CONTENT_TYPE] = answer.content_type
        if self.hooks.at("after"):
            with suppress(ConnectionError):
                await response.prepare(request)
                await response.write_eof()
            await self._call_back("after", asked)
        return response

    async def _call_back(self, moment: Moment, asked: Request) -> None:
        # In a thread: a callback may wait for a process, or ask this very server.
        for hook in self.hooks.at(moment):
            await asyncio.to_thread(hook.call, asked)

    # Who may

    def _user(self, request: web.BaseRequest) -> str:
        accounts = self.accounts()
        token = request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ").strip()
        if accounts is None or not token:
            return _ADMIN
        if token not in accounts:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return _SERVICE_ACCOUNT + token

    def _authorize(self, user: str, target: Route | None, asked: Request) -> None:
        if target is not None:
            self._check(user, target, target.verb)
        elif user != _ADMIN and not asked.path.startswith(READS_FOR_ALL):
            raise Refused(403, "Forbidden", f'forbidden: User "{user}" cannot {asked.verb} path "{asked.path}"', {})

    def _check(self, user: str, target: Route, verb: str) -> None:
        accounts, kind = self.accounts(), target.kind
        if accounts is None or user == _ADMIN:
            return
        rules = accounts.get(user.removeprefix(_SERVICE_ACCOUNT), ())
        if not allowed(rules, verb, kind.group, target.resource, target.place, target.name):
            raise not_allowed(user, verb, kind.group, target.resource, target.name, target.place)

    def _review(self, body: Body, user: str) -> Body:
        attributes = body.get("spec", {}).get("resourceAttributes") or {}
        accounts, resource = self.accounts(), attributes.get("resource", "")
        if attributes.get("subresource"):
            resource = f"{resource}/{attributes['subresource']}"
        token = user.removeprefix(_SERVICE_ACCOUNT)
        may = accounts is None or token not in accounts or allowed(
            accounts[token], attributes.get("verb", ""), attributes.get("group", ""), resource,
            attributes.get("namespace", ""), attributes.get("name", ""))  # fmt: skip
        return {**body, "kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
                "metadata": {}, "status": {"allowed": may}}  # fmt: skip

    # What

    def _carry_out(self, request: web.BaseRequest, target: Route | None, body: bytes, user: str) -> Answer:
        if target is None:
            return self._other(request, body, user)
        match target.verb:
            case "get":
                return self._get(request, target)
            case "list":
                return self._list(request, target)
            case "create":
                return self._create(request, target, body)
            case "update":
                return self._update(request, target, body)
            case "patch":
                return self._patch(request, target, body, user)
            case "delete":
                options = self._delete_options(request, body)
                shown = self._shown(request, target)
                gone = delete(self.registry, target.kind, target.place, target.name, options)
                return Answer(serialized(shown.body(gone) if gone.get("kind") == target.kind.kind else gone))
        options = self._delete_options(request, body)
        entries = delete_collection(self.registry, target.kind, target.namespace, self._selector(request, target), options)
        metadata: Body = {"resourceVersion": str(self.registry.store.version)}
        return Answer(self._shown(request, target).many(entries, metadata))

    def _other(self, request: web.BaseRequest, body: bytes, user: str) -> Answer:
        path = request.path.rstrip("/")
        parts = path.strip("/").split("/")
        if path in ("/healthz", "/readyz", "/livez"):
            return Answer(b"ok", content_type="text/plain; charset=utf-8")
        if path == "/version":
            return Answer(serialized(discovery.VERSION))
        if path in ("/api", "/apis") and "g=apidiscovery.k8s.io;v=v2;" in request.headers.get(hdrs.ACCEPT, ""):
            whole = discovery.aggregated(self.kinds, core=path == "/api")
            return Answer(serialized(whole), content_type=_DISCOVERY_TYPE)
        if path.endswith("/selfsubjectaccessreviews") and request.method == "POST":
            return Answer(serialized(self._review(self._document(request, body), user)), 201)
        found: Body | None = None
        match parts:
            case ["api"]:
                found = discovery.core_versions(self.host())
            case ["api", version]:
                found = discovery.resources(self.kinds, "", version)
            case ["apis"]:
                found = discovery.groups(self.kinds)
            case ["apis", group]:
                found = discovery.group(self.kinds, group)
            case ["apis", group, version]:
                found = discovery.resources(self.kinds, group, version)
            case ["openapi", "v3"]:
                found = openapi.index(self.kinds)
            case ["openapi", "v3", *_]:
                found = openapi.document(self.kinds, path, self._schema_of)
        if found is not None:
            return Answer(serialized(found))
        if len(parts) > 1 and any(kind.group == parts[1] for kind in self.kinds):
            raise no_such_path()
        return Answer(b"404 page not found\n", 404, content_type="text/plain; charset=utf-8")

    def _schema_of(self, kind: Kind) -> Mapping[str, Any] | None:
        version = self.definitions.version(kind)
        return None if version is None else version.schema

    def _shown(self, request: web.BaseRequest, target: Route) -> Shown:
        form = form_of(request.headers.get(hdrs.ACCEPT, ""))
        return Shown(target.kind, self.definitions, form, request.query.get("includeObject", "Metadata"))

    def _get(self, request: web.BaseRequest, target: Route) -> Answer:
        entry = self.registry.entry(target.kind, target.place, target.name)
        if target.subresource == "scale":
            return Answer(serialized(scale_of(entry.body, self._scale_paths(target))))
        if target.subresource == "log":
            text = self.logs(target.place, target.name, request.query.get("container", ""))
            return Answer(text.encode(), content_type="text/plain")
        return Answer(self._shown(request, target).one(entry))

    def _scale_paths(self, target: Route) -> Mapping[str, str]:
        version = self.definitions.version(target.kind)
        if version is None or version.scale is None:
            raise no_such_path()
        return version.scale

    def _selector(self, request: web.BaseRequest, target: Route) -> Callable[[Entry], bool] | None:
        tests: list[Callable[[Entry], bool]] = []
        if labels := request.query.get("labelSelector"):
            by_label = by_labels(labels)
            tests.append(lambda entry: by_label(labels_of(entry.body)))
        if fields := request.query.get("fieldSelector"):
            version = self.definitions.version(target.kind) if target.kind.custom else None
            by_field = by_fields(target.kind, fields, version.selectable if version is not None else ())
            tests.append(lambda entry: by_field(entry.body))
        if target.name:
            name = target.name
            tests.append(lambda entry: entry.key[1] == name)
        if not tests:
            return None
        return tests[0] if len(tests) == 1 else lambda entry: all(test(entry) for test in tests)

    def _list(self, request: web.BaseRequest, target: Route) -> Answer:
        query = request.query
        version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
        self._check_list_version(target, version, match)
        try:
            limit = int(query.get("limit") or 0)
        except ValueError:
            raise bad_request(f'strconv.ParseInt: parsing "{query["limit"]}": invalid syntax') from None
        page = self.registry.page(
            target.kind, target.namespace, self._selector(request, target), limit, query.get("continue", "")
        )
        metadata: Body = {"resourceVersion": str(page.version)}
        if page.token:
            metadata["continue"] = page.token
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
        return Answer(self._shown(request, target).many(page.entries, metadata))

    def _check_list_version(self, target: Route, version: str, match: str) -> None:
        if match and not version:
            why = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            raise invalid_object("meta.k8s.io", "ListOptions", "", [forbidden("resourceVersionMatch", why)])
        if not version:
            return
        if not version.isdigit():
            why = f'Invalid value: "{version}": strconv.ParseUint: parsing "{version}": invalid syntax'
            raise bad_request(f"invalid resource version: resourceVersion: {why}")
        current = self.registry.store.version
        if int(version) > current:
            causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
            raise Refused(504, "Timeout", f"Timeout: Too large resource version: {version}, current: {current}",
                          {"causes": causes, "retryAfterSeconds": 1})  # fmt: skip
        if match == "Exact" and int(version) < current:
            # The past is not kept; the real server knows it for some minutes.
            raise expired("The resourceVersion for the provided list is too old.")

    def _options(self, request: web.BaseRequest) -> Options:
        query = request.query
        agent = request.headers.get(hdrs.USER_AGENT, "").partition("/")[0] or "unknown"
        dry_run = query.get("dryRun", "")
        if dry_run not in ("", "All"):
            options = {"POST": "CreateOptions", "PUT": "UpdateOptions"}.get(request.method, "PatchOptions")
            raise invalid_object("meta.k8s.io", options, "", [unsupported("dryRun", [dry_run], ("All",))])
        return Options(query.get("fieldManager", agent), bool(dry_run), query.get("force", "").lower() == "true",
                       query.get("fieldValidation") or "Warn")  # fmt: skip

    def _delete_options(self, request: web.BaseRequest, body: bytes) -> DeleteOptions:
        document = self._document(request, body) if body else None
        return DeleteOptions.of(lambda name: request.query.get(name, ""), document)

    def _document(self, request: web.BaseRequest, body: bytes) -> Any:
        kind = request.headers.get(hdrs.CONTENT_TYPE, "application/json").partition(";")[0].strip()
        try:
            if kind in ("application/json", "", JSON_PATCH, MERGE_PATCH, "application/strategic-merge-patch+json"):
                return json.loads(body)
            if kind in ("application/yaml", APPLY_PATCH):
                # JSON is YAML, and reads a hundred times faster as what it is.
                return json.loads(body) if body.lstrip()[:1] == b"{" else yaml.safe_load(body)
        except (ValueError, yaml.YAMLError) as error:
            raise bad_request(
                f"the object provided is unrecognized: couldn't get version/kind; json parse error: {error}"
            ) from None
        raise unsupported_media_type(("application/json", "application/yaml", "application/vnd.kubernetes.protobuf"))

    def _create(self, request: web.BaseRequest, target: Route, body: bytes) -> Answer:
        document = self._document(request, body)
        if target.kind.group == "events.k8s.io":
            document = as_core(document)
        if target.subresource == "binding":
            return self._bind(target, document)
        if target.subresource == "eviction":
            options = DeleteOptions.of(lambda name: request.query.get(name, ""), document.get("deleteOptions"))
            delete(self.registry, target.kind, target.place, target.name, options)
            return Answer(
                serialized({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}), 201
            )
        if target.name or (target.kind.namespaced and target.namespace is None):
            raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})
        kind = self._core(target)
        return self._written(request, target, self.registry.create(kind, target.place, document, self._options(request)))

    def _core(self, target: Route) -> Any:
        """Events are stored, and checked, in their first shape."""
        return self.kinds.named("events") if target.kind.group == "events.k8s.io" else target.kind

    def _bind(self, target: Route, document: Body) -> Answer:
        entry = self.registry.entry(target.kind, target.place, target.name)
        node = (document.get("target") or {}).get("name", "")
        if entry.body["spec"].get("nodeName"):
            raise Refused(409, "Conflict", f'Operation cannot be fulfilled on pods/binding "{target.name}": pod {target.name} is'
                          f' already assigned to node "{entry.body["spec"]["nodeName"]}"',
                          {"name": target.name, "kind": "pods/binding"})  # fmt: skip
        condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None,
                     "lastTransitionTime": entry.body["metadata"]["creationTimestamp"]}  # fmt: skip
        status = entry.body.get("status") or {}
        others = [each for each in status.get("conditions") or () if each["type"] != "PodScheduled"]
        body = {**entry.body, "spec": {**entry.body["spec"], "nodeName": node},
                "status": {**status, "conditions": [*others, condition]}}  # fmt: skip
        self.registry.store.put(target.kind.collection, entry.key, body)
        return Answer(serialized({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}), 201)

    def _update(self, request: web.BaseRequest, target: Route, body: bytes) -> Answer:
        document, options = self._document(request, body), self._options(request)
        if not target.name:
            raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})
        if target.subresource == "scale":
            return self._rescale(target, lambda _: document, options)
        if target.kind.group == "events.k8s.io":
            document = as_core(document)
        written = self.registry.update(self._core(target), target.place, target.name, document, options, target.subresource)
        return self._written(request, target, written)

    def _patch(self, request: web.BaseRequest, target: Route, body: bytes, user: str) -> Answer:
        document, options = self._document(request, body), self._options(request)
        kind = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip()
        if kind == APPLY_PATCH and "fieldManager" not in request.query:
            raise invalid_object("meta.k8s.io", "PatchOptions", "", [required("fieldManager", "is required for apply patch")])
        if kind == APPLY_PATCH and self.registry.store.get(target.kind.collection, (target.place, target.name)) is None:
            self._check(user, target, "create")  # what is not there is made
        if target.subresource == "scale":
            change = json_patch if kind == JSON_PATCH else merge_patch
            return self._rescale(target, lambda scale: change(scale, document), options)
        written = self.registry.patch(
            self._core(target), target.place, target.name, kind, document, options, target.subresource
        )  # fmt: skip
        return self._written(request, target, written)

    def _rescale(self, target: Route, change: Callable[[Body], Body], options: Options) -> Answer:
        paths = self._scale_paths(target)
        with self.registry.store.lock:
            entry = self.registry.entry(target.kind, target.place, target.name)
            current = entry.copy(target.kind.api_version)
            scale = change(scale_of(current, paths))
            body = scaled(current, scale, paths)
            body["metadata"].setdefault("resourceVersion", entry.body["metadata"]["resourceVersion"])
            written = self.registry.update(target.kind, target.place, target.name, body, options, "scale")
        return Answer(serialized(scale_of(written.body, paths)))

    def _written(self, request: web.BaseRequest, target: Route, written: Written) -> Answer:
        shown = self._shown(request, target)
        headers = {"Warning": ", ".join(f"299 - {json.dumps(each)}" for each in written.warnings)} if written.warnings else {}
        text = serialized(shown.body(written.body))
        if shown.form is not Form.WHOLE:
            version = int(written.body["metadata"].get("resourceVersion", 0))
            text = shown.one(Entry.of((target.place, target.name), written.body, version))
        return Answer(text, 201 if written.created else 200, headers)

    # Watching

    async def _watch(self, request: web.BaseRequest, target: Route, asked: Request) -> web.StreamResponse:
        query = request.query
        initial = query.get("sendInitialEvents", "").lower() == "true"
        wanted = Wanted(
            target.kind.collection, target.namespace, self._selector(request, target), query.get("resourceVersion", ""),
            query.get("allowWatchBookmarks", "").lower() in ("true", "1"), initial,
            float(query.get("timeoutSeconds") or _WATCH_SECONDS),
        )  # fmt: skip
        events = self.watches.events(wanted, self._shown(request, target))
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/json"})
        response.enable_chunked_encoding()
        self.record(replace(asked, status=200))
        await self._call_back("before", replace(asked, status=200))
        await response.prepare(request)
        await self._pour(events, response)
        return response

    async def _pour(self, events: AsyncIterator[bytes], response: web.StreamResponse) -> None:
        with suppress(ConnectionError):
            async for line in events:
                await response.write(line)
            await response.write_eof()


def _failure(refused: Refused) -> Answer:
    return Answer(serialized(refused.status), refused.code)
