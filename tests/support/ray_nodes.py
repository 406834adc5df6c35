"""A cluster of real raylets on this machine; run by the Python that has Ray.

`python ray_nodes.py WORKERS`: a head that runs nothing of ours but the bridge's actor, and
workers with two processors each. Then line by line: `serving` says on which nodes replicas are,
`kill NODE_ID` kills a node's raylet and all its workers at once (SIGKILL).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path


def say(out: int, **facts: object) -> None:
    os.write(out, json.dumps(facts).encode() + b"\n")


def below(pid: int) -> list[int]:
    """The processes that a process started, and theirs."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [each for child in map(int, children) for each in (child, *below(child))]


def serving() -> dict[str, list[int]]:
    """Node ids, and the processes of replicas there."""
    from ray.util.state import list_actors  # noqa: PLC0415

    found: dict[str, list[int]] = {}
    for actor in list_actors(filters=[("state", "=", "ALIVE")], limit=1000, detail=True):
        if "ServeReplica:modelkeep" in actor.class_name:
            found.setdefault(actor.node_id, []).append(actor.pid)
    return found


def main() -> None:
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    workers = int(sys.argv[1])
    out = os.dup(1)
    os.dup2(2, 1)  # Ray talks
    size = {"object_store_memory": 150 * 1024 * 1024}
    head = {"num_cpus": 0, "include_dashboard": True, **size}
    cluster = Cluster(initialize_head=True, connect=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=2, **size) for _ in range(workers)]
    cluster.wait_for_nodes()
    by_id = {each.node_id: each for each in (cluster.head_node, *nodes)}
    say(out, address=cluster.address)
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        if verb == "serving":
            say(out, serving=serving())
        else:
            raylet = by_id[rest].all_processes["raylet"][0].process.pid
            pids = [raylet, *below(raylet)]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            say(out, killed=len(pids))
    cluster.shutdown()


if __name__ == "__main__":
    main()
