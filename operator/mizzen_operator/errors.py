"""What can go wrong between the operator and the cluster. User errors are conditions, not exceptions.

OperatorError
├── ConfigurationError   the operator cannot start as it was installed
├── InvalidResource      a resource cannot be understood; its condition says so until it is edited
└── ClusterError         the API server refused or did not answer; tried again with back-off
"""

from __future__ import annotations

from mizzen_api.conditions import Reason


class OperatorError(Exception):
    """Base of all."""


class ConfigurationError(OperatorError):
    """Says which setting is wrong and how to mend it."""


class InvalidResource(OperatorError):  # noqa: N818  # named as Kubernetes names it
    """Says which field of which resource, and what is wrong with it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ClusterError(OperatorError):
    """`code` is the HTTP status, 0 where there was no answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def refused(self) -> bool:
        """The API server understood and said no: a quota, an admission rule, a missing permission."""
        return self.code in {400, 403, 422}
