"""Files elsewhere: on S3, Google Cloud Storage, Azure and web servers."""
