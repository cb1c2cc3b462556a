"""The HTTP APIs. Each dialect has its routes, schema and rendering; what they share stands beside them."""
