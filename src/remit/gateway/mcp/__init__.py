"""Messages of the Model Context Protocol, judged one by one. Pure: nothing here knows how they are carried.

Two revisions are spoken, 2025-11-25 and 2026-07-28. What a client says is read (``messages``), judged against the
compiled details of a grant and written anew (``rules``); what a server says is read, reduced to what the grant permits
and written anew (``answers``). A refusal is a message too, which no client takes for success (``denials``).
"""
