"""Who works at this terminal."""

from __future__ import annotations

import getpass
import os
import socket

from streamworker.replay.desk import Actor, Role


def this_actor() -> Actor:
    """Whom the system says, which nobody has checked. What he may do is up to Kafka's rights and not to a role."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = f"uid {os.getuid()}"
    return Actor(name=f"{user}@{socket.gethostname()}", role=Role.ADMIN, via="cli", verified=False)
