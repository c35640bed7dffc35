"""What a client of the model server may be told. Everything else becomes a 500 without details, and a log line."""

from __future__ import annotations

# ServeError
# ├── BadRequest    400  the body is not what the protocol asks for
# ├── NotFound      404  another model or version
# ├── Unusable      500  the model's answer is no probability
# ├── TooLarge      413  body or number of rows above the limit
# ├── Overloaded    503  the queue is full: come back after a second
# ├── NotReady      503  the model is loading, or the server is going away
# └── TimedOut      504  no answer within the limit


class ServeError(Exception):
    """A status code and a message that the client may read."""

    status = 500
    retry_after: int | None = None


class BadRequest(ServeError):  # noqa: N818  # named as HTTP names them
    status = 400


class NotFound(ServeError):  # noqa: N818
    status = 404


class TooLarge(ServeError):  # noqa: N818
    status = 413


class Unusable(ServeError):  # noqa: N818
    status = 500


class Overloaded(ServeError):  # noqa: N818
    status = 503
    retry_after = 1


class NotReady(ServeError):  # noqa: N818
    status = 503
    retry_after = 1


class TimedOut(ServeError):  # noqa: N818
    status = 504
