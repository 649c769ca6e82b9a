"""The way of substreams between the process that has the peers' connections and the opener, by a ring pair."""
