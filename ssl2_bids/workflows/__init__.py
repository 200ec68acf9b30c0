"""Where file names meet images: order, parallelism, caching."""
