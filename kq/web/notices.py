"""What a page says after an act. Pure."""

from __future__ import annotations

from typing import Any

from kq.web.acts import Act

#: What a list of ids under this name says.
_LISTS = ("kicked", "buried", "deleted", "completed", "revoked")


def notice_of(act: Act, done: dict[str, Any]) -> dict[str, str]:
    """text: what was done; wrong: what was not, and why."""
    refused = done.get("refused") or []
    wrong = "; ".join(f"not {each['id']}: {each['reason']}" for each in refused[:5])
    more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
    return {"text": _text(act, done), "wrong": wrong + more}


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
            return f"purged {done['queue']}: {done['purged']} jobs ended"
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
        case "ping":
            silent = f"; silent: {', '.join(done['silent'])}" if done["silent"] else ""
            return f"{len(done['answered'])} workers answer{silent}"
        case _:
            return f"lifted {done['key']}: it happens again when its job is submitted or kicked"
