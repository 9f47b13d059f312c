"""From a question to stored documents and messages: ask the networks, keep what they hold, announce it.

Every step is a row in the database (`store/queries.py`); nothing here remembers anything that a crash may not take.
"""
