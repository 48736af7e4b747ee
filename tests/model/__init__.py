"""Any graph, completion order, durability and colour agrees with a reference interpreter."""
