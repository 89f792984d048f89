"""The question: tasks in, one query, every rule."""
