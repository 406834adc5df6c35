"""What every HTTP application reads of a head: who calls, and in what form the body comes."""

from __future__ import annotations

from collections.abc import Container

from modelkeep.core.errors import UsageError
from modelkeep.flows.call import Arrival
from modelkeep.web.messages import Request


def arrival_of(request: Request) -> Arrival:
    """Who calls, as far as the head says."""
    headers = request.headers
    return Arrival(
        headers.get(b"authorization"),
        request.address,
        request.certificate,
        headers.get(b"traceparent", b""),
    )


def demand_media(request: Request, taken: Container[bytes | None], *, otherwise: str) -> None:
    """Go on only with a body as it is, in a form that is taken.

    Args:
        taken: media types in lower case; None among them if the header may be missing.
        otherwise: what is wrong with every other form.

    Raises:
        UsageError: `media.encoding` or `media.type`.
    """
    coding = request.headers.get(b"content-encoding", b"identity")
    if coding.lower() != b"identity":
        raise UsageError(
            "media.encoding", "compressed bodies are not taken", hint="send the body as it is"
        )
    media = request.headers.get(b"content-type")
    if (media and media.partition(b";")[0].strip().lower()) not in taken:
        raise UsageError("media.type", otherwise, hint="send `Content-Type: application/json`")
