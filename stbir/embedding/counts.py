"""Counts of the files of a catalogue by their outcome in an embedding job."""

from dataclasses import dataclass

from stbir.embedding.decode import DecodedPart


@dataclass
class Counts:
    """The number of listed files by outcome; each file of the catalogue has one."""

    embedded: int = 0
    existing: int = 0
    quarantined: int = 0
    failed: int = 0
    not_taken: int = 0  # listed files that are no photos

    def add(self, decoded: DecodedPart) -> None:
        """Count the photos of a part."""
        self.embedded += len(decoded.photo_ids)
        self.existing += len(decoded.existing) + decoded.num_unchanged
        self.failed += len(decoded.failed)
        self.not_taken += len(decoded.not_taken)
        self.quarantined += len(decoded.faults) - len(decoded.failed) - len(decoded.not_taken)

    @property
    def total(self) -> int:
        """The number of listed files with any outcome."""
        return sum(self.by_outcome().values()) + self.not_taken

    def by_outcome(self) -> dict[str, int]:
        """The counts of photos as manifest and metrics name them."""
        return {
            "embedded": self.embedded,
            "already_there": self.existing,
            "quarantined": self.quarantined,
            "failed": self.failed,
        }

    def summary(self) -> dict[str, int]:
        """The counts of the manifest; `ok` are the catalogue's photos in the gallery."""
        counts = {"ok": self.embedded + self.existing, **self.by_outcome(), "not_taken": self.not_taken}
        return {"in": self.total - self.not_taken, **counts}
