"""Work in parts: by processes of this machine, or over dask, an embedded cluster or one that is already running."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

Part = TypeVar("Part")
Map = Callable[[Callable[[int], Any], Iterable[int]], list[Any]]


def in_processes(make: Callable[[int], Part], parts: int, workers: int) -> list[Part]:
    """``make(0)``, ``make(1)``, ... by processes of this machine; what comes out does not depend on ``workers``."""
    if workers < 2 or parts < 2:
        return [make(i) for i in range(parts)]
    with ProcessPoolExecutor(min(workers, parts), get_context("spawn")) as pool:
        return list(pool.map(make, range(parts)))


@contextmanager
def workers(cluster: str, members: int) -> Iterator[Map]:
    """Within the block, a map over the workers of ``cluster``: ``"local"`` or a scheduler's address.

    The work must be importable where the workers run. The first exception of a member is raised by the map.
    """
    from distributed import KilledWorker

    with _client(cluster, members) as client:

        def over(work: Callable[[int], Any], members: Iterable[int]) -> list[Any]:
            try:
                return list(client.gather(client.map(work, list(members), pure=False)))
            except KilledWorker as error:
                raise OSError(f"the workers of {cluster!r} died, for want of memory perhaps: {error}") from None

        yield over


@contextmanager
def _client(cluster: str, members: int) -> Iterator[Any]:
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    if cluster == "local":
        quiet = logging.CRITICAL  # a member's exception is raised by the map, and need not be logged as well
        options: dict[str, Any] = dict(threads_per_worker=1, dashboard_address=":0", silence_logs=quiet)
        local = LocalCluster(n_workers=min(members, CPU_COUNT), **options)
        with local, Client(local, set_as_default=False) as client:
            yield client
        return
    try:
        client = Client(cluster, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"no dask scheduler answers at {cluster!r}: {error}") from None
    with client:
        yield client
