"""From a file to a running engine: parameters, heads, preflight, tuning, and the cache of results."""
