"""Pictures of graphs: nodes and edges from plain facts (`draw`), as Mermaid text (`mermaid`) or boxes of text (`boxes`).

Knows no graph object: front ends and `Pregel` say what there is to draw.
"""
