"""Results that need not be computed again: `base` is the contract, `memory`, `sqlite` and `redis` keep the entries,
`keys` is what graphs find theirs by.

A graph asks its cache for tasks whose node has a `CachePolicy`. Nothing here knows of graphs. Importing this package
loads none of its modules.
"""
