"""ext4 images: writer and reader."""
