# SPDX-License-Identifier: Apache-2.0
"""Serves mcp-server-git over streamable HTTP.

The server is the package's own, unchanged; from the command line it speaks
standard input and output only. Its SDK checks the Host header, so the name under
which Envoy's callers reach it has to be told.
"""

import argparse
from pathlib import Path

from mcp.server.transport_security import TransportSecuritySettings
from mcp_server_git.server import create_server


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host-name", action="append", default=[], help="a name that callers use")
    args = parser.parse_args()
    names = ["127.0.0.1", "localhost", *args.host_name]
    create_server(args.repository).run(
        "streamable-http",
        host="127.0.0.1",
        port=args.port,
        transport_security=TransportSecuritySettings(
            allowed_hosts=[form for name in names for form in (name, f"{name}:*")]
        ),
    )


if __name__ == "__main__":
    main()
