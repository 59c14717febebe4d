"""Prefect's server for one user of one machine: `python -m infra.prefect_server PORT`.

As `prefect server start`, but a request that names another host is refused: a page whose name was bound to the loopback
address is another origin's.
"""

from __future__ import annotations

import sys

import uvicorn
from prefect.server.api.server import create_app
from starlette.middleware.trustedhost import TrustedHostMiddleware

from infra.loopback import HOSTS

if __name__ == "__main__":
    application = TrustedHostMiddleware(create_app(final=True), allowed_hosts=list(HOSTS), www_redirect=False)
    uvicorn.run(application, host=HOSTS[0], port=int(sys.argv[1]), log_level="warning")
