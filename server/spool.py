"""A round's uplinks: in memory, and above a limit on disk, so that the size of a cohort costs no memory."""

from pathlib import Path

from server.disk import refusal

LIMIT_BYTES = 256 << 20


class DiskSpool:
    """``strategies.store.Spool`` with a limit on what it keeps in memory."""

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._memory: dict[int, bytes] = {}
        self._disk: dict[int, Path] = {}
        self._held_bytes = 0

    def put(self, client: int, data: bytes) -> None:
        """Keep one uplink; the last one of a client counts. Raises RoundError when the disk does not take it."""
        self._drop(client)
        if self._held_bytes + len(data) <= self._limit_bytes:
            self._memory[client] = data
            self._held_bytes += len(data)
            return
        path = self._folder / f"{client}.uplink"
        try:
            self._folder.mkdir(exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise refusal("uplink", path, error, self._folder.parent) from None
        self._disk[client] = path

    def clients(self) -> list[int]:
        """Who is in, ascending."""
        return sorted(self._memory.keys() | self._disk.keys())

    def get(self, client: int) -> bytes:
        """One uplink."""
        return self._memory[client] if client in self._memory else self._disk[client].read_bytes()

    def clear(self) -> None:
        """Forget all."""
        for client in self.clients():
            self._drop(client)

    def _drop(self, client: int) -> None:
        self._held_bytes -= len(self._memory.pop(client, b""))
        path = self._disk.pop(client, None)
        if path is not None:
            path.unlink(missing_ok=True)
