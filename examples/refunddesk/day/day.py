# SPDX-License-Identifier: Apache-2.0
"""Plays a working day at the refund desk, as a planner would.

The planner speaks three protocols with clients that nobody here wrote: HTTP
(urllib) and MCP (the official client) through Envoy, and gRPC (generated from
proto/writ/v1) with the agent. What each call must come to stands in expect.yaml;
here it is only made. Afterwards the records are read from the collector, the
payments service's database and the git server's repository are read, and all three
are compared with what was expected.

Usage: day.py --desk run/refunddesk/desk.json
"""

import argparse
import asyncio
import json
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / ".cache/python"))

import grpc
import httpx2
import yaml
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from writ.v1 import (
    decision_pb2,
    envelope_pb2,
    reason_pb2,
    record_pb2,
    record_service_pb2,
    record_service_pb2_grpc,
    tool_service_pb2,
    tool_service_pb2_grpc,
)

TIMEOUT_SECONDS = 15
RECORDS_SECONDS = 20


class Surprise(Exception):
    """An answer that is not what the day expects."""


def demand(condition, text):
    if not condition:
        raise Surprise(text)


class Planner:
    """Makes the calls, each under a request id by which its record is found."""

    def __init__(self, desk):
        self.desk = desk
        self.surprises = []
        self.order = []

    def token(self, user):
        return (Path(self.desk["tokens"]) / f"{user}.jwt").read_text()

    def envelope(self, call, **other):
        """Returns what the planner says of a call: claims, all of it."""
        self.order.append(call)
        return {
            "request_id": call,
            "intent": "refund_request",
            "model_route": "support-default",
            "retrieval": {"kb_doc_ids": ["refund-policy-v3"], "top_k": 4},
            **other,
        }

    # --- HTTP ---

    def http(self, call, user, method, path, body=None, headers=None, tool_call=None):
        """Returns (status, JSON) of a call through Envoy."""
        envelope = self.envelope(call)
        if tool_call:
            envelope["tool_call"] = tool_call
        request = urllib.request.Request(f"http://{self.desk['envoy']}{path}", method=method)
        request.add_header("Host", "payments.desk.example")
        request.add_header("X-Writ-Envelope", json.dumps(envelope))
        if user:
            request.add_header("Authorization", f"Bearer {self.token(user)}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as err:
            with err:
                return err.code, json.loads(err.read() or b"null")

    def refund(self, call, user, minor, tenant="acme", payment="pay_1001", currency="EUR", **other):
        body = {
            "payment_id": payment,
            "amount": {"currency": currency, "minor": minor},
            "reason": "item arrived broken",
            "customer_email": "cleo@customer.example",
        }
        return self.http(call, user, "POST", f"/v1/tenants/{tenant}/refunds", body, **other)

    # --- gRPC ---

    def execute(self, stub, call, user, tool, args, key=""):
        """Returns (code, the response or ErrorInfo) of ToolService.Execute."""
        request = tool_service_pb2.ExecuteRequest(
            envelope=self.grpc_envelope(call, tool, args), idempotency_key=key,
        )
        try:
            return grpc.StatusCode.OK, stub.Execute(request, timeout=TIMEOUT_SECONDS, metadata=self.bearer(user))
        except grpc.RpcError as err:
            info = error_details_pb2.ErrorInfo()
            status = rpc_status.from_call(err)
            demand(status and any(detail.Unpack(info) for detail in status.details), f"{call}: no ErrorInfo in {err}")
            return err.code(), info

    def grpc_envelope(self, call, tool, args):
        claims = self.envelope(call)
        return envelope_pb2.Envelope(
            request_id=claims["request_id"], intent=claims["intent"], model_route=claims["model_route"],
            retrieval=envelope_pb2.Retrieval(**claims["retrieval"]),
            tool_call=envelope_pb2.ToolCall(name=tool, args=envelope_pb2.Json(text=json.dumps(args).encode())),
        )

    def bearer(self, user):
        return (("authorization", f"Bearer {self.token(user)}"),)

    # --- MCP ---

    def mcp(self, user, mode):
        """Returns the official client, of one generation of the protocol."""
        headers = {"Authorization": f"Bearer {self.token(user)}", "Host": "git.desk.example"}
        http = httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_SECONDS)
        transport = streamable_http_client(f"http://{self.desk['envoy']}/mcp", http_client=http)
        return Client(transport, mode=mode, read_timeout_seconds=TIMEOUT_SECONDS)

    async def git(self, client, call, tool, **args):
        """Returns the text of a tool's result, or raises MCPError."""
        args = {"repo_path": self.desk["repository"], **args}
        meta = {"dev.writ/envelope": self.envelope(call)}
        result = await client.call_tool(tool, args, meta=meta)
        return result.is_error, "".join(part.text for part in result.content)

    # --- the day ---

    def attempt(self, work, *args):
        """Carries out one part of the day; a surprise does not end it."""
        try:
            work(*args)
        except Exception as err:  # whatever goes wrong is a line of the report
            self.surprises += [f"{work.__name__}: {text}" for text in causes(err)]


