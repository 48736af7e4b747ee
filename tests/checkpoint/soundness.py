"""What must hold of all stored rows, whatever was removed from them: looked at row by row, below the saver's interface."""

from __future__ import annotations

from typing import Any

from checkpoint.chains import PARENT_PRUNED, STUB
from checkpoint.retention import SpaceLines, read_lines, states


def unsound(saver: Any, thread_id: str = "t", *, allows_garbage: bool = False) -> list[str]:
    """Everything that is wrong with a thread's rows. `allows_garbage`: rows that nothing needs are no fault."""
    faults: list[str] = []
    with saver._writing() as tx:
        address = tx.address(thread_id, "")
        if address is None:
            return []
        spaces = {space.ns: space for space in read_lines(tx, address.thread_pk)}
        for space in spaces.values():
            faults += [f"{space.ns!r}: {fault}" for fault in _of_space(tx, space, spaces, allows_garbage)]
    faults += [str(problem) for problem in saver.verify({"configurable": {"thread_id": thread_id}}, deep=True)]
    return faults


def _of_space(tx: Any, space: SpaceLines, spaces: dict[str, SpaceLines], allows_garbage: bool) -> list[str]:
    faults: list[str] = []
    revs = {line.rev for line in space.lines}
    if space.head is not None and space.head not in space.visible:
        faults.append(f"head {space.head:x} is no checkpoint")
    above = spaces.get(space.ns.rpartition("|")[0]) if space.ns else None
    live: dict[tuple[int, int], int] = {}
    needed: set[int] = set()
    for line in space.visible.values():
        if line.parent_rev is not None and line.parent_rev not in revs and not line.flags & PARENT_PRUNED:
            faults.append(f"{line.rev:x} has parent {line.parent_rev:x}, which is gone")
        if line.up_rev is not None and (above is None or line.up_rev not in above.visible):
            faults.append(f"{line.rev:x} works under {line.up_rev:x}, which is gone")
        for rev, state in states(tx, space, line.header_root, line.rev):
            needed.add(rev)
            if rev == line.rev:
                for number, root, seq in state.chains():
                    live[number, root] = max(live.get((number, root), -1), seq)
                for ns, target in state.sub.items():
                    if ns not in spaces or target not in spaces[ns].visible:
                        faults.append(f"{line.rev:x} points to {target:x} in {ns!r}, which is gone")
    lengths = {(number, root): n_rows for number, root, n_rows in tx.chain_lengths(space.space_pk)}
    for key, last in live.items():
        if lengths.get(key, 0) <= last:
            faults.append(f"chain {key} is too short")
    if not allows_garbage:
        faults += [f"stub {rev:x} is not needed" for rev in revs - needed]
        faults += [f"chain {key} is too long" for key, n in lengths.items() if live.get(key, -1) + 1 != n]
        faults += [
            f"task rows of {rev:x}" for rev in {key[0] for key in tx.task_keys(space.space_pk)} - set(space.visible)
        ]
    for line in space.lines:
        if line.flags & STUB and (line.run_id is not None or line.parent_rev is not None or line.up_rev is not None):
            faults.append(f"stub {line.rev:x} tells more than its header")
    return faults
