"""Event loops side by side: asyncio's own, uvloop, zuvloop, rloop and Treadle's."""
