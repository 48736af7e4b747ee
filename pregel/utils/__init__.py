"""An import path of LangGraph, and nothing else: what it holds is defined where it belongs."""
