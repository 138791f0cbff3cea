"""The data plane: one request judged, recorded, given its credential at the bound destination, its answer scrubbed."""
