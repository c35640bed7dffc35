"""What can go wrong between the operator and the cluster. User errors are conditions, not exceptions.

OperatorError
├── ConfigurationError   the operator cannot start as it was installed
└── ClusterError         the API server refused or did not answer; tried again with back-off
"""


class OperatorError(Exception):
    """Base of all."""


class ConfigurationError(OperatorError):
    """Says which setting is wrong and how to mend it."""


class ClusterError(OperatorError):
    """`code` is the HTTP status, 0 where there was no answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def refused(self) -> bool:
        """The API server understood and said no: a quota, an admission rule, a missing permission."""
        return self.code in {400, 403, 422}
