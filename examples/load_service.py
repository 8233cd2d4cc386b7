"""Send many photos to a service such as `serve.py`, some of them hostile, and tell how fast it answers.

    pip install httpx numpy
    python examples/load_service.py http://127.0.0.1:8000 photos/*.jpg --requests 500 --clients 8 --hostile 50

Of a hostile upload, which is empty, text, cut off, too long, or says that it has more pixels than anybody decodes, the
answer is to be a refusal (400 or 413), or the connection closed on what is sent too long; of a photo, 200. The exit
status is 1 if one was not.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import struct
import time
import zlib
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

CLOSED = "closed"


def hostile_uploads(photo: bytes) -> list[bytes]:
    """What is to be refused."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return [b"", b"no photo at all", photo[: len(photo) // 3], bytes(9 << 20), bomb]


async def send(address: str, uploads: list[tuple[bytes, bool]], clients: int) -> tuple[list[float], Counter, float]:
    """Send uploads, each with whether it is hostile, by some clients at once.

    Returns:
        Seconds that each photo took, how often each answer came to (hostile, status), and the seconds of all.
    """
    todo, times, answers = iter(uploads), [], Counter()
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:

        async def one_client() -> None:
            for upload, hostile in todo:
                start = time.perf_counter()
                try:
                    status = (await client.post("/predict", content=upload)).status_code
                except (httpx.ConnectError, httpx.UnsupportedProtocol):
                    raise  # There is no service.
                except httpx.TransportError:
                    status = CLOSED
                answers[hostile, status] += 1
                if not hostile:
                    times.append(time.perf_counter() - start)

        start = time.perf_counter()
        await asyncio.gather(*(one_client() for _ in range(clients)))
    return times, answers, time.perf_counter() - start


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of the service, such as http://127.0.0.1:8000")
    parser.add_argument("photos", nargs="+", type=Path, help="image files, which are sent in turns")
    parser.add_argument("--requests", type=int, default=500, help="uploads in all (%(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="that wait at once (%(default)s)")
    parser.add_argument("--hostile", type=int, default=50, help="uploads of them that are to be refused (%(default)s)")
    args = parser.parse_args(arguments)
    if args.hostile > args.requests:
        parser.error(f"of {args.requests} uploads, {args.hostile} cannot be hostile")
    try:
        photos = [path.read_bytes() for path in args.photos]
    except OSError as error:
        parser.error(str(error))
    hostile = hostile_uploads(photos[0])
    uploads = [(hostile[number % len(hostile)], True) for number in range(args.hostile)]
    uploads += [(photos[number % len(photos)], False) for number in range(args.requests - args.hostile)]
    random.Random(0).shuffle(uploads)
    try:
        times, answers, seconds = asyncio.run(send(args.address, uploads, args.clients))
    except (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise SystemExit(f"load_service.py: nobody listens at {args.address}: {error}") from None
    print(f"{len(uploads) / seconds:.1f} answers a second from {args.clients} clients")
    if times:
        median, high = (1000 * np.percentile(times, share) for share in (50, 95))
        print(f"a photo: median {median:.0f} ms, 95 % within {high:.0f} ms")
    for (is_hostile, status), count in sorted(answers.items(), key=str):
        print(f"{count:6} {'hostile' if is_hostile else 'photo':>8}  {status}")
    expected = all(status in ((400, 413, CLOSED) if is_hostile else (200,)) for is_hostile, status in answers)
    return 0 if expected else 1


if __name__ == "__main__":
    raise SystemExit(main())
