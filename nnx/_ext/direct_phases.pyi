# Only C functions, for direct_data.pyx: direct_phases.pxd.
