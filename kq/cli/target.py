"""What a verb acts on: the settings that count, and the app that they name."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import kq
from kq.app import App
from kq.cli.frame import flags
from kq.errors import AppNotFound, KqError
from kq.loading import load_app
from kq.values.given import Loaded, load


def settings(**given: Any) -> Loaded:
    """The settings that count here. given: values from the verb's own options, by key; `__` stands for a dot."""
    said = flags()
    if said.config:
        # What this command starts, and the app that it imports, are to read the same file.
        os.environ["KQ_CONFIG"] = str(Path(said.config).resolve())
    more = {key.replace("__", "."): value for key, value in given.items()}
    return load({"url": said.url, "app": said.app, **more}, file=said.config)


def named_app(loaded: Loaded) -> App:
    """The app that -A, KQ_APP or the config file names. Raises AppNotFound."""
    where = loaded.config.app
    if where is None:
        raise AppNotFound("no application is named", fix=_suggestion())
    try:
        app = load_app(where)
    except KqError:
        raise
    except (Exception, SystemExit) as error:  # a script without a main guard may end itself
        raise _broken(where, error) from error
    return _pointed(app)


def any_app(loaded: Loaded) -> App:
    """The named app, else one without job types: enough to look, and to submit by name."""
    return _pointed(App("kq")) if loaded.config.app is None else named_app(loaded)


def any_broker() -> App:
    """The app of a verb that looks: who names a broker but no app wants to look even where the app does not import."""
    loaded = settings()
    return _pointed(App("kq")) if flags().url and not flags().app else any_app(loaded)


def _pointed(app: App) -> App:
    """app, at the broker of --url: the command line counts before what the code says."""
    app.configure(url=flags().url)
    return app


def _suggestion() -> str:
    for path in sorted(Path.cwd().glob("*.py")):
        if "kq.App(" in path.read_text(encoding="utf-8", errors="replace"):
            return f"Did you mean -A {path.stem}:app? Or set KQ_APP, or app: in kq.yaml."
    return "Write -A module:app, set KQ_APP, or write app: in kq.yaml; kq init makes all of it."


def _broken(where: str, error: BaseException) -> AppNotFound:
    """Why where can't be imported, with the user's own lines of the traceback."""
    message = f"{where} can't be imported: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        fix = f"Install it for {sys.executable}, or start in the folder that holds it."
    else:
        fix = "Mend it; python -c 'import " + where.partition(":")[0] + "' shows the same."
    broken = AppNotFound(" ".join(message.split()), fix=fix)
    broken.add_note("".join(traceback.format_list(own_frames(error.__traceback__))).rstrip() or f"  in {where}")
    return broken


def own_frames(at: TracebackType | None) -> list[traceback.FrameSummary]:
    """The last frames of a traceback that belong neither to kq nor to the import machinery."""
    here = str(Path(kq.__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(at)
        if not frame.filename.startswith((here, "<frozen")) and "importlib" not in Path(frame.filename).parts
    ]
    return frames[-5:]
