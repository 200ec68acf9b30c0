"""One file per processing step: images in, images and facts out."""
