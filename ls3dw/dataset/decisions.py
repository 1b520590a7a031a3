"""Decisions of people on faces: read from files, merged, stored in the data set, and resolved face by face."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from ls3dw.core.files import dump_json, read_json, sha256
from ls3dw.dataset.gate import Shape, inside, is_text, one_of, read_checked
from ls3dw.dataset.store import AUDITED, FileRecord, Store
from ls3dw.errors import AuditError

FORMAT: Final = 1
KIND: Final = "ls3dw decisions"

REJECT: Final = "reject"
VERDICTS: Final = (REJECT, "annotation wrong", "prediction wrong", "accept")
"""The strictest first. A decision with an empty verdict is only a note."""

Resolve = Literal["latest", "reject"]
"""Which verdict counts where people differ: the latest, or the strictest."""


@dataclass(frozen=True)
class Decision:
    """One person's decision on one face. when: ISO time with zone; version, gallery: where it was made."""

    id: str
    verdict: str
    note: str
    who: str
    when: str
    version: str
    gallery: str

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.when).astimezone(UTC)

    @property
    def text(self) -> str:
        """Who, when and why, for drops.parquet."""
        return f"{self.who}, {self.when}" + (f": {self.note}" if self.note else "")


@dataclass(frozen=True)
class Audit:
    """All decisions that a version follows, at most one per face and person.

    resolve: which verdict counts where people differ; None if they do not.
    """

    decisions: tuple[Decision, ...] = ()
    resolve: Resolve | None = None

    @cached_property
    def conflicts(self) -> list[list[Decision]]:
        """The decisions on each face on which people differ."""
        return [found for found in self._by_face.values() if len({decision.verdict for decision in found}) > 1]

    @cached_property
    def outcomes(self) -> dict[str, Decision]:
        """The decision that counts, by face. `AuditError` where people differ and `resolve` is None."""
        if self.conflicts and self.resolve is None:
            raise AuditError(_differ(self.conflicts))
        return {face: self._choose(found) for face, found in self._by_face.items()}

    @cached_property
    def rejected(self) -> dict[str, Decision]:
        return {face: decision for face, decision in self.outcomes.items() if decision.verdict == REJECT}

    @cached_property
    def _by_face(self) -> dict[str, list[Decision]]:
        found: dict[str, list[Decision]] = {}
        for decision in self.decisions:
            if decision.verdict:
                found.setdefault(decision.id, []).append(decision)
        return found

    def _choose(self, found: list[Decision]) -> Decision:
        # Sorted by name too, so that the order of the files does not matter.
        latest = sorted(found, key=lambda decision: (decision.time, decision.who), reverse=True)
        if self.resolve == "reject":
            return min(latest, key=lambda decision: VERDICTS.index(decision.verdict))
        return latest[0]

    def summary(self) -> dict[str, Any]:
        """Return for the manifest who decided, how often, and when."""
        people = []
        for who in sorted({decision.who for decision in self.decisions}):
            times = sorted((d.time, d.when) for d in self.decisions if d.who == who)
            people.append({"who": who, "decisions": len(times), "first": times[0][1], "last": times[-1][1]})
        verdicts = Counter(decision.verdict for decision in self.outcomes.values())
        return {
            "people": people,
            "verdicts": dict(sorted(verdicts.items())),
            "conflicts": len(self.conflicts),
            "resolve": self.resolve,
        }


def _differ(conflicts: list[list[Decision]]) -> str:
    shown = "; ".join(
        f"{found[0].id}: " + ", ".join(f"{decision.who} {decision.verdict!r}" for decision in found)
        for found in conflicts[:3]
    )
    more = f"; and {len(conflicts) - 3} more" if len(conflicts) > 3 else ""
    return (
        f"people differ on {len(conflicts)} faces ({shown}{more}); see all with --dry-run, then mend the files or add"
        " --resolve latest or --resolve reject"
    )


