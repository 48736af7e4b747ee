"""The superstep. Private: front ends and users go through `pregel.pregel`.

A graph runs in supersteps (Valiant 1990; Malewicz et al. 2010, "Pregel", section 2):

    input -> writes -> (plan -> run the bodies -> settle each -> commit)* -> outcome
                         ^                                        |
                         +---- channels, versions, updated <------+----> checkpoint

Channels hold the state and change only in a commit. A node is woken by a channel whose version it has not seen. What the
tasks of a step write is applied together, in planned order, so neither the number of threads nor who finished first
shows in any value.

Who decides, who does. `Run` decides everything and touches nothing outside: no thread, loop, clock, random number, file
or saver. A driver does what it says: it calls bodies, waits, sleeps, and hands commits to the saver. There are two of
them, with the same methods, one per colour.

The walk, in reading order:

1. core.py: the life of a run, in the order in which a driver calls it. `Run.start` takes the input or finds out what to
   resume and says what must be stored first; `Run.plan` names the tasks; `Run.finish` and `Run.settle` take what became of
   each; `Run.commit` closes the step; `Run.close` and `Run.outcome` end the run. Its fields are in state.py::RunState,
   what was asked of it in state.py::Request; what its tasks may ask is in hosting.py, what is held until it is stored in
   holding.py.
2. plan.py: which nodes are woken and with what input. plan.py::next_tasks looks at the channels that the last step
   updated and at nothing else; plan.py::read_input gives each task containers of its own. A task, its identity, its place
   in the order and its body (node, writers, routers) are in task.py::Task and task.py::call.
3. sync_driver.py: one superstep from outside. `SyncDriver.advance` plans, runs one body on this thread or several on
   workers.py::Workers, settles what comes back at `SyncDriver.barrier`, commits and stores (sync_storing.py).
   async_driver.py::AsyncDriver is its mirror on an event loop, with async_storing.py, and inbox.py to wait for. What both
   have in common is in driver.py::Driver.
4. apply.py: the barrier. apply.py::apply_tasks groups the writes by channel, stages every channel first and then
   installs all of them in one loop that cannot raise, gives what changed the step's version, and sets `updated`.
5. snapshot.py: what a commit stores. snapshot.py::commit describes each changed channel to the saver: its whole value, or
   the tail behind a prefix that was kept. Then it is a `StepCommit` of checkpoint/base.py::StepCommit, which
   checkpoint/chains.py::encode_commit turns into bytes before the next step's first node starts, and
   checkpoint/memory.py::InMemorySaver stores.

Beside the walk: entry.py (input, `Command`, resume, replay), repeat.py (a call that may have been made before),
redeploy.py and stranded.py (checkpoints that another version of the graph has made), pause.py (questions, answers,
breakpoints), answer.py (does an answer fit?), retry.py (try again?), origin.py (what makes two runs of a body the same
task), once.py (results that a running task records), calls.py (which call of a task a called one is), contents.py (what
arguments and inputs are told by), caching.py and flights.py (results that need not be computed again), view.py (chunks,
output values, configs), report.py (what observers are told), history.py (snapshots of stored states), edit.py
(`update_state`), joins.py (edges with several sources), program.py (the compiled graph), namespace.py (addresses of
nested runs), occupancy.py (who runs in a shared one), effects.py (what a driver may be asked besides storing), notes.py
(where an error happened, and how to go on), limits.py and limited.py (time limits of an attempt; of a run, and its
supersteps), reasons.py (why stored tasks ran, for `explain`).

Invariants

1. One owner. Only the thread or task that drives touches a `Run`; bodies reach it through their scope alone, and while
   they run no channel changes. When a body on the driver's own thread starts a child task, the ownership moves to a pump
   and back.
2. Planned order, never completion order, decides what reducers see.
3. Stage, then swap: an exception in a reducer leaves the run as it was; a run interrupted in between is not stored.
4. A task whose result is stored does not run again; a question whose answer is stored is not asked again.
5. An attempt that is over is a fence: nothing it does afterwards has an effect.
6. Nothing is built that nobody asked for: no id, namespace, config or chunk.

Whoever changes this package rereads this page first. If the prose does not fit any more, it changes before the code.
"""
