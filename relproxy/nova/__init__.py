"""Nova's side: an image service that names the instance of each image it creates (docs/nova.md).

What is here runs inside Nova, with Nova's own packages and none of relproxy's.
"""
