"""The key-value store that outlives threads: items under namespaces, found by key, by filter or by meaning.

`base` is the contract, `memory` keeps everything in the process. The graph only hands its store to nodes; nothing here
knows of graphs, runs or checkpoints. Importing this package loads neither of its modules.
"""
