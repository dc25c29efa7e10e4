"""Findings as W&B shows them: entries of a run's summary, and alerts.

The findings are those of `nndiag analyze --json`. Standard library only: used in the training
process, where the report comes from another one, and by `nndiag export --to wandb`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PREFIX = "nndiag/"
LEVELS = {"warning": "WARN", "critical": "ERROR"}
MOST_ALERTS = 20  # of one run: each may become a mail
TITLE = 63  # characters; W&B wants fewer than 64
TEXT = 2000


@dataclass(frozen=True, slots=True)
class Alert:
    """What W&B may send to a mailbox or to Slack."""

    title: str
    text: str
    level: str  # "WARN" or "ERROR"


def alerts(findings: Sequence[Mapping[str, Any]]) -> Iterator[Alert]:
    """One for each warning and critical finding, worst first as they are."""
    severe = [finding for finding in findings if finding.get("severity") in LEVELS]
    for finding in severe[:MOST_ALERTS]:
        lines = [_sentence(finding.get("message")), _where(finding)]
        remedy = first_remedy(finding)
        lines += [f"First remedy: {remedy}"] if remedy else []
        text = "\n".join(line for line in lines if line)[:TEXT]
        title = f"nndiag: {finding.get('name', '')}"[:TITLE]
        yield Alert(title, text, LEVELS[finding["severity"]])


def summary(
    verdict: str,
    findings: Sequence[Mapping[str, Any]],
    where: Mapping[str, str],
    overhead_percent: float | None,
) -> dict[str, Any]:
    """Entries of the summary. `where`: the layer behind each extreme, by its name."""
    found: dict[str, Any] = {
        f"{PREFIX}verdict": verdict or "not diagnosed",
        f"{PREFIX}findings": len(findings),
    }
    if overhead_percent is not None:
        found[f"{PREFIX}overhead_percent"] = round(overhead_percent, 3)
    for name, place in where.items():
        found[f"{PREFIX}{name}.where"] = place
    names: dict[str, int] = {}
    for finding in findings:
        name = str(finding.get("name", ""))
        names[name] = names.get(name, 0) + 1
        key = name if names[name] == 1 else f"{name}-{names[name]}"
        for field, value in _entries(finding).items():
            found[f"{PREFIX}finding/{key}/{field}"] = value
    return found


def first_remedy(finding: Mapping[str, Any]) -> str:
    """What to do first: "lower-lr (lr 0.05 -> 0.02): Lower the learning rate to 0.02."."""
    remedies = finding.get("remedies") or ()
    if not remedies:
        return ""
    first = remedies[0]
    change = ""
    if first.get("to") is not None:
        old = "" if first.get("from") is None else f"{_short(first['from'])} -> "
        change = f" ({first.get('setting', '')} {old}{_short(first['to'])})"
    return f"{first.get('name', '')}{change}: {_sentence(first.get('text'))}"


def _entries(finding: Mapping[str, Any]) -> dict[str, Any]:
    entries = {
        "severity": finding.get("severity", ""),
        "confidence": finding.get("confidence"),
        "steps": _steps(finding),
        "layers": ", ".join(finding.get("layers", ())[:20]),
        "message": _sentence(finding.get("message")),
        "remedy": first_remedy(finding),
    }
    return {field: value for field, value in entries.items() if value not in ("", None)}


def _steps(finding: Mapping[str, Any]) -> str:
    first, last = finding.get("step_start"), finding.get("step_end")
    if first is None:
        return ""
    return str(first) if last in (None, first) else f"{first}-{last}"


def _where(finding: Mapping[str, Any]) -> str:
    steps, layers = _steps(finding), finding.get("layers", ())
    parts = [f"Steps {steps}." if steps else ""]
    if layers:
        more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
        parts.append(f"Layers: {', '.join(layers[:5])}{more}.")
    return " ".join(part for part in parts if part)


def _sentence(text: object) -> str:
    words = str(text or "")
    return words[:1].upper() + words[1:]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
