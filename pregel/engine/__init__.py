"""The superstep. Private: front ends and users go through `pregel.pregel`."""
