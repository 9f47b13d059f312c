"""How a health network is asked. Networks return records and byte streams; they cannot write."""