def causes(err):
    """Returns what went wrong in words; the MCP client wraps its errors in groups."""
    if group := getattr(err, "exceptions", None):
        return [text for one in group for text in causes(one)]
    return [str(err) if isinstance(err, Surprise) else f"{type(err).__name__}: {err}"]


def http_morning(planner):
    """Refunds over HTTP, as a service in the mesh makes them."""
    status, answer = planner.http("http-read", "ada", "GET", "/v1/tenants/acme/payments/pay_1001")
    demand(status == 200 and answer["amount"] == {"currency": "EUR", "minor": 20000}, f"http-read: {status} {answer}")
    demand("4111" not in json.dumps(answer) and "cleo" not in json.dumps(answer), f"http-read is not redacted: {answer}")

    # The decision id is the agent's to set; one that a caller sends is removed.
    status, answer = planner.refund("http-refund", "ada", 4999, headers={"X-Writ-Decision-Id": "0" * 32})
    demand(status == 200 and answer["refund_id"], f"http-refund: {status} {answer}")
    demand("4111" not in json.dumps(answer), f"http-refund is not redacted: {answer}")
    status, answer = planner.refund("http-refund-by-lead", "lea", 1250, payment="pay_1002")
    demand(status == 200, f"http-refund-by-lead: {status} {answer}")


def http_denials(planner):
    """What must not get through, in the language of HTTP: RFC 9457."""
    forged = {"X-User-Role": "support_lead", "X-Roles": "support_lead", "X-Tenant": "acme", "X-Forwarded-User": "lea"}
    claim = {"approved": True}
    for call, refused in {
        "http-over-100": lambda call: planner.refund(call, "ada", 10001),
        "http-needs-approval": lambda call: planner.refund(call, "ada", 6000),
        "http-claims-approval": lambda call: planner.refund(call, "ada", 6000, tool_call=claim),
        "http-other-tenant": lambda call: planner.refund(call, "ada", 100, tenant="globex", payment="pay_2001"),
        "http-forged-role": lambda call: planner.refund(call, "mallory", 100, headers=forged),
        "http-forged-token": lambda call: planner.refund(call, "forged", 100),
        "http-no-token": lambda call: planner.refund(call, None, 100),
        "http-duplicate-keys": lambda call: planner.http(
            call, "ada", "POST", "/v1/tenants/acme/refunds",
            b'{"payment_id":"pay_1001","amount":{"currency":"EUR","minor":100,"minor":9999}}',
        ),
        "http-other-currency": lambda call: planner.refund(call, "ada", 100, currency="USD"),
    }.items():
        status, answer = refused(call)
        # One that got through does not keep the others from being tried.
        if not 400 <= status < 500 or not str((answer or {}).get("type")).startswith("urn:writ:reason:"):
            planner.surprises.append(f"{call}: {status} {answer}")


