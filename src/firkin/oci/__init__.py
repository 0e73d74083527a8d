"""Images: references, content store, layouts."""
