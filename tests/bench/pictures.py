"""A server of the pictures named on its command line: every tenth is gone, every twentieth comes a second late."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

PICTURES = [Path(name).read_bytes() for name in sys.argv[1:]]
HEAD = b"HTTP/1.1 %s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            while (await reader.readline()).strip():
                pass
            row = int(line.split()[1].rpartition(b"/")[2].partition(b".")[0])
            if row % 20 == 7:
                await asyncio.sleep(1)
            gone = row % 10 == 3
            body = b"gone" if gone else PICTURES[row % len(PICTURES)]
            writer.write(HEAD % (b"404 Not Found" if gone else b"200 OK", len(body)) + body)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
