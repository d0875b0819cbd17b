"""One batch of questions with a model in them, in numbers."""

from dataclasses import dataclass


@dataclass
class Exchange:
    """Bytes are of the model's part of every message, as sent and as received, handshakes and repeats included."""

    kind: str  # "train" or "evaluate"
    asked: int  # clients
    replied: int = 0  # with an answer that counts
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    dense_bytes: int = 0  # what the model would have taken in the same messages, without compression

    @property
    def metrics(self) -> dict[str, int]:
        """For a record of metrics, under names as Flower's."""
        named = {"uplink-bytes": self.uplink_bytes, "downlink-bytes": self.downlink_bytes}
        return {**named, "dense-bytes": self.dense_bytes}

    def __str__(self) -> str:
        """One line for the log."""
        sent = max(1, self.uplink_bytes + self.downlink_bytes)
        return (
            f"{self.kind}: {self.replied} of {self.asked} clients answered, {self.uplink_bytes / 1e3:.1f} kB up, "
            f"{self.downlink_bytes / 1e3:.1f} kB down, {self.dense_bytes / sent:.1f} times fewer than dense"
        )