def http_repeat(planner):
    """One key, two requests: the second is not let through again."""
    key = {"Idempotency-Key": "order-17"}
    status, answer = planner.refund("http-keyed-refund", "ada", 700, headers=key)
    demand(status == 200, f"http-keyed-refund: {status} {answer}")
    status, answer = planner.refund("http-keyed-repeat", "ada", 700, headers=key)
    demand(status == 409, f"http-keyed-repeat: {status} {answer}")


def grpc_refunds(planner, stub):
    """The agent makes the calls itself, through Envoy, and repeats nothing."""
    refund = {"tenant": "acme", "payment_id": "pay_1002", "amount": {"currency": "EUR", "minor": 2100}}
    code, first = planner.execute(stub, "grpc-refund", "ada", "payments.issue_refund", refund, key="order-18")
    demand(code == grpc.StatusCode.OK, f"grpc-refund: {code} {first}")
    demand(b"5555" not in first.result.text, f"grpc-refund is not redacted: {first.result.text}")
    code, again = planner.execute(stub, "grpc-refund-repeat", "ada", "payments.issue_refund", refund, key="order-18")
    demand(code == grpc.StatusCode.OK and again.repeated_outcome, f"grpc-refund-repeat: {code} {again}")
    demand(again.result == first.result, f"grpc-refund-repeat: {again.result} is not {first.result}")

    refund["amount"]["minor"] = 10001
    code, info = planner.execute(stub, "grpc-over-100", "ada", "payments.issue_refund", refund)
    demand(code == grpc.StatusCode.PERMISSION_DENIED, f"grpc-over-100: {code} {info}")
    code, info = planner.execute(stub, "grpc-unlisted-tool", "ada", "payments.delete_books", {})
    demand(code != grpc.StatusCode.OK and info.reason == "TOOL_UNKNOWN", f"grpc-unlisted-tool: {code} {info}")

    refund["amount"]["minor"] = 6000
    answer = stub.Authorize(
        tool_service_pb2.AuthorizeRequest(envelope=planner.grpc_envelope("grpc-needs-approval", "payments.issue_refund", refund)),
        timeout=TIMEOUT_SECONDS, metadata=planner.bearer("ada"),
    )
    demand(answer.decision.verdict == decision_pb2.VERDICT_NEEDS_APPROVAL, f"grpc-needs-approval: {answer}")


def grpc_programs(planner, stub):
    """Native programs in the sandbox, one of which misbehaves."""
    refunds = [{"payment_id": "pay_1001", "amount": {"currency": "EUR", "minor": minor}} for minor in (4999, 700)]
    code, answer = planner.execute(stub, "grpc-summary", "ada", "reports.summarize", {"refunds": refunds})
    demand(code == grpc.StatusCode.OK, f"grpc-summary: {code} {answer}")
    result = json.loads(answer.result.text)
    demand(result["count"] == 2 and result["total"] == {"currency": "EUR", "minor": 5699}, f"grpc-summary: {result}")

    wish = {"path": "/etc/passwd", "address": f"127.0.0.1:{planner.desk['payments_port']}"}
    code, answer = planner.execute(stub, "grpc-snoop", "ada", "reports.snoop", wish)
    demand(code == grpc.StatusCode.OK, f"grpc-snoop: {code} {answer}")
    result = json.loads(answer.result.text)
    demand(not result.get("file_read") and not result.get("socket_opened"), f"grpc-snoop got through: {result}")
    demand(result.get("detail"), f"grpc-snoop met no error: {result}")


