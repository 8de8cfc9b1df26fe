"""What a page says once, after an act; the browser carries it to the next page in a cookie. Pure."""

from __future__ import annotations

import base64
import json
from typing import Any

from kq.plain import cut, printable
from kq.units import counted
from kq.web.acts import Act

#: Characters that are told of each text: a browser keeps 4 096 bytes in a cookie, and a character may take 16/3.
LONG = {"text": 200, "wrong": 500}
#: What a list of ids under this name says.
_LISTS = ("kicked", "buried", "deleted", "completed", "revoked")


def of(act: Act, done: dict[str, Any]) -> dict[str, str]:
    """text: what was done; wrong: what was not, and why."""
    refused = done.get("refused") or []
    wrong = "; ".join(f"not {each['id']}: {each['reason']}" for each in refused[:5])
    more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
    return {"text": _text(act, done), "wrong": wrong + more}


def written(notice: dict[str, str]) -> str:
    """A notice as a cookie's value."""
    short = {name: cut(printable(text), LONG[name]) for name, text in notice.items()}
    return base64.urlsafe_b64encode(json.dumps(short, ensure_ascii=False).encode()).decode()


def read(cookie: str) -> dict[str, str]:
    """The notice in a cookie; none when it is none of ours."""
    try:
        said = json.loads(base64.urlsafe_b64decode(cookie))
    except (ValueError, RecursionError):
        return {}
    return {str(name): str(text) for name, text in said.items()} if isinstance(said, dict) else {}


def _text(act: Act, done: dict[str, Any]) -> str:
    for name in _LISTS:
        if isinstance(done.get(name), list):
            ids = done[name]
            return f"{name} {ids[0]}" if len(ids) == 1 else f"{name} {len(ids)} jobs"
    verb = act.form.rpartition(" ")[2]
    match verb:
        case "pause" | "resume":
            heard = f"{len(done['heard'])} of {len(done['workers'])} workers have heard"
            return f"{verb}d {done[f'{verb}d']}; {heard}"
        case "purge":
            return f"purged {done['queue']}: {counted(done['purged'], 'job')} ended"
        case "rm":
            return f"removed {done['queue']}"
        case "submit":
            return f"submitted {done['type']} {done['id']}"
        case "edit":
            return f"edited {', '.join(done['changed'])}" if done["changed"] else "nothing was changed"
        case "revoke":
            return f"revoked {done['id']}" + ("" if done["state"] == "revoked" else f"; it is {done['state']} and ends")
        case "retire":
            return f"retired {done['name']}"
        case "set" if done["heard"]:
            return (
                f"set {done['name']}: {counted(done['slots'], 'job')} at a time, of {', '.join(done['queues'] or ())}"
            )
        case "set":
            return f"{done['name']} has not heard of it yet; it does it as soon as it looks"
        case "ping":
            silent = f"; silent: {', '.join(done['silent'])}" if done["silent"] else ""
            return f"{counted(len(done['answered']), 'worker')} answered{silent}"
        case _:
            return f"lifted {done['key']}: it happens again when its job is submitted or kicked"
