"""Search real documents for terms, analyse them in parallel jobs, and write a report.

    python examples/report.py
    python examples/report.py --url redis://localhost:6379/0 --folder ~/documents --term licence --term warranty

Without --folder it reads what every Python brings along: its licence and its own modules' documentation.
Nothing is needed beside it: the worker runs inside this program. To see it apart, start one in another terminal
on the same URL first: `kq worker -A examples/report.py`.
"""

from __future__ import annotations

import argparse
import ast
import re
import sysconfig
from collections import Counter
from pathlib import Path

import msgspec

import kq

app = kq.App("report")

#: At most so many documents: enough to be real, few enough to be quick.
LIMIT = 120
DEFAULT_TERMS = ("copyright", "error", "file", "thread", "queue")


class Findings(msgspec.Struct):
    """What one document says. counts: how often each term occurs."""

    document: str
    words: int
    counts: dict[str, int]


@app.job(timeout=30)
def search(folder: str) -> list[str]:
    """The documents in folder, by name."""
    root = Path(folder)
    found = [path for path in root.rglob("*") if path.suffix in {".py", ".txt", ".md", ".rst"} and path.is_file()]
    return sorted(str(path.relative_to(root)) for path in found)[:LIMIT]


@app.job(timeout=30)
def analyse(folder: str, document: str, terms: list[str]) -> Findings:
    """Count words and terms in one document."""
    words = re.findall(r"[a-z]+", text_of(Path(folder) / document).lower())
    counted = Counter(words)
    return Findings(document, len(words), {term: counted[term.lower()] for term in terms})


@app.job(timeout=30)
def summarise(findings: list[Findings], terms: list[str]) -> str:
    """The report: for each term how often it occurs, and the document that has it most."""
    lines = [f"{len(findings)} documents, {sum(each.words for each in findings):,} words"]
    for term in terms:
        best = max(findings, key=lambda each: (each.counts[term], each.document), default=None)
        total = sum(each.counts[term] for each in findings)
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
    """The whole flow: search, then analyse each document in a job of its own, then summarise."""
    documents = search.submit(folder).result(timeout=60)
    handles = app.submit_many(analyse.job(folder, document, terms) for document in documents)
    findings = [msgspec.convert(handle.result(timeout=60), Findings) for handle in handles]
    return summarise.submit(findings, terms).result(timeout=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", help="the broker; sqlite:///kq.db by default")
    parser.add_argument("--folder", default=sysconfig.get_path("stdlib"), help="where the documents are")
    parser.add_argument("--term", action="append", help="what to look for; may be repeated")
    arguments = parser.parse_args()
    app.configure(url=arguments.url)
    with kq.Worker(app, concurrency=2):
        print(report(arguments.folder, arguments.term or list(DEFAULT_TERMS)))
    app.close()


if __name__ == "__main__":
    main()

# prints: 120 documents, 24,301 words
