"""The StateGraph front end."""