def merge(*sets: Iterable[Decision]) -> tuple[Decision, ...]:
    """Merge decisions: of one person's on one face, the latest stays. The order of the sets does not matter."""
    latest: dict[tuple[str, str], Decision] = {}
    for decision in (decision for each in sets for decision in each):
        key = decision.id, decision.who
        # Ties are broken by content, not by order.
        if key not in latest or _moment(decision) > _moment(latest[key]):
            latest[key] = decision
    return tuple(latest[key] for key in sorted(latest))


def _moment(decision: Decision) -> tuple[Any, ...]:
    return decision.time, tuple(asdict(decision).values())


@dataclass(frozen=True)
class DecisionsFile:
    """A file that a gallery exported. manifest: SHA-256 of the manifest of the version that was reviewed."""

    path: Path
    version: str
    manifest: str
    decisions: tuple[Decision, ...]


def read_decisions(path: Path) -> DecisionsFile:
    """Read a decisions.json; `AuditError` lists its faults."""
    values = read_json(path, AuditError)
    if not isinstance(values, dict) or values.get("kind") != KIND or values.get("format") != FORMAT:
        raise AuditError(f"{path}: not a decisions.json of format {FORMAT}; export it on the gallery's page")
    names = ("version", "manifest", "gallery", "who")
    faults = [f"{name} {values.get(name)!r}: expected text" for name in names if not _is_text(values.get(name))]
    entries = values.get("decisions")
    if not isinstance(entries, list):
        faults, entries = [*faults, "decisions: expected a list"], []
    faults += [f"decision {number}: {fault}" for number, entry in enumerate(entries) for fault in _entry_faults(entry)]
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise AuditError(f"{path}: {'; '.join(faults[:3])}{more}; mend it or export it again")
    common = {name: values[name].strip() for name in ("version", "gallery", "who")}
    decisions = tuple(Decision(**{name: entry[name] for name in _ENTRY}, **common) for entry in entries)
    return DecisionsFile(path, values["version"], values["manifest"], decisions)


_ENTRY: Final = ("id", "verdict", "note", "when")


def _is_text(value: Any) -> bool:
    return is_text(value) and bool(value.strip())


def _entry_faults(entry: Any) -> list[str]:
    if not isinstance(entry, dict) or not all(is_text(entry.get(name)) for name in _ENTRY):
        return [f"expected texts {', '.join(_ENTRY)}"]
    faults = []
    if entry["verdict"] not in ("", *VERDICTS):
        faults.append(f"verdict {entry['verdict']!r}; expected one of {', '.join(VERDICTS)}")
    if not _is_time(entry["when"]):
        faults.append(f"when {entry['when']!r}; expected an ISO time with its zone, as 2026-01-31T12:00:00Z")
    return faults


def _is_time(text: str) -> bool:
    try:
        when = datetime.fromisoformat(text)
        when.astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return when.tzinfo is not None


_STORED: Final[Shape] = {
    "resolve": (None, one_of("latest", "reject")),
    "decisions": [
        {
            **dict.fromkeys(("id", "note", "who", "version", "gallery"), str),
            "verdict": one_of("", *VERDICTS),
            "when": lambda value: isinstance(value, str) and _is_time(value),
        }
    ],
}


def write_audit(store: Store, audit: Audit) -> FileRecord:
    """Store an audit under its hash: versions with the same decisions share the file."""
    data = encode_audit(audit)
    return store.write(store.audit_file(sha256(data)), data)


def encode_audit(audit: Audit) -> bytes:
    decisions = [asdict(decision) for decision in audit.decisions]
    return dump_json({"format": FORMAT, "resolve": audit.resolve, "decisions": decisions})


def read_audit(store: Store, configuration: Mapping[str, Any]) -> Audit:
    """Read the audit that a version's configuration names; an empty one if it names none."""
    if AUDITED not in configuration:
        return Audit()
    path = inside(store.root, store.audit_file(configuration[AUDITED]["decisions"]))
    values = read_checked(path, _STORED)
    names = {field.name for field in fields(Decision)}
    decisions = tuple(Decision(**{name: entry[name] for name in names}) for entry in values["decisions"])
    return Audit(decisions, values["resolve"])
