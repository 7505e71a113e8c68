"""What is promised to who reads and writes the topics, made from the code and held to what was promised
before: JSON Schemas, an AsyncAPI document, golden files, and the check that a change keeps the promise.

A developer's tool, run in a checkout by ``python -m orderflow.schema_files``; no role imports it.
"""
