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

# `bias` if it is a contiguous array of so many numbers of this type, or None.
cdef cnp.ndarray read_bias(object bias, int kind, Py_ssize_t filters, str kernel)
