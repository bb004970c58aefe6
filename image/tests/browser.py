"""One call of the owner's browser, in the network where this runs. Memory comes in as JSON and goes out with the answer."""

import json
import sys

from home import BOX
from owner import Owner, Refused


def main():
    owner = Owner(BOX)
    vars(owner).update(json.load(sys.stdin))
    what, *words = sys.argv[1:]
    answer = {}
    try:
        match what:
            case "landing":
                answer["value"] = owner.landing()
            case "claim":
                answer["value"] = owner.claim(*words)
            case "login":
                answer["value"] = owner.login()
            case "upload":
                answer["value"] = owner.upload(*words)
            case "call":
                answer["value"] = owner.call(words[0], words[1], json.loads(words[2]))
    except Refused as refused:
        answer = {"refused": refused.status, "value": refused.problem}
    print(json.dumps(answer | {"memory": vars(owner)}))


if __name__ == "__main__":
    main()
