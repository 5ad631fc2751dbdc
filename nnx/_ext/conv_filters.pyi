# Only C functions, for conv.pyx: conv_filters.pxd.
