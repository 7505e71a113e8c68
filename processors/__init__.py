"""The write side: the transactional loop, the command processor, and the state they keep on disk.

May import commands, runtime, schemas. Keeps the first guarantee: one command, one outcome, exactly
once.
"""
