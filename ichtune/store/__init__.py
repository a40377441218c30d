"""Storage behind a URL (S3 and its like, SFTP, a folder): whole files, a journal, a lease, mirrored folders."""
