"""One HTTP application made of several: who answers follows from how the path begins.

Longer beginnings come first. What nobody else takes, and what was refused before its path was
looked at, is the last application's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from modelkeep.core.errors import KeepError
from modelkeep.web.messages import Application, Request, Response, path_of


class Router:
    """The applications of one listener.

    Args:
        applications: by the beginning of the paths that are theirs, such as `/v1/`.
        others: answers everything else.
    """

    def __init__(self, applications: Mapping[bytes, Application], others: Application) -> None:
        self._applications = tuple(
            sorted(applications.items(), key=lambda each: len(each[0]), reverse=True)
        )
        self._others = others

    def begin(self, request: Request) -> None:
        """Look at a complete head; raises KeepError to refuse before the body is read."""
        request.application = application = self._of(path_of(request.url))
        application.begin(request)

    def respond(self, request: Request) -> Awaitable[Response]:
        """Answer a complete request, or explain `request.refusal`."""
        application = request.application
        if application is None:
            try:
                application = self._of(path_of(request.url))
            except KeepError:
                application = self._others
        return application.respond(request)

    def _of(self, path: bytes) -> Application:
        for beginning, application in self._applications:
            if path.startswith(beginning):
                return application
        return self._others
