"""Search real documents for terms, analyse them in parallel jobs, and write a report.

    python examples/report.py
    python examples/report.py --url redis://localhost:6379/0 --folder ~/documents --term licence --term warranty

Without --folder it reads what every Python brings along: its licence and its own modules' documentation.
Nothing is needed beside it: the worker runs inside this program. To see it apart, start one in another terminal
on the same URL first: `kq -A examples/report.py worker`.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sysconfig
from collections import Counter
from pathlib import Path

import msgspec

import kq

app = kq.App("report", queue="report", timeout=30)

#: At most so many documents: enough to be real, few enough to be quick.
LIMIT = 120
DEFAULT_TERMS = ("copyright", "error", "file", "thread", "queue")
KINDS = (".py", ".txt", ".md", ".rst")


class Findings(msgspec.Struct):
    """What one document says. counts: how often each term occurs."""

    document: str
    words: int
    counts: dict[str, int]


@app.job
def search(folder: str) -> list[str]:
    """The first LIMIT documents in folder and below: those of a folder by name, then its folders by name."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        # A name that is no text, as some file systems have, could not travel in a message.
        documents = [name for name in sorted(names) if name.endswith(KINDS) and name.isprintable()]
        found += [os.path.relpath(os.path.join(place, name), folder) for name in documents]
        if len(found) >= LIMIT:
            break
    return found[:LIMIT]


@app.job
def analyse(folder: str, document: str, terms: list[str]) -> Findings:
    """Count words and terms in one document."""
    words = re.findall(r"\w+", text_of(Path(folder) / document).lower())
    counted = Counter(words)
    return Findings(document, len(words), {term: counted[term.lower()] for term in terms})


@app.job
def summarise(findings: list[Findings], terms: list[str]) -> str:
    """The report: for each term how often it occurs, and the document that has it most."""
    lines = [f"{len(findings)} documents, {sum(each.words for each in findings):,} words"]
    for term in terms:
        total = sum(each.counts[term] for each in findings)
        best = max(findings, key=lambda each: each.counts[term], default=None)
        where = f"most in {best.document} ({best.counts[term]})" if best and total else "nowhere"
        lines.append(f"  {term:<12} {total:>6}  {where}")
    return "\n".join(lines)


def text_of(path: Path) -> str:
    """The prose of a document: of Python files their documentation strings, of others everything."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".py":
        return text
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return ""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return "\n".join(ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented))


def report(folder: str, terms: list[str]) -> str:
    """The whole flow: search, then analyse each document in a job of its own, then summarise what could be read."""
    documents = search.submit(folder).result(timeout=60)
    handles = app.submit_many(analyse.job(folder, document, terms) for document in documents)
    findings, notes = [], []
    for document, handle in zip(documents, handles, strict=True):
        try:
            findings.append(msgspec.convert(handle.result(timeout=60), Findings))
        except kq.JobBuried as buried:  # it waits for a human: kq jobs ls --state buried
            notes.append(f"  left out: {document}, {buried.error}")
    return "\n".join([summarise.submit(findings, terms).result(timeout=60), *notes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", help="the broker; sqlite:///kq.db by default")
    parser.add_argument("--folder", default=sysconfig.get_path("stdlib"), help="where the documents are")
    parser.add_argument("--term", action="append", help="what to look for; may be repeated")
    arguments = parser.parse_args()
    folder = Path(arguments.folder).expanduser().resolve()
    if not folder.is_dir():
        parser.error(f"there is no folder {folder}")
    app.configure(url=arguments.url)
    with kq.Worker(app, concurrency=2):
        print(report(str(folder), arguments.term or list(DEFAULT_TERMS)))
    app.close()


if __name__ == "__main__":
    main()

# prints: 120 documents, … words
# prints:   copyright    … most in …
# prints:   error        … most in …
# prints:   file         … most in …
# prints:   thread       … most in …
# prints:   queue        … most in …
