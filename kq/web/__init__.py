"""The web page and its API: what control sees and does, for browsers and programs. Needs the extra `web`.

`kq web` serves it; `asgi_app` makes it a part of another ASGI application.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kq.control import Control
from kq.errors import ConfigError

try:
    from kq.web.identity import Authorize, User
    from kq.web.site import Site
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] not in ("anyio", "jinja2", "markupsafe", "starlette"):
        raise
    raise ConfigError(
        f"the web page needs {error.name}, which is not installed", fix="Run  pip install 'kq-jobs[web]'"
    ) from error


def asgi_app(
    control: Control,
    *,
    authorize: Authorize,
    hosts: Collection[str] | None = None,
    hide: Sequence[str] = (),
    secret: bytes | None = None,
    traces: str = "",
) -> Site:
    """The page as an ASGI application, to be mounted in another.

    authorize: says who makes a request, a `User` with a role, or None for nobody who may look; it may be a coroutine.
        It is asked for each request, so it should be quick.
    hosts: the names by which the page may be asked; None: the other application looks after that.
    hide: names of arguments whose values nobody sees, beside those that look like secrets; * stands for anything.
    secret: the key of the tokens in forms. Processes that serve the same page need the same; by default each
        process makes one.
    traces: where traces are looked at, a URL in which {trace} stands for the id of one.
    Close it at the end: `Site.close()`. control stays open.
    """
    return Site(control, authorize=authorize, hosts=hosts, hide=hide, secret=secret, traces=traces)


__all__ = ["Authorize", "Site", "User", "asgi_app"]
