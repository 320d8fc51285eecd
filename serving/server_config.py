"""The configuration of uvicorn, with a limit on the time that a shutdown takes."""

from __future__ import annotations

import uvicorn

from features.shutdown import limit_shutdown


class ServerConfig(uvicorn.Config):
    """A configuration whose server ends within `features.shutdown.LIMIT_S` after a signal, also while it starts."""

    def load(self) -> None:
        """Load the app. The server has installed its signal handlers by now."""
        limit_shutdown()
        super().load()
