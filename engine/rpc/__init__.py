"""Remote procedure calls between peers, over substreams."""
