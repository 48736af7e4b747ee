"""Values to bytes and back: the codec (`msgpack`), its LangGraph-shaped face (`jsonplus`), their interfaces (`base`).

Decides what may be stored and how it reads; knows nothing of savers, threads or channels.
"""
