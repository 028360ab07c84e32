"""HTTP in, HTTP out: reads a request, has it carried out, words the answer."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import hdrs, web

from kube_double.authorizer import Accounts
from kube_double.definitions import Definitions
from kube_double.errors import Body, Refused, bad_request, forbidden, qualified
from kube_double.forms import Form, form_of, json_path
from kube_double.kinds import Kinds, Route
from kube_double.observed_requests import Hooks, Moment, Request, Trouble
from kube_double.registry import APPLY_PATCH, DeleteOptions, Options, Registry
from kube_double.selectors import by_fields, by_labels
from kube_double.store import now, serialized
from kube_double.watching import Wanted, Watches

_WATCH_SECONDS = 1800.0
_ADMIN = "system:admin"
_SERVICE_ACCOUNT = "system:serviceaccount:"
_REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_REASONS = {400: "BadRequest", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired", 422: "Invalid",
            429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}  # fmt: skip
Answer = tuple[int, bytes]


@dataclass(slots=True)
class Answering:
    """Answers requests, one at a time."""

    registry: Registry
    kinds: Kinds
    definitions: Definitions
    watches: Watches
    hooks: Hooks
    accounts: Callable[[], Accounts | None]
    record: Callable[[Request], None]
    crashes: list[str] = field(default_factory=list)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Carry out one request and answer it; tests' troubles and callbacks come in between."""
        watch = request.query.get("watch", "").lower() in ("true", "1")
        target = self.kinds.route(request.method, request.path, watch=watch)
        asked = Request(
            time.monotonic(), request.path, request.method.lower(), user_agent=request.headers.get(hdrs.USER_AGENT, "")
        )
        if target is not None:
            asked = replace(asked, verb=target.verb, group=target.kind.group, resource=target.kind.plural,
                            subresource=target.subresource, namespace=target.place, name=target.name)  # fmt: skip
        trouble = self.hooks.trouble_for(asked)
        if trouble is not None:
            if trouble.delay:
                await asyncio.sleep(trouble.delay)
            if trouble.hang:
                await trouble.over.wait()
            if not trouble.carried_out and (trouble.drop or trouble.status):
                return await self._fail(request, asked, trouble)
        try:
            user = self._user(request)
            asked = replace(asked, user=user)
            if target is not None:
                self._check(user, target, target.verb)
                if target.verb == "watch":
                    return await self._watch(request, target, asked)
            code, text = self._carry_out(request, target, await request.read(), user)
        except Refused as refused:
            code, text = _failure(refused)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001  a server answers 500; the test hears of it at the end
            self.crashes.append(f"{request.method} {request.path_qs}\n{traceback.format_exc()}")
            code, text = _failure(Refused(500, "InternalError", f"Internal error occurred: {traceback.format_exc(limit=-1)}"))
        asked = replace(asked, status=code)
        if trouble is not None and trouble.carried_out:
            return await self._fail(request, asked, trouble)
        return await self._send(request, asked, code, text)

    async def _fail(self, request: web.BaseRequest, asked: Request, trouble: Trouble) -> web.StreamResponse:
        if trouble.drop or trouble.status is None:
            self.record(asked)
            await self._call_back("before", asked)
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        reason = _REASONS.get(trouble.status, "Unknown")
        code, text = _failure(Refused(trouble.status, reason, trouble.message or f"{reason}: this test wants it so"))
        text = text if trouble.text is None else trouble.text.encode()
        return await self._send(request, replace(asked, status=code), code, text, trouble.retry_after)

    async def _send(
        self, request: web.BaseRequest, asked: Request, code: int, text: bytes, retry_after: str = "1"
    ) -> web.StreamResponse:
        self.record(asked)
        await self._call_back("before", asked)
        headers = {"Retry-After": retry_after} if code == 429 else {}
        response = web.Response(body=text, status=code, headers=headers, content_type="application/json")
        if self.hooks.at("after"):
            with suppress(ConnectionError):
                await response.prepare(request)
                await response.write_eof()
            await self._call_back("after", asked)
        return response

    async def _call_back(self, moment: Moment, asked: Request) -> None:
        # In a thread: a callback may wait for a process, or ask this very server.
        for call in self.hooks.at(moment):
            await asyncio.to_thread(call, asked)

    # Who may

    def _user(self, request: web.BaseRequest) -> str:
        accounts = self.accounts()
        token = request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ").strip()
        if accounts is None or not token:
            return _ADMIN
        if token not in accounts:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return _SERVICE_ACCOUNT + token

    def _may(self, user: str, verb: str, group: str, resource: str, namespace: str, name: str) -> bool:
        accounts = self.accounts()
        if accounts is None or user == _ADMIN:
            return True
        rules = accounts.get(user.removeprefix(_SERVICE_ACCOUNT), ())
        return any(rule.allows(verb, group, resource, namespace, name) for rule in rules)

    def _check(self, user: str, target: Route, verb: str) -> None:
        if not self._may(user, verb, target.kind.group, target.resource, target.place, target.name):
            raise forbidden(user, verb, target.kind.group, target.resource, target.name, target.place)

    def _check_owners(self, user: str, target: Route, document: Any) -> None:
        """As the plugin OwnerReferencesPermissionEnforcement: who blocks its owner's deletion may set its finalizers."""
        if user == _ADMIN:
            return
        for owner in document["metadata"].get("ownerReferences") or ():
            kind = self.kinds.of(owner)
            finalizers = f"{kind.plural}/finalizers"
            if owner.get("blockOwnerDeletion") and not self._may(
                user, "update", kind.group, finalizers, target.place, owner["name"]
            ):
                what = f'{qualified(target.kind.group, target.kind.plural)} "{document["metadata"]["name"]}" is forbidden'
                why = "if an ownerReference refers to a resource you can't set finalizers on: , <nil>"
                raise Refused(403, "Forbidden", f"{what}: cannot set blockOwnerDeletion {why}")

    def _review(self, body: Body, user: str) -> Body:
        asked = body["spec"]["resourceAttributes"]
        resource = (
            f"{asked['resource']}/{asked['subresource']}".removesuffix("/") if asked.get("subresource") else asked["resource"]
        )
        may = self._may(user, asked["verb"], asked.get("group", ""), resource, asked.get("namespace", ""), asked.get("name", ""))
        return {**body, "status": {"allowed": may}}

    # What

    def _carry_out(self, request: web.BaseRequest, target: Route | None, body: bytes, user: str) -> Answer:
        document = _document(body) if body else None
        if target is None:
            if request.path == _REVIEW and document is not None:
                return 201, serialized(self._review(document, user))
            found = self.kinds.discovery(request.path) if request.method == "GET" else None
            if found is None:
                raise Refused(404, "NotFound", "the server could not find the requested resource")
            return 200, serialized(found)
        if target.subresource == "binding":
            return 201, serialized(self._bind(target, document))
        if target.subresource == "scale":
            return 200, serialized(self._scale(target, document, _options(request)))
        kind, place, name, subresource = target.kind, target.place, target.name, target.subresource
        form, options = self._form(request, target), _options(request)
        match target.verb:
            case "get":
                return 200, form.one(self.registry.entry(kind, place, name))
            case "list":
                return 200, self._list(request, target, form)
            case "create" if not name and (place or not kind.namespaced):
                self._check_owners(user, target, document)
                return 201, serialized(self.registry.create(kind, place, document, options))
            case "update" if name:
                return 200, serialized(self.registry.update(kind, place, name, document, options, subresource))
            case "patch" if name:
                content = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0]
                new = self.registry.store.get(kind.collection, (place, name)) is None
                if content == APPLY_PATCH and new:
                    self._check(user, target, "create")  # what is not there is made
                    self._check_owners(user, target, document)
                return 201 if new else 200, serialized(
                    self.registry.patch(kind, place, name, content, document, options, subresource)
                )
            case "delete" if name:
                return 200, serialized(self.registry.delete(kind, place, name, _delete_options(request, document or {})))
        raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _form(self, request: web.BaseRequest, target: Route) -> Form:
        version = self.definitions.version(target.kind)
        return form_of(target.kind, request.headers.get(hdrs.ACCEPT, ""), version.columns if version is not None else ())

    def _selector(self, request: web.BaseRequest) -> Callable[[Body], bool] | None:
        given = [(by_labels, request.query.get("labelSelector")), (by_fields, request.query.get("fieldSelector"))]
        tests = [made(text) for made, text in given if text]
        return (lambda body: all(test(body) for test in tests)) if tests else None

    def _list(self, request: web.BaseRequest, target: Route, form: Form) -> bytes:
        query, version = request.query, request.query.get("resourceVersion", "")
        if version and not version.isdigit():
            raise bad_request(f"invalid resource version: {version!r}")
        page = self.registry.page(target.kind, target.namespace, self._selector(request), int(query.get("limit") or 0),
                                  query.get("continue", ""))  # fmt: skip
        more = {"continue": page.token} if page.token else {}
        return form.many(page.entries, {"resourceVersion": str(page.version), **more})

    def _bind(self, target: Route, document: Any) -> Body:
        """The scheduler's word for a pod."""
        entry = self.registry.entry(target.kind, target.place, target.name)
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}
        body = {**entry.body, "spec": {**entry.body["spec"], "nodeName": document["target"]["name"]},
                "status": {**entry.body["status"], "conditions": [scheduled]}}  # fmt: skip
        self.registry.store.put(target.kind.collection, entry.key, body)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    def _scale(self, target: Route, document: Any, options: Options) -> Body:
        """A custom resource seen, and perhaps changed, as a number of replicas."""
        version = self.definitions.version(target.kind)
        assert version is not None
        assert version.scale is not None
        paths = version.scale
        body = self.registry.entry(target.kind, target.place, target.name).body
        if document is not None:
            change: Any = document["spec"]["replicas"]
            for step in reversed(paths["specReplicasPath"].strip(".").split(".")):
                change = {step: change}
            body = self.registry.patch(target.kind, target.place, target.name, "application/merge-patch+json", change, options)
        replicas, selector = json_path(body, paths["specReplicasPath"]), json_path(body, paths["labelSelectorPath"])
        status = {"replicas": json_path(body, paths["statusReplicasPath"]) or 0} | ({"selector": selector} if selector else {})
        metadata = {key: body["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        # 0 is left out, as by Go's omitempty.
        return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "status": status,
                "spec": {"replicas": replicas} if replicas else {}}  # fmt: skip

    # Watching

    async def _watch(self, request: web.BaseRequest, target: Route, asked: Request) -> web.StreamResponse:
        query, asked = request.query, replace(asked, status=200)
        wanted = Wanted(
            target.kind.collection, target.namespace, self._selector(request), query.get("resourceVersion", ""),
            query.get("allowWatchBookmarks", "").lower() in ("true", "1"), float(query.get("timeoutSeconds") or _WATCH_SECONDS),
            self._form(request, target), asked.user_agent,
        )  # fmt: skip
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/json"})
        response.enable_chunked_encoding()
        self.record(asked)
        await self._call_back("before", asked)
        await response.prepare(request)
        with suppress(ConnectionError):
            async for line in self.watches.events(wanted):
                await response.write(line)
            await response.write_eof()
        return response


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)  # that of an apply, too: who asks here writes JSON, which is YAML
    except ValueError as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from None


def _options(request: web.BaseRequest) -> Options:
    query = request.query
    agent = request.headers.get(hdrs.USER_AGENT, "").partition("/")[0]
    return Options(query.get("fieldManager", agent), "dryRun" in query, query.get("force", "").lower() == "true",
                   query.get("fieldValidation") == "Strict")  # fmt: skip


def _delete_options(request: web.BaseRequest, body: Body) -> DeleteOptions:
    policy = body.get("propagationPolicy") or request.query.get("propagationPolicy", "")
    grace, preconditions = body.get("gracePeriodSeconds"), body.get("preconditions") or {}
    return DeleteOptions(policy, grace, preconditions.get("uid") or "", preconditions.get("resourceVersion") or "")


def _failure(refused: Refused) -> Answer:
    return refused.code, serialized(refused.status)
