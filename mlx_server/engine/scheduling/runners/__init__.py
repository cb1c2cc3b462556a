"""The runners, one for each loaded model. A runner starts requests, advances them step by step, and cancels
them.
"""
