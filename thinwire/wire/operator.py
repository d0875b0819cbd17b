"""The operator's end of the control service: calls to a running server, answers as messages of operator.proto."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from thinwire.errors import ConfigError, RoundError
from thinwire.handshake import look
from thinwire.v1 import operator_pb2 as messages
from thinwire.v1.operator_pb2_grpc import OperatorServiceStub
from thinwire.wire.endpoint import host_and_port, is_loopback, read

CONTROL = "control.json"
"""The file in a run directory that says where its server listens for the operator."""

TOKEN_KEY = "thinwire-operator-token"
"""Metadata of a call without TLS: the token that the server has written into that file."""

TOKEN = "THINWIRE_OPERATOR_TOKEN"
"""The environment's word for it, for who calls by an address."""

MOST_ANSWER_BYTES = 64 << 20  # a roster of 100,000 clients
CALL_SECONDS = 10.0

MISTAKES = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
"""What the operator can mend."""


@dataclass(frozen=True)
class ControlFile:
    """Where the server of a run directory listens for the operator, while it runs."""

    address: str  # host:port
    pid: int  # of the server's process
    tls: bool
    run: str
    token: str = field(repr=False)  # that callers without TLS show; empty with TLS
    name: str  # that the server's certificate is for, with TLS

    @staticmethod
    def find(folder: Path) -> "ControlFile | None":
        """What the run directory says; None where no server says so. Raises ConfigError on a file that is none."""
        path = folder / CONTROL
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            where = str(found["address"]), int(found["pid"]), bool(found["tls"])
            return ControlFile(*where, str(found["run"]), str(found.get("token", "")), str(found.get("name", "")))
        except FileNotFoundError:
            return None
        except PermissionError:
            raise ConfigError(f"cannot read {path}: the server of {folder} listens to its own user only") from None
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, TypeError, KeyError):
            raise ConfigError(f"{path} is no control file; remove it if no server runs") from None


class Operator:
    """Calls the control service of one server. Use as a context manager, from any thread.

    Every call raises ConfigError for what the operator can mend (no connection, another role's certificate, an unknown
    client, what the run's present state does not allow) and RoundError where the run itself failed to do it; each is
    one line.
    """

    def __init__(
        self,
        address: str,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        token: str = "",
        server_name: str = "",
    ) -> None:
        """``address``: host:port. With ``ca`` over TLS, showing ``certificate``; else loopback, with ``token``.

        ``server_name``: what the server's certificate is for, where that is not the host that is dialled.
        """
        host, _ = host_and_port(address)
        if (certificate is None) != (key is None):
            raise ConfigError("certificate and key belong together: give both or neither")
        if certificate is not None and ca is None:
            raise ConfigError("an operator's certificate needs TLS: give ca too")
        if ca is None and not is_loopback(host):
            raise ConfigError(
                f"{address} is beyond this machine: give ca, certificate and key (thinwire certs operator NAME)"
            )
        if not (token.isascii() and token.isprintable()):
            raise ConfigError(f'{TOKEN} is no token: it is the word behind "token" in {CONTROL} of the run directory')
        self.address = address
        self._dialled = address, ca, certificate, key, server_name
        self._metadata = ((TOKEN_KEY, token),) if token and ca is None else ()
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", MOST_ANSWER_BYTES),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if server_name:
            options.append(("grpc.ssl_target_name_override", server_name))
        authority = read(ca, "CA certificate")
        if authority is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            pair = read(key, "operator's key"), read(certificate, "operator's certificate")
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, *pair), options)
        self._stub = OperatorServiceStub(self._channel)  # type: ignore[no-untyped-call]

    @staticmethod
    def of_run(
        folder: Path, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
    ) -> "Operator":
        """The server of a run directory on this machine. Raises ConfigError where none says that it runs."""
        found = ControlFile.find(folder)
        if found is None:
            raise ConfigError(f"no server runs on {folder} (it has no {CONTROL}), or its server.control is off")
        if found.tls and (ca is None or certificate is None):
            raise ConfigError(
                f"the server of {folder} wants an operator's certificate: give --ca, --certificate and --key, or "
                "THINWIRE_OPERATOR_CA, _CERTIFICATE and _KEY (thinwire certs operator NAME makes one)"
            )
        if found.tls:
            return Operator(found.address, ca, certificate, key, server_name=found.name)
        return Operator(found.address, token=found.token)

    def status(self) -> messages.Status:
        """Where the run stands."""
        return self._call("GetStatus", messages.GetStatusRequest())  # type: ignore[no-any-return]

    def clients(self) -> list[messages.Client]:
        """The roster, in ascending index."""
        return list(self._call("ListClients", messages.ListClientsRequest()).clients)

    def watch(self, after: int = 0, timeout_seconds: float | None = None) -> Iterator[messages.Event]:
        """Events with a higher sequence number as they come; ends with the run, or after ``timeout_seconds``.

        An event of kind "gap" stands for those that this watcher was too slow for.
        """
        request = messages.WatchRequest(after=after)
        call = self._stub.Watch(request, timeout=timeout_seconds, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            if timeout_seconds is not None and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                return
            raise self._error(error) from None
        finally:
            call.cancel()

    def pause(self) -> messages.Done:
        """Hold the run after the open round."""
        return self._done("Pause", messages.PauseRequest())

    def resume(self) -> messages.Done:
        """Go on."""
        return self._done("Resume", messages.ResumeRequest())

    def stop(self) -> messages.Done:
        """End the run after the open round, with a checkpoint."""
        return self._done("Stop", messages.StopRequest())

    def checkpoint(self) -> messages.Done:
        """Write a checkpoint after the open round."""
        return self._done("Checkpoint", messages.CheckpointRequest())

    def drain(self, client: str, undo: bool = False) -> messages.Done:
        """Ask a client no more; with ``undo``, ask it again."""
        return self._done("Drain", messages.DrainRequest(client=client, undo=undo))

    def ban(self, client: str, reason: str = "") -> messages.Done:
        """Put a client out of the run for good."""
        return self._done("Ban", messages.BanRequest(client=client, reason=reason))

    def change(self, keys: Mapping[str, str]) -> messages.Done:
        """Change keys of the configuration from the next round on: ``{"participation.fraction": "0.2"}``."""
        return self._done("Change", messages.ChangeRequest(keys=dict(keys)))

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def __enter__(self) -> "Operator":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _done(self, name: str, request: Any) -> messages.Done:
        return self._call(name, request)  # type: ignore[no-any-return]

    def _call(self, name: str, request: Any) -> Any:
        try:
            return getattr(self._stub, name)(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._error(error) from None

    def _error(self, error: grpc.RpcError) -> ConfigError | RoundError:
        """One line."""
        code = error.code()
        detail = (str(error.details() or "").splitlines() or [""])[0][:1000]
        if code in MISTAKES:
            return ConfigError(detail or code.name)
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            trouble = look(*self._dialled) if code == grpc.StatusCode.UNAVAILABLE else None
            why = f"{detail or code.name}; check that the server runs, and the address"
            return ConfigError(
                f"no answer from the control service at {self.address}: {why if trouble is None else trouble.reason}"
            )
        return RoundError(detail or f"the server failed: {code.name}")


__all__ = ["CONTROL", "TOKEN", "TOKEN_KEY", "ControlFile", "Operator"]
