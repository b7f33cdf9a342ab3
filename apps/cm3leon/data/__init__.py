"""From captioned pictures to token shards, memory bank and neighbours."""