def mcp_stateless(planner):
    """The repository through MCP 2026-07-28, where every request stands alone."""

    async def work():
        async with planner.mcp("ada", "2026-07-28") as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            demand({"git_status", "git_commit"} <= names, f"tools/list: {names}")
            failed, text = await planner.git(client, "mcp-status", "git_status")
            demand(not failed and "day.md" in text, f"mcp-status: {text}")
            failed, text = await planner.git(client, "mcp-commit", "git_commit", message="Close the day")
            demand(not failed, f"mcp-commit: {text}")
            await refused(client, "mcp-unlisted-tool", "git_create_branch", branch_name="side-door")
            await refused(client, "mcp-climbing-path", "git_log", repo_path=planner.desk["repository"] + "/../repository")

    async def refused(client, call, tool, **args):
        try:
            failed, text = await planner.git(client, call, tool, **args)
        except MCPError:
            return
        demand(failed, f"{call} got through: {text}")

    asyncio.run(work())


def mcp_sessions(planner):
    """The same through the sessions of MCP 2025-11-25."""

    async def work():
        async with planner.mcp("ada", "legacy") as client:
            failed, text = await planner.git(client, "mcp-session-log", "git_log", max_count=5)
            demand(not failed and "Close the day" in text, f"mcp-session-log: {text}")
        async with planner.mcp("mallory", "legacy") as client:
            failed, text = await planner.git(client, "mcp-session-visitor", "git_status")
            demand(failed, f"mcp-session-visitor got through: {text}")

    asyncio.run(work())


def play(planner):
    for part in (http_morning, http_denials, http_repeat):
        planner.attempt(part, planner)
    with grpc.insecure_channel(planner.desk["planner"]) as channel:
        stub = tool_service_pb2_grpc.ToolServiceStub(channel)
        for part in (grpc_refunds, grpc_programs):
            planner.attempt(part, planner, stub)
    for part in (mcp_stateless, mcp_sessions):
        planner.attempt(part, planner)


# --- what was recorded ---


def name_of(enum, number, prefix):
    return enum.Name(number).removeprefix(prefix)


def read_records(desk):
    """Returns the decisions and outcomes that the collector holds, {call: facts}."""
    found, calls = {}, {}
    with grpc.insecure_channel(desk["collector"]) as channel:
        stub = record_service_pb2_grpc.RecordServiceStub(channel)
        token = ""
        while True:
            page = stub.ListRecords(
                record_service_pb2.ListRecordsRequest(page_size=1000, page_token=token), timeout=TIMEOUT_SECONDS)
            for stored in page.records:
                record = record_pb2.Record.FromString(stored.record)
                keep(record, found)
            token = page.next_page_token
            if not token:
                break
    for facts in found.values():
        if "verdict" in facts:
            calls.setdefault(facts["call"], []).append(facts)
    return calls


def keep(record, found):
    facts = found.setdefault(record.decision_id, {"id": record.decision_id.hex()})
    if record.kind == record_pb2.RECORD_KIND_DECISION:
        body = record_pb2.DecisionRecord.FromString(record.body)
        facts.update(
            call=body.envelope.request_id,
            index=record.index,
            verdict=name_of(decision_pb2.Verdict, body.decision.verdict, "VERDICT_"),
            reason=name_of(reason_pb2.Reason, body.decision.reason, "REASON_"),
        )
    elif record.kind == record_pb2.RECORD_KIND_OUTCOME:
        body = record_pb2.OutcomeRecord.FromString(record.body)
        facts["outcome"] = name_of(record_pb2.OutcomeState, body.state, "OUTCOME_STATE_")


def settled(calls, expected):
    """Returns whether every record that is expected has arrived."""
    for call, want in expected.items():
        for facts in calls.get(call, [{}])[:1]:
            if "verdict" in want and "verdict" not in facts or "outcome" in want and "outcome" not in facts:
                return False
    return True


def wait_for_records(desk, expected):
    deadline = time.monotonic() + RECORDS_SECONDS
    while True:
        calls = read_records(desk)
        if settled(calls, expected) or time.monotonic() > deadline:
            return calls
        time.sleep(0.2)


