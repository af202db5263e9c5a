"""What the report says about how a stage was run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["fresh", "stale", "missing", "partial"]


@dataclass(frozen=True)
class StageRecord:
    """State and provenance of one stage; the fields after `reasons` are empty for a stage that never ran."""

    name: str
    state: State
    reasons: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    host: str = ""
    device: str = ""
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    started: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def from_provenance(cls, name: str, state: State, reasons: Sequence[str], record: Any | None) -> "StageRecord":
        """Make one from a provenance record, which has attributes of the same names, or from None."""
        if record is None:
            return cls(name, state, list(reasons))
        return cls(
            name,
            state,
            list(reasons),
            parameters=dict(record.parameters),
            versions=dict(record.versions),
            host=record.host,
            device=record.device,
            wall_seconds=record.wall_seconds,
            peak_memory_bytes=record.peak_memory_bytes,
            started=record.started,
            notes=list(record.notes),
            warnings=list(record.warnings),
        )
