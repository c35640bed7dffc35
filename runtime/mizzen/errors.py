"""Every error that this package raises on purpose.

MizzenError
├── UserError      something that the user must change; no retry cures it, and the process exits with 65
└── SystemError_   something that may work the next time; the process exits with 1
    ├── RegistryUnreachable   MLflow did not answer for some minutes
    └── ClusterError          Ray could not be started, or its workers did not come
"""

from typing import Any

from mizzen_api.conditions import USER_ERRORS, Reason


class MizzenError(Exception):
    """Base of all: a reason of the closed list, and a message that a person can act on."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.reason, self.message))


class UserError(MizzenError):
    """The user must change something: a file, a column, a parameter, a gate."""

    def __init__(self, reason: Reason, message: str) -> None:
        assert reason in USER_ERRORS, f"{reason} is not a reason of a user error"
        super().__init__(reason, message)


class SystemError_(MizzenError):  # noqa: N801, N818 (the builtin SystemError means something else)
    """The platform failed; it is worth another try."""

    def __init__(self, message: str, reason: Reason = Reason.INTERNAL_ERROR) -> None:
        super().__init__(reason, message)


class RegistryUnreachable(SystemError_):
    """MLflow did not answer."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Reason.REGISTRY_UNREACHABLE)


class ClusterError(SystemError_):
    """Ray did not start, or its workers did not come."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Reason.WORKERS_PENDING)


def _rebuild(kind: type[MizzenError], reason: Reason, message: str) -> MizzenError:
    """Errors cross processes: constructors differ, so they are made anew from their two parts."""
    error = kind.__new__(kind)
    MizzenError.__init__(error, reason, message)
    return error
