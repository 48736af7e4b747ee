"""Results that need not be computed again: `base` is the contract, `memory`, `sqlite` and `redis` keep the entries.

A graph asks its cache for tasks whose node has a `CachePolicy`. Nothing here knows of graphs. Importing this package
loads none of its modules.
"""
