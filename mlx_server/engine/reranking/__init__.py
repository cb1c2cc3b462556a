"""Rerankers: models that score how well a document answers a query, and the job that scores many
documents.
"""
