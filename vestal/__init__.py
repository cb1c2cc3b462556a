"""What all other packages build on: configuration, supervision, platform and web. It imports none of them."""
