"""What is remembered: image, instance and project, durably and in a store of relproxy's own."""
