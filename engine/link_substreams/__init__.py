"""The control connection of a link, divided: the core's control codec on its first substream, protocols on others."""
