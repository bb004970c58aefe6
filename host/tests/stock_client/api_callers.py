"""Callers of the owner's API, as a console in a browser is one: over TLS from the client's machine, with tokens.

`api_callers.py follow` opens `count` streams of events at `path`, says `following` once something was told on each, goes
on until its input ends, and prints what each heard. `api_callers.py call` calls the `paths` in turns over one connection,
one call every `every_ms`, for `seconds`, and prints how long each call took. What is to be done comes as a line of JSON
on standard input, because the token has no business among the arguments; the last line of the output is JSON.
"""

import http.client
import json
import os
import ssl
import sys
import threading
import time
from collections import Counter


def main():
    task = json.loads(sys.stdin.readline())
    outcome = {"follow": follow, "call": call}[sys.argv[1]](task)
    print(json.dumps(outcome), flush=True)
    # Streams of events never end by themselves.
    os._exit(0)


def connected(task):
    # The certificate is the host's own; who it is was settled when the token was made.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(task["address"], task["port"], timeout=30, context=context)
    connection.connect()
    return connection


def ask(task, connection, path, number=0):
    token = task["tokens"][number % len(task["tokens"])]
    connection.request("GET", f"/api/v1{path}", headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    assert answer.status == 200, f"{path}: {answer.status} {answer.read(2000)}"
    return answer


def follow(task):
    heard = [Counter() for _ in range(task["count"])]
    begun = [threading.Event() for _ in heard]

    def listen(number):
        answer = ask(task, connected(task), task["path"], number)
        while line := answer.readline():
            if line.startswith(b"event: "):
                heard[number][line[7:].strip().decode()] += 1
                begun[number].set()
        heard[number]["(closed)"] += 1

    for number in range(task["count"]):
        threading.Thread(target=listen, args=(number,), daemon=True).start()
    for one in begun:
        assert one.wait(30), f"a follower hears nothing: {heard}"
    print("following", flush=True)
    sys.stdin.read()
    return heard


def call(task):
    connection = connected(task)
    took = {path: [] for path in task["paths"]}
    began = due = time.monotonic()
    while due < began + task["seconds"]:
        for path in task["paths"]:
            time.sleep(max(0.0, due - time.monotonic()))
            asked = time.monotonic()
            ask(task, connection, path).read()
            took[path].append((time.monotonic() - asked) * 1000)
            due += task["every_ms"] / 1000
    return took


if __name__ == "__main__":
    main()
