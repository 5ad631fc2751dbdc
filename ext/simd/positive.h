/* max(v, 0) of a vector, NaN stays: for headers that have defined NAME(vec). */
#if defined(__GNUC__)
typedef BITS NAME(positive_mask) __attribute__((vector_size(VECTOR_BYTES)));
static inline __attribute__((always_inline)) NAME(vec) NAME(positive)(NAME(vec) v)
{
    return (NAME(vec))(~(NAME(positive_mask))(v <= 0) & (NAME(positive_mask))v);
}
#else
static inline NAME(vec) NAME(positive)(NAME(vec) v)
{
    return v <= 0 ? 0 : v;
}
#endif
