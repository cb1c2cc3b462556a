"""Run the gateway: `python -m mlx_server.gateway`."""

import sys

from mlx_server.gateway.main import main

if __name__ == "__main__":
    sys.exit(main())
