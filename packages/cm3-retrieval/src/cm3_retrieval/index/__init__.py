"""Inner-product search over vectors under int64 keys: exact, approximate, merged from shards."""
