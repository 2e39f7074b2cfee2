# SPDX-License-Identifier: Apache-2.0
"""Opens the refund desk: starts every part, plays the working day, closes again.

Usage: desk.py [--once]

The parts are the payments service, a git server over MCP, the collector, the agent
and Envoy, with their files in run/refunddesk. With --once everything is stopped
after the day and the exit code says how it went; without, the desk stays open until
Ctrl-C. It stops only what it started.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

import tokens

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples/refunddesk"
STATE = ROOT / "run/refunddesk"
WRIT = ROOT / "bin/writ"

ENVOY_PORT, PAYMENTS_PORT, GIT_PORT = 9100, 9101, 9102
ENVOY_ADMIN_PORT, AGENT_ADMIN_PORT, COLLECTOR_ADMIN_PORT = 9103, 9104, 9105
PORTS = (ENVOY_PORT, PAYMENTS_PORT, GIT_PORT, ENVOY_ADMIN_PORT, AGENT_ADMIN_PORT, COLLECTOR_ADMIN_PORT)

# A unix socket's path has at most 107 bytes.
MAX_SOCKET_PATH = 107
START_SECONDS, STOP_SECONDS, POLL_SECONDS = 60, 10, 0.1
# prctl(PR_SET_PDEATHSIG): a part does not outlive the desk, however the desk ends.
PR_SET_PDEATHSIG = 1


class DeskError(Exception):
    """What keeps the desk from opening, in words for whoever runs it."""


def die_with_parent():
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Parts:
    """The processes that were started, stopped in the reverse order."""

    def __init__(self):
        self.started = []

    def start(self, name, *command):
        log = STATE / "logs" / f"{name}.log"
        with open(log, "wb") as out:
            # A session of its own keeps Ctrl-C from the parts: they are stopped in order.
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                cwd=STATE, start_new_session=True, preexec_fn=die_with_parent,
            )
        self.started.append((name, process, log))
        return process

    def check(self):
        for name, process, log in self.started:
            if process.poll() is not None:
                raise DeskError(f"{name} ended with {process.returncode}; the end of {log}:\n{tail(log)}")

    def wait_for(self, what, condition):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            value = condition()
            if value:
                return value
            time.sleep(POLL_SECONDS)
        logs = "\n".join(f"--- {log}\n{tail(log)}" for _, _, log in self.started)
        raise DeskError(f"{what}: not after {START_SECONDS} s\n{logs}")

    def stop(self):
        """Stops all parts; returns those that had to be killed."""
        killed = []
        while self.started:
            name, process, _ = self.started.pop()
            if process.poll() is not None:
                continue
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed.append(name)
        return killed


def tail(path, lines=15):
    return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])


def answers(url):
    """Returns whether an HTTP GET gets 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def listens(port):
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def lock_desk():
    STATE.mkdir(parents=True, exist_ok=True)
    lock = open(STATE / "lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DeskError("the desk is open already in this checkout") from None
    return lock


def clear():
    """Begins with empty books, an empty repository, an empty ledger."""
    for entry in STATE.iterdir():
        if entry.name == "lock":
            continue
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    (STATE / "logs").mkdir()
    taken = [port for port in PORTS if listens(port)]
    if taken:
        raise DeskError(f"something else listens on port {', '.join(map(str, taken))} of 127.0.0.1")


def socket_directory(stack):
    """Returns a directory whose sockets have paths that are short enough."""
    directory = STATE / "sockets"
    if len(str(directory / "collector.sock")) <= MAX_SOCKET_PATH:
        directory.mkdir(mode=0o700)
        return directory
    made = tempfile.mkdtemp(prefix="writ")
    stack.callback(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def passable(path):
    """Returns whether any user of the machine may read the directory and all above it."""
    above = [path, *path.parents]
    return all(place.stat().st_mode & 0o001 for place in above) and path.stat().st_mode & 0o004


def bundle_directory(stack):
    """Returns the bundle's directory, or a copy where that one is closed to others.

    An agent that is root runs programs as nobody, who must be able to reach them: in a
    checkout below a home directory of mode 0700 nobody cannot.
    """
    bundle = EXAMPLE / "bundle"
    if os.getuid() != 0 or passable(bundle / "tools"):
        return bundle
    made = Path(tempfile.mkdtemp(prefix="writ"))
    stack.callback(shutil.rmtree, made, ignore_errors=True)
    made.chmod(0o755)
    copy = Path(shutil.copytree(bundle, made / "bundle"))
    for path in [copy, *copy.rglob("*")]:
        mode = path.stat().st_mode
        path.chmod(mode | (0o055 if mode & 0o100 else 0o044))
    return copy


def git(repository, *words):
    subprocess.run(
        ["git", "-C", str(repository), "-c", "user.name=desk", "-c", "user.email=desk@desk.example", *words],
        check=True, stdout=subprocess.DEVNULL,
    )


def make_repository():
    """Makes the repository that the git server serves: one commit, one staged file."""
    repository = STATE / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet", "--initial-branch=main")
    # The server commits as whoever the repository says; the machine's own configuration may be empty.
    git(repository, "config", "user.name", "desk")
    git(repository, "config", "user.email", "desk@desk.example")
    git(repository, "config", "commit.gpgsign", "false")
    (repository / "policy.md").write_text("Refunds of up to 100.00, from 50.00 up with a human's approval.\n")
    git(repository, "add", "policy.md")
    git(repository, "commit", "--quiet", "--message", "The refund policy")
    (repository / "day.md").write_text("What happened today stands in the ledger.\n")
    git(repository, "add", "day.md")
    return repository


def write_yaml(name, value):
    path = STATE / name
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return path


def collector_config(sockets):
    return write_yaml("collector.yaml", {
        "data_dir": str(STATE / "collector"),
        "listener": f"unix:{sockets / 'collector.sock'}",
        "agents_file": str(STATE / "agents"),
        "admin": f"127.0.0.1:{COLLECTOR_ADMIN_PORT}",
    })


def agent_config(sockets, bundle, collector_key):
    return write_yaml("agent.yaml", {
        "data_dir": str(STATE / "agent"),
        "bundle_dir": str(bundle),
        "listeners": {
            "envoy": f"unix:{sockets / 'agent.sock'}",
            "planner": f"unix:{sockets / 'planner.sock'}",
            "admin": f"127.0.0.1:{AGENT_ADMIN_PORT}",
        },
        "identity": {
            "jwt": {
                "issuer": tokens.ISSUER,
                "audiences": [tokens.AUDIENCE],
                "jwks_file": str(STATE / "tokens/jwks.json"),
            },
            "workloads": [{"spiffe_id": "spiffe://desk.example/planner", "uid": os.getuid()}],
        },
        "ledger": {"origin": "desk.example/agent", "heartbeat": "5s"},
        "collector": {"address": f"unix:{sockets / 'collector.sock'}", "public_key_file": str(collector_key)},
        "envoy": {
            "listener": f"127.0.0.1:{ENVOY_PORT}",
            "agent_listener": f"unix:{sockets / 'egress.sock'}",
            "admin": f"127.0.0.1:{ENVOY_ADMIN_PORT}",
        },
    })


def find_key(directory):
    """Returns a part's public key file (*.vkey), once it has made one."""
    found = sorted(Path(directory).rglob("*.vkey")) if Path(directory).is_dir() else []
    return next((path for path in found if path.read_text().strip()), None)


def start_services(parts, repository):
    parts.start(
        "payments", ROOT / "bin/payments", "--listen", f"127.0.0.1:{PAYMENTS_PORT}",
        "--db", STATE / "payments.db", "--seed", EXAMPLE / "payments/seed.json",
    )
    parts.start(
        "git-server", sys.executable, EXAMPLE / "day/gitserver.py",
        "--repository", repository, "--port", GIT_PORT, "--host-name", "git.desk.example",
    )
    parts.wait_for("payments answers", lambda: answers(f"http://127.0.0.1:{PAYMENTS_PORT}/healthz"))
    parts.wait_for("the git server listens", lambda: listens(GIT_PORT))


def start_writ(parts, sockets, bundle):
    """Starts collector, agent and Envoy; returns the agent's ledger directory."""
    (STATE / "agents").touch(mode=0o600)
    parts.start("collector", WRIT, "collector", "--config", collector_config(sockets))
    collector_key = parts.wait_for("the collector has a key", lambda: find_key(STATE / "collector"))
    config = agent_config(sockets, bundle, collector_key)
    parts.start("agent", WRIT, "agent", "--config", config)
    # The collector reads the file again when an agent connects that it does not know.
    agent_key = parts.wait_for("the agent has a key", lambda: find_key(STATE / "agent"))
    (STATE / "agents").write_text(agent_key.read_text())

    bootstrap = subprocess.run([WRIT, "envoy", "bootstrap", "--config", config], stdout=subprocess.PIPE)
    if bootstrap.returncode != 0:
        raise DeskError("writ envoy bootstrap failed")
    (STATE / "envoy.yaml").write_bytes(bootstrap.stdout)
    parts.start(
        "envoy", os.environ.get("ENVOY") or "envoy", "--config-path", STATE / "envoy.yaml",
        "--concurrency", "1", "--log-level", "warning", "--use-dynamic-base-id",
    )
    parts.wait_for("Envoy is live", lambda: answers(f"http://127.0.0.1:{ENVOY_ADMIN_PORT}/ready"))
    parts.wait_for("the agent is ready", lambda: answers(f"http://127.0.0.1:{AGENT_ADMIN_PORT}/readyz"))
    parts.wait_for("the collector is ready", lambda: answers(f"http://127.0.0.1:{COLLECTOR_ADMIN_PORT}/readyz"))
    return agent_key.parent


def open_desk(parts, stack):
    """Starts everything and returns where it is, as the day needs it."""
    clear()
    tokens.make(STATE / "tokens")
    sockets = socket_directory(stack)
    repository = make_repository()
    start_services(parts, repository)
    ledger = start_writ(parts, sockets, bundle_directory(stack))
    desk = {
        "envoy": f"127.0.0.1:{ENVOY_PORT}",
        "planner": f"unix:{sockets / 'planner.sock'}",
        "collector": f"unix:{sockets / 'collector.sock'}",
        "tokens": str(STATE / "tokens"),
        "books": str(STATE / "payments.db"),
        "repository": str(repository),
        "ledger": str(ledger),
        "store": str(STATE / "collector"),
        "payments_port": PAYMENTS_PORT,
    }
    (STATE / "desk.json").write_text(json.dumps(desk, indent=2) + "\n")
    return desk


def play():
    """Plays the day in a process of its own; returns whether it went as expected."""
    day = [sys.executable, EXAMPLE / "day/day.py", "--desk", STATE / "desk.json"]
    return subprocess.run(day, timeout=300).returncode == 0


def verify(desk):
    """Has writ check the ledger and the collector's store, from the files alone."""
    good = True
    for words in (["--ledger", desk["ledger"]], ["--store", desk["store"]]):
        print(f"$ bin/writ verify {words[0]} {os.path.relpath(words[1], ROOT)}", flush=True)
        good &= subprocess.run([WRIT, "verify", *words]).returncode == 0
    return good


def explain(desk):
    token = os.path.relpath(STATE / "tokens/ada.jwt", ROOT)
    store = os.path.relpath(desk["store"], ROOT)
    print(f"""
The desk stays open; Ctrl-C closes it. Meanwhile, in another terminal:
  curl -H 'Host: payments.desk.example' -H "Authorization: Bearer $(cat {token})" \\
      http://{desk["envoy"]}/v1/tenants/acme/payments/pay_1001
  bin/writ records list --store {store} --verdict deny
  bin/writ records tail --collector {desk["collector"]}
  bin/writ tools list --bundle examples/refunddesk/bundle
  sqlite3 run/refunddesk/payments.db 'SELECT * FROM refunds'
The logs are in run/refunddesk/logs, the generated configuration of Envoy in run/refunddesk/envoy.yaml.""", flush=True)


def wait_for_signal(parts):
    """Waits until somebody closes the desk, or a part ends by itself."""
    closing = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: closing.append(True))
    while not closing:
        parts.check()
        time.sleep(0.5)


def run(once):
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_desk())
        parts = Parts()
        stack.callback(parts.stop)
        desk = open_desk(parts, stack)
        good = play()
        parts.check()
        if not once:
            good &= verify(desk)
            explain(desk)
            wait_for_signal(parts)
            return good
        killed = parts.stop()
        if killed:
            print(f"had to be killed: {', '.join(killed)}", file=sys.stderr)
        # What is verified is what the parts left behind when they stopped.
        return verify(desk) and good and not killed


def main():
    parser = argparse.ArgumentParser(description="Opens the refund desk and plays a working day.")
    parser.add_argument("--once", action="store_true", help="stop everything after the day")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        good = run(args.once)
    except DeskError as err:
        sys.exit(f"desk: error: {err}")
    except KeyboardInterrupt:
        sys.exit(1)
    print("the day went as expected" if good else "THE DAY DID NOT GO AS EXPECTED", flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
