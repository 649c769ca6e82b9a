"""Messages between peers by id, dialled on demand."""
