"""Finding the app that a person or another process names: `package.module:app` or `path/file.py:app`."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from kq.app import App
from kq.errors import AppNotFound


def load_app(where: str) -> App:
    """The app at where. The working directory is importable.

    where: a module or a file, then a colon and the app's name there; without a name, the module's only App.
    Raises AppNotFound when there is none. What the module itself raises passes unchanged.
    """
    place, _, name = where.partition(":")
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place, where)
    found = getattr(module, name, None) if name else _only_app(module, where)
    if isinstance(found, App):
        return found
    names = [each for each, value in vars(module).items() if isinstance(value, App)]
    near = difflib.get_close_matches(name, names, n=1) or names[:1]
    hint = f"Did you mean {place}:{near[0]}?" if near else f"Write  app = kq.App(…)  in {place}."
    what = "is no kq.App" if hasattr(module, name) else "does not exist"
    raise AppNotFound(f"{name!r} in {place} {what}", fix=hint)


def _load_module(place: str, where: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            raise AppNotFound(
                f"there is no module {error.name!r} for the app {where!r} in {os.getcwd()} or on the Python path",
                fix="Start in the folder that holds it, or name it right: -A package.module:app.",
            ) from None
        raise


def _load_file(path: Path) -> ModuleType:
    """Import a script as the module that its jobs are named after."""
    path = path.resolve()
    if not path.is_file():
        raise AppNotFound(f"there is no file {path}", fix="Name the file that makes the app: -A path/jobs.py:app.")
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AppNotFound(f"{path} can't be imported")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _only_app(module: ModuleType, where: str) -> Any:
    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if len({id(value) for value in apps.values()}) == 1:
        return next(iter(apps.values()))
    which = ", ".join(f"{where}:{name}" for name in apps) or "none"
    raise AppNotFound(f"{where} does not say which app; there: {which}", fix="Write -A module:app.")


def whereabouts(app: App) -> str:
    """Where another process finds app: what load_app() takes. Raises AppNotFound when it can't tell."""
    module = sys.modules.get(app.module)
    names = [name for name, value in vars(module).items() if value is app] if module else []
    if module is None or not names:
        raise AppNotFound(
            f"app {app.name!r} is not a variable of the module {app.module!r} that made it",
            fix="Assign it at the top level of a module, or name it: Worker(app, where='module:app').",
        )
    if app.module == "__main__":
        return f"{Path(getattr(module, '__file__', '')).resolve()}:{names[0]}"
    return f"{app.module}:{names[0]}"


def version_of(app: App) -> str:
    """The version of app's code: what it says itself, else a digest of the files that define its job types."""
    if app.version:
        return app.version
    names = {getattr(job_type.function, "__module__", "") for job_type in app.jobs.values()}
    files = {getattr(sys.modules.get(name), "__file__", None) for name in names}
    digest = hashlib.sha256()
    for file in sorted(filter(None, files)):
        with contextlib.suppress(OSError):  # it came from an archive
            digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:12]