def compare_calls(planner, expected, calls):
    """Prints the table, and adds what is not as expected to the surprises."""
    print(f"{'call':<22}{'verdict':<16}{'reason':<28}{'outcome':<13}{'record':>6}  decision")
    for call in planner.order:
        want, got = expected.get(call), calls.get(call, [])
        if want is None:
            planner.surprises.append(f"{call} is not in expect.yaml")
            continue
        if len(got) != (1 if "verdict" in want else 0):
            planner.surprises.append(f"{call}: {len(got)} decisions are on record")
        for facts in got:
            wrong = [name for name in ("verdict", "reason", "outcome") if facts.get(name) != want.get(name)]
            print(f"{call:<22}{facts['verdict']:<16}{facts['reason']:<28}{facts.get('outcome', '-'):<13}"
                  f"{facts['index']:>6}  {facts['id']}{'  <-- not as expected' if wrong else ''}")
            for name in wrong:
                planner.surprises.append(f"{call}: {name} is {facts.get(name)}, expected {want.get(name)}")
    for call in sorted(expected.keys() - set(planner.order)):
        planner.surprises.append(f"{call} was not made")
    for call in sorted(calls.keys() - set(planner.order)):
        planner.surprises.append(f"a decision on record belongs to no call: {call or calls[call][0]['id']}")


# --- what was done ---


def compare_books(planner, expected, calls):
    with sqlite3.connect(f"file:{planner.desk['books']}?mode=ro", uri=True) as books:
        columns = "tenant, payment_id, currency, minor, decision_id"
        got = [dict(zip(columns.split(", "), row)) for row in books.execute(f"SELECT {columns} FROM refunds ORDER BY id")]
    want = []
    for refund in expected:
        refund = dict(refund)
        decisions = calls.get(refund.pop("call"), [])
        want.append({**refund, "decision_id": decisions[0]["id"] if decisions else None})
    if got != want:
        planner.surprises.append(f"the books hold\n  {got}\nexpected\n  {want}")
    allowed = [facts["id"] for group in calls.values() for facts in group if facts["verdict"] == "ALLOW"]
    for refund in got:
        if refund["decision_id"] not in allowed:
            planner.surprises.append(f"a refund without an ALLOW: {refund}")
    print(f"the books hold {len(got)} refunds, {sum(refund['minor'] for refund in got) / 100:.2f} in all")


def compare_repository(planner, expected):
    def git(*words):
        run = subprocess.run(["git", "-C", planner.desk["repository"], *words], check=True, capture_output=True, text=True)
        return run.stdout.splitlines()

    got = {
        "commits": git("log", "--format=%s"),
        "branches": git("branch", "--format=%(refname:short)"),
        "changes": git("status", "--porcelain"),
    }
    if got != expected:
        planner.surprises.append(f"the repository has {got}, expected {expected}")
    print(f"the repository has {len(got['commits'])} commits: {', '.join(got['commits'])}")


def main():
    parser = argparse.ArgumentParser(description="Plays a working day at the refund desk.")
    parser.add_argument("--desk", required=True, help="file that says where the desk's parts are")
    parser.add_argument("--expect", default=HERE / "expect.yaml", help="file that says what the day must come to")
    args = parser.parse_args()
    desk = json.loads(Path(args.desk).read_text())
    expected = yaml.safe_load(Path(args.expect).read_text())

    planner = Planner(desk)
    play(planner)
    calls = wait_for_records(desk, expected["calls"])
    compare_calls(planner, expected["calls"], calls)
    compare_books(planner, expected["refunds"], calls)
    compare_repository(planner, expected["repository"])
    for surprise in planner.surprises:
        print(f"NOT AS EXPECTED: {surprise}", file=sys.stderr)
    sys.exit(1 if planner.surprises else 0)


if __name__ == "__main__":
    main()
