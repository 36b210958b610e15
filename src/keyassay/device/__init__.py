"""A reference agent for devices, to run or to copy: it imports nothing else of keyassay."""
