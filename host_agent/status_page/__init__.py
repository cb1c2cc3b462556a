"""The status page at port 9099: services, incidents, plots and requests, as ES modules without a build
step.
"""
