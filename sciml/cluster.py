"""Members of an ensemble over dask: an embedded local cluster, or one that is already running."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def over_members(work: Callable[[int], Any], members: Iterable[int], cluster: str) -> Any:
    """``[work(m) for m in members]`` on the workers of ``cluster``: ``"local"`` or a scheduler's address.

    ``work`` must be importable where the workers run. The first exception of a member is raised here.
    """
    from distributed import Client, LocalCluster

    if cluster == "local":
        with LocalCluster(threads_per_worker=1, dashboard_address=":0") as local, Client(local) as client:
            return client.gather(client.map(work, list(members), pure=False))
    try:
        client = Client(cluster, timeout="10s")
    except (OSError, ValueError) as error:
        raise ValueError(f"no dask scheduler answers at {cluster!r}: {error}") from None
    with client:
        return client.gather(client.map(work, list(members), pure=False))
