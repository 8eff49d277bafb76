"""The stored test vectors: how they are made, read and exported."""
