"""The foundation of all other packages of this project: configuration, supervision, platform and web. It
imports none of those packages.
"""
