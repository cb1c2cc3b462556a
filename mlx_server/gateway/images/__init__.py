"""Images in requests: recognize, measure and limit them without decoding, and fetch them by URL if that is
allowed.
"""
