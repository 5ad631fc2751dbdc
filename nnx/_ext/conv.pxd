# How compiled modules read a batch of images.

cimport numpy as cnp

cdef struct Image:
    # a batch of images of 1 to 3 dimensions; missing axes have length 1. Strides in numbers.
    void *data
    Py_ssize_t images
    Py_ssize_t channels
    Py_ssize_t size[3]
    Py_ssize_t image
    Py_ssize_t channel
    Py_ssize_t stride[3]

# Read the shape and strides of an (N, C, 1-3 axes) array; `channels_last`: it must be dense in that order.
cdef int read_image(cnp.ndarray a, int kind, bint channels_last, str kernel, str argument, Image *result) except -1

cdef inline bint same_shape(const Image *a, const Image *b) noexcept nogil:
    return (a.images == b.images and a.channels == b.channels and a.size[0] == b.size[0] and a.size[1] == b.size[1]
            and a.size[2] == b.size[2])

# The data of an image to join with results like `y`, channels-last as they are, or NULL for None.
cdef const void *joined_image(cnp.ndarray a, const Image *y, int kind, str kernel, str argument) except? NULL

# `bias` if it is a contiguous array of so many numbers of this type, or None.
cdef cnp.ndarray read_bias(object bias, int kind, Py_ssize_t filters, str kernel)

# Stride, padding and dilation of three axes.
cdef struct Geometry:
    Py_ssize_t stride[3]
    Py_ssize_t padding[3]
    Py_ssize_t dilation[3]

# Tuples of 1 to 3 integers, none above `largest`; missing axes get stride 1, padding 0, dilation 1.
cdef int read_geometry(tuple stride, tuple padding, tuple dilation, Py_ssize_t largest, str kernel,
                       Geometry *g) except -1

# The column matrix of a convolution, a row for each pixel: what ext/conv.pyx and ext/conv_weight.pyx gather tiles of.
cdef extern from "table.h" nogil:
    struct nnx_view:
        Py_ssize_t channels
        Py_ssize_t image
        Py_ssize_t channel
        Py_ssize_t stride[3]
        Py_ssize_t size[3]
        Py_ssize_t count[3]
        Py_ssize_t step[3]
        Py_ssize_t taps[3]
        const Py_ssize_t *offset[3]

    ctypedef struct nnx_conv "struct nnx_conv":
        void (*gather_f32)(const nnx_view *, const float *, Py_ssize_t, Py_ssize_t, float *) noexcept nogil
        void (*gather_f64)(const nnx_view *, const double *, Py_ssize_t, Py_ssize_t, double *) noexcept nogil
        void (*depthwise_f32)(const nnx_view *, const float *, Py_ssize_t, Py_ssize_t, const float *, const float *,
                              int, float *) noexcept nogil
        void (*depthwise_f64)(const nnx_view *, const double *, Py_ssize_t, Py_ssize_t, const double *,
                              const double *, int, double *) noexcept nogil
        void (*depthwise_weight_f32)(const nnx_view *, const float *, Py_ssize_t, Py_ssize_t, const float *,
                                     float *) noexcept nogil
        void (*depthwise_weight_f64)(const nnx_view *, const double *, Py_ssize_t, Py_ssize_t, const double *,
                                     double *) noexcept nogil

cdef enum:
    MAX_TAPS = 4096            # taps per axis
    LARGEST = 1 << 30          # stride, padding, dilation: products with positions stay far from overflow

# Weights (F, C / G, taps), checked against C channels in and F channels out.
cdef int check_weights(Image *w, Image *x, Image *y, Py_ssize_t groups, str kernel) except -1

cdef Py_ssize_t view_rows(const nnx_view *v, Py_ssize_t images) noexcept nogil

# Rows are output pixels, the source is the input. offsets: room for 3 MAX_TAPS numbers
cdef void input_view(nnx_view *v, Image *x, Image *w, Image *y, Geometry *g, Py_ssize_t *offsets) noexcept nogil

# Rows per tile: as many as fit into a part of the second-level cache, fewer where that would leave too few tiles.
cdef Py_ssize_t tile_rows(Py_ssize_t rows, Py_ssize_t row_bytes) noexcept nogil
