# What direct.pyx, direct_data.pyx and direct_weight.pyx share: the kernels of ext/simd/direct.h, and how images are
# cut into bands.

cimport numpy as cnp

from nnx._ext.common cimport real
from nnx._ext.conv cimport Image

cdef extern from "table.h" nogil:
    struct nnx_taps:
        Py_ssize_t rows
        Py_ssize_t columns
        Py_ssize_t row_step
        Py_ssize_t pixel_step
        Py_ssize_t runs
        Py_ssize_t length
        const Py_ssize_t *offset
        Py_ssize_t planes
        Py_ssize_t down
        Py_ssize_t beside
        Py_ssize_t front
        Py_ssize_t depth
        Py_ssize_t depth_dilation
        Py_ssize_t top
        Py_ssize_t height
        Py_ssize_t stride
        Py_ssize_t dilation
        Py_ssize_t result_row
        const void *added
        const void *positive
        int stream

    ctypedef struct nnx_direct "struct nnx_direct":
        Py_ssize_t (*direct_grouped_most_f32)() noexcept nogil
        Py_ssize_t (*direct_grouped_most_f64)() noexcept nogil
        void (*direct_forward_f32)(const nnx_taps *, const float *, Py_ssize_t, const float *, const float *, int,
                                   float *, Py_ssize_t, float *) noexcept nogil
        void (*direct_forward_f64)(const nnx_taps *, const double *, Py_ssize_t, const double *, const double *, int,
                                   double *, Py_ssize_t, double *) noexcept nogil
        void (*direct_weight_f32)(const nnx_taps *, const float *, Py_ssize_t, const float *, Py_ssize_t, Py_ssize_t,
                                  Py_ssize_t, int, float *, Py_ssize_t) noexcept nogil
        void (*direct_weight_f64)(const nnx_taps *, const double *, Py_ssize_t, const double *, Py_ssize_t, Py_ssize_t,
                                  Py_ssize_t, int, double *, Py_ssize_t) noexcept nogil
        void (*direct_weight_turned_f32)(const nnx_taps *, const float *, Py_ssize_t, const float *, Py_ssize_t,
                                         Py_ssize_t, Py_ssize_t, int, float *, Py_ssize_t) noexcept nogil
        void (*direct_weight_turned_f64)(const nnx_taps *, const double *, Py_ssize_t, const double *, Py_ssize_t,
                                         Py_ssize_t, Py_ssize_t, int, double *, Py_ssize_t) noexcept nogil
        Py_ssize_t (*direct_weight_blocks_f32)(Py_ssize_t) noexcept nogil
        Py_ssize_t (*direct_weight_blocks_f64)(Py_ssize_t) noexcept nogil
        void (*direct_depthwise_f32)(const nnx_taps *, const float *, Py_ssize_t, const float *, const float *, int,
                                     float *, Py_ssize_t) noexcept nogil
        void (*direct_depthwise_f64)(const nnx_taps *, const double *, Py_ssize_t, const double *, const double *, int,
                                     double *, Py_ssize_t) noexcept nogil
        void (*direct_depthwise_weight_f32)(const nnx_taps *, const float *, Py_ssize_t, const float *,
                                            float *) noexcept nogil
        void (*direct_depthwise_weight_f64)(const nnx_taps *, const double *, Py_ssize_t, const double *,
                                            double *) noexcept nogil
        void (*direct_depthwise_scatter_f32)(const nnx_taps *, const float *, Py_ssize_t, const float *,
                                             float *) noexcept nogil
        void (*direct_depthwise_scatter_f64)(const nnx_taps *, const double *, Py_ssize_t, const double *,
                                             double *) noexcept nogil
        void (*direct_add_f32)(const nnx_taps *, const float *, Py_ssize_t, Py_ssize_t, const float *, Py_ssize_t,
                               Py_ssize_t, float *, float *, Py_ssize_t) noexcept nogil
        void (*direct_add_f64)(const nnx_taps *, const double *, Py_ssize_t, Py_ssize_t, const double *, Py_ssize_t,
                               Py_ssize_t, double *, double *, Py_ssize_t) noexcept nogil
        void (*direct_scatter_f32)(const nnx_taps *, const float *, Py_ssize_t, float *) noexcept nogil
        void (*direct_scatter_f64)(const nnx_taps *, const double *, Py_ssize_t, double *) noexcept nogil

cdef enum:
    MAX_RUNS = 1024  # of a filter
    UNITS = 16       # at least, where there are rows enough, so that threads share the work evenly

cdef struct Plan:
    Py_ssize_t stride[3]      # planes, rows, columns
    Py_ssize_t low[3]         # zeros in front, above and to the left
    Py_ssize_t dilation[3]
    Py_ssize_t C
    Py_ssize_t groups
    Py_ssize_t inside         # channels of a group
    Py_ssize_t taps[3]
    Py_ssize_t reach[3]       # planes, rows and columns that one filter covers
    Py_ssize_t out[3]         # planes, rows and columns of y
    Py_ssize_t width          # columns of a padded band
    Py_ssize_t band           # rows of y per band
    Py_ssize_t bands          # per image or plane
    bint padded               # whether bands are copied at all
    Py_ssize_t runs
    Py_ssize_t length
    Py_ssize_t offset[MAX_RUNS]

# Check the shapes and cut the images into bands.
cdef int read_plan(Image *x, Image *w, Image *y, tuple stride, tuple padding, tuple dilation, Py_ssize_t groups,
                   str kernel, Plan *p) except -1

cdef Py_ssize_t padded_size(const Plan *p) noexcept nogil
cdef Py_ssize_t target_of(const Plan *p, const Image *y, Py_ssize_t unit) noexcept nogil
cdef nnx_taps taps_of(Plan *p, const Image *x, Py_ssize_t unit) noexcept nogil
cdef const real *read_band(const Plan *p, const Image *x, Py_ssize_t unit, real *buffer) noexcept nogil
cdef bint is_depthwise(const Plan *p, const Image *Y, Py_ssize_t lanes, Py_ssize_t most) noexcept nogil

# packed[tap][channel], for one filter per channel
cdef void pack_depthwise(const Plan *p, const Image *W, real *packed) noexcept nogil
