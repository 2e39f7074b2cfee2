# SPDX-License-Identifier: Apache-2.0
"""Reads "go test -json" on standard input and prints what matters.

Usage: go test -json ./... | python3 .ci/summary.py .ci/skips.txt

Prints one line a package, the whole output of what failed, every skipped test,
and the slowest tests. Exits with 1 if anything failed, or if a test was skipped
that the file does not list. A line of the file is "package-suffix test reason".
"""

import json
import sys
from collections import defaultdict


def allowed_skips(path):
    """Returns {(package suffix, test): reason}."""
    allowed = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            words = line.split("#")[0].split(None, 2)
            if not words:
                continue
            if len(words) < 3:
                sys.exit(f"{path}: a skip needs a reason: {line.strip()}")
            allowed[words[0], words[1]] = words[2].strip()
    return allowed


def reason_for(allowed, package, test):
    for (suffix, name), reason in allowed.items():
        if (package + "/").endswith("/" + suffix + "/") and test == name:
            return reason
    return None


def main():
    allowed = allowed_skips(sys.argv[1])
    output = defaultdict(list)
    passed, failed, skipped, slow = 0, [], [], []
    for line in sys.stdin:
        try:
            event = json.loads(line)
        except ValueError:
            print(line, end="", flush=True)
            continue
        action, package = event["Action"], event.get("Package", event.get("ImportPath", ""))
        test = event.get("Test", "")
        key = (package, test)
        if action in ("output", "build-output"):
            output[key].append(event["Output"])
        elif action == "build-fail":
            failed.append((package.split()[0], ""))
            print("".join(output[key]), end="")
        elif action == "fail":
            failed.append(key)
            print("".join(output[key]), end="")
            if not test:
                print(f"FAIL  {package}  {event.get('Elapsed', 0):.1f}s", flush=True)
        elif action == "skip" and test:
            skipped.append(key)
            output.pop(key, None)
        elif action == "pass":
            if test:
                passed += 1
                slow.append((event.get("Elapsed", 0), test, package))
            else:
                print(f"ok    {package}  {event.get('Elapsed', 0):.1f}s", flush=True)
            output.pop(key, None)

    unlisted = 0
    for package, test in skipped:
        reason = reason_for(allowed, package, test)
        unlisted += reason is None
        print(f"SKIP  {package} {test}: {reason or 'NOT ALLOWED: no reason in ' + sys.argv[1]}")
    for seconds, test, package in sorted(slow, reverse=True)[:5]:
        if seconds >= 5 and "/" not in test:
            print(f"slow  {package} {test} {seconds:.1f}s")
    # A package fails with its tests: it counts by itself only where none of them failed.
    tests = [key for key in failed if key[1]]
    alone = {package for package, _ in failed} - {package for package, _ in tests}
    print(f"----  {passed} passed, {len(tests) + len(alone)} failed, {len(skipped)} skipped, {unlisted} of them not allowed")
    sys.exit(1 if failed or unlisted or not (passed or skipped) else 0)


if __name__ == "__main__":
    main()
