"""Reads dashboards with Grafana's own types and writes them again: what is lost on the way is no key or
value of theirs. Also checks that it would see that.

    tests/shipped/grafana.py FILE...
"""

import copy
import json
import pathlib
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard


def lost(before, after, at=""):
    if isinstance(before, dict):
        for key, value in before.items():
            if not isinstance(after, dict) or key not in after:
                yield f"{at}.{key}"
            else:
                yield from lost(value, after[key], f"{at}.{key}")
    elif isinstance(before, list):
        if not isinstance(after, list) or len(after) != len(before):
            yield at
        else:
            for number, pair in enumerate(zip(before, after)):
                yield from lost(*pair, f"{at}[{number}]")
    elif before != after:
        yield at


def check(board):
    read = dashboard.Dashboard.from_json(copy.deepcopy(board))
    return list(lost(board, json.loads(JSONEncoder().encode(read))))


for path in sys.argv[1:]:
    board = json.loads(pathlib.Path(path).read_text())
    wrong = check(board)
    if wrong:
        sys.exit(f"{path}: Grafana does not know {', '.join(wrong[:10])}")
    odd = copy.deepcopy(board)
    odd["panels"][1]["titel"] = odd["panels"][1].pop("title")
    odd["tiems"] = {}
    if len(check(odd)) < 2:
        sys.exit("a misspelt key is not noticed")
