"""What can go wrong while the service runs on one machine; each message is a sentence to show.

SupervisorError
|-- AlreadyRunning    another run holds the data folder
|-- PortTaken         the address cannot be listened on
|-- BrokerNotFound    no valkey-server or redis-server here
`-- ChildFailed       a child did not come up, or keeps dying; carries the end of its log
"""

from pathlib import Path


class SupervisorError(Exception):
    """The run cannot start or cannot go on."""


class AlreadyRunning(SupervisorError):
    """Two runs on one data folder would write one append-only file."""

    def __init__(self, folder: Path, holder: str) -> None:
        self.folder = folder
        self.holder = holder  # the process id the other run wrote down, or ""
        who = f" (process {holder})" if holder else ""
        super().__init__(
            f"Another run{who} is using {folder}: stop it first, "
            "or choose another folder with ADAPTER_SAFETY_DATA_DIR."
        )


class PortTaken(SupervisorError):
    """Nothing can be served at this address."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host = host
        self.port = port
        super().__init__(f"Cannot listen on {host} port {port}: {reason}.")


class BrokerNotFound(SupervisorError):
    """This machine has no broker that we could start."""


class ChildFailed(SupervisorError):
    """A child of ours cannot be kept up."""

    def __init__(self, name: str, what: str, log: Path, log_tail: str) -> None:
        self.name = name
        self.log = log
        self.log_tail = log_tail
        end = f"The end of {log}:\n{log_tail}" if log_tail else f"It wrote nothing to {log}."
        super().__init__(f"The {name} {what}. {end}")
