"""The foundation that all other packages of this project import: configuration, supervision, the platform,
HTTP services, tracing, and writes that may fail. It imports none of the other packages.
"""
